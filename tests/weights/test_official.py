"""The official model end to end: `moda download`, then `moda generate --model moda`, by rule."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from extract_bench import talking
from extract_bench import write_video as lossless
from hub_server import serve
from moda_cli.config import SAMPLES_PER_FRAME
from moda_cli.device import has_bf16
from moda_cli.media import read_audio, read_video
from moda_cli.motion import load_motion
from official import FULL, MODA, SMALL, manifest_of, published, save_portrait

FASTEST = "bfloat16" if has_bf16(torch.device("cpu")) else "float32"
EXAMPLES = Path(__file__).parents[2] / "examples"
SHORT = 5  # frames, where how many there are is not the point: each costs half a second


class Bench:
    """A folder with a portrait, speech, a cache, and `moda` run in it."""

    def __init__(self, folder: Path, sizes: dict[str, dict[str, Any]], seconds: float) -> None:
        self.folder = folder
        self.sizes = sizes
        save_portrait(folder / "portrait.png")
        wave = read_audio(EXAMPLES / "speech.wav")[16000 : 16000 + int(16000 * seconds)]
        soundfile.write(folder / "speech.wav", wave, 16000)
        soundfile.write(folder / "short.wav", wave[: SHORT * SAMPLES_PER_FRAME], 16000)
        manifest_of(sizes, folder / "weights.toml")
        self.environment = {
            **os.environ,
            "MODA_WEIGHTS": str(folder / "weights.toml"),
            "MODA_CACHE": str(folder / "cache"),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
        }

    def run(self, *arguments: str, check: bool = True, **more: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "moda_cli", *arguments],
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def download(self) -> Any:
        with serve(published(self.sizes, self.folder)) as hub:
            return self.run("download", "--json", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0")

    def generate(self, output: str, *options: str, speech: str = "short.wav") -> dict[str, Any]:
        done = self.run("generate", "portrait.png", speech, "-o", output, "--device", "cpu",
                        "--json", *options)  # fmt: skip
        report: dict[str, Any] = json.loads(done.stdout)
        return report


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bench = Bench(tmp_path_factory.mktemp("official"), SMALL, 0.6)
    before = bench.run("generate", "portrait.png", "speech.wav", "-o", "no.mp4", "--model", "moda",
                       check=False)  # fmt: skip
    assert before.returncode == 4
    assert "moda download" in before.stderr
    rows = json.loads(bench.download().stdout)["components"]
    assert {row["status"] for row in rows} == {"fetched"}
    assert all(MODA in row["source"] for row in rows)
    return bench


def test_the_official_model_makes_a_video(bench: Bench) -> None:
    report = bench.generate("out.mp4", "--model", "moda", "--emotion", "happy",
                            "--save-motion", "m.safetensors", "--save-crop", "crop.png",
                            "--show-landmarks", "face.png", "--preview", "sheet.png",
                            speech="speech.wav")  # fmt: skip
    assert (report["model"], report["frames"]) == ("moda", 15)
    assert (report["width"], report["height"]) == (640, 512)
    frames = np.stack(list(read_video(bench.folder / "out.mp4")))
    assert frames.shape == (15, 512, 640, 3)
    source = next(read_video(bench.folder / "out.mp4"))
    assert frames[:, :40, :40].std(axis=0).max() < 3, "the picture round the face stands still"
    assert frames.astype(float).std(axis=0).max() > 1, "the face moves"
    assert source.any()
    recording = load_motion(bench.folder / "m.safetensors")
    assert recording.motion.shape == (15, 70)
    assert recording.absolute
    assert abs(len(read_audio(bench.folder / "out.mp4")) - 9600) <= 2048


def test_saved_motion_and_seed_give_the_same_frames(bench: Bench) -> None:
    bench.generate("a.mkv", "--model", "moda", "--save-motion", "a.safetensors")
    bench.generate("b.mkv", "--model", "moda", "--motion", "a.safetensors")
    bench.generate("c.mkv", "--model", "moda", "--seed", "1")
    first, again, other = (
        np.stack(list(read_video(bench.folder / f"{name}.mkv"))).astype(int) for name in "abc"
    )
    assert (first == again).all()
    assert abs(first - other).max() > 5


def test_a_video_drives_by_m_relative_to_its_neutral_frame(bench: Bench) -> None:
    """LivePortrait's own use: what M sees of a face, off its rest, moves the portrait off its."""
    lossless(bench.folder / "drive.mkv", talking(6), None)
    report = bench.generate("d.mkv", "--model", "moda", "--motion", "drive.mkv",
                            "--save-motion", "d.safetensors")  # fmt: skip
    assert report["frames"] == 6
    recording = load_motion(bench.folder / "d.safetensors")
    assert recording.motion.shape == (6, 70)
    assert not recording.absolute
    moved = (recording.motion - recording.neutral).abs()
    assert moved[:, :63].max() > 1e-3
    assert moved[:, 63].max() > 0  # scale, which the mesh says nothing of
    bench.generate("t.mkv", "--model", "moda", "--motion", "drive.mkv", "--take", "lips",
                   "--save-motion", "t.safetensors")  # fmt: skip
    taken = load_motion(bench.folder / "t.safetensors")
    assert taken.absolute
    assert len(taken.motion) == SHORT


@pytest.mark.parametrize(
    ("model", "renderer"), [("mini", "liveportrait"), ("moda", "rig"), ("mini", "rig")]
)
def test_any_generator_drives_any_renderer(bench: Bench, model: str, renderer: str) -> None:
    name = f"{model}_{renderer}.mp4"
    report = bench.generate(name, "--model", model, "--renderer", renderer, "-y")
    assert report["frames"] == SHORT
    frames = list(read_video(bench.folder / name))
    assert len(frames) == SHORT
    assert frames[0].shape == (512, 640, 3)


def test_the_crop_alone(bench: Bench) -> None:
    report = bench.generate("crop.mp4", "--model", "moda", "--crop", "--dtype", FASTEST)
    assert (report["width"], report["height"]) == (512, 512)
    assert next(read_video(bench.folder / "crop.mp4")).shape == (512, 512, 3)


def test_the_networks_see_the_same_whatever_the_size(bench: Bench) -> None:
    motions = []
    for size in (640, 160):
        report = bench.generate(f"size{size}.mp4", "--model", "moda", "--size", str(size),
                                "--save-motion", f"{size}.safetensors")  # fmt: skip
        assert report["width"] == size
        motions.append(load_motion(bench.folder / f"{size}.safetensors").motion)
    assert motions[0].equal(motions[1])


def test_a_stream_of_the_official_model(bench: Bench) -> None:
    command = [sys.executable, "-m", "moda_cli", "generate", "portrait.png", "short.wav",
               "-o", "-", "--model", "moda", "--device", "cpu"]  # fmt: skip
    done = subprocess.run(
        command, cwd=bench.folder, env=bench.environment, capture_output=True, check=True
    )
    (bench.folder / "stream.mp4").write_bytes(done.stdout)
    assert len(list(read_video(bench.folder / "stream.mp4"))) == SHORT


def test_faults_of_weights_and_choices_are_named(bench: Bench, tmp_path: Path) -> None:
    def refused(code: int, word: str, *options: str, **environment: str) -> None:
        done = bench.run("generate", "portrait.png", "speech.wav", "-o", "no.mp4", *options,
                         check=False, **environment)  # fmt: skip
        assert done.returncode == code, done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert not (bench.folder / "no.mp4").exists()

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"audio": "melspec"}')
    refused(4, "melspec", "--model", str(tmp_path / "model"))
    refused(2, "float16", "--model", "moda", "--dtype", "float16", "--device", "cpu")
    refused(5, "hpu", "--device", "hpu")
    refused(4, "MODA_CACHE", "--model", "moda", MODA_CACHE="/dev/null")
    (tmp_path / "one.toml").write_text('[x]\nwhat = "x"\nlicence = "MIT"\ncommercial = true\n'
                                       'profiles = []\nsource = []\n')  # fmt: skip
    refused(4, "motion_generator", "--model", "moda", MODA_WEIGHTS=str(tmp_path / "one.toml"))


@pytest.mark.slow
def test_the_full_size_model_makes_a_video(tmp_path: Path) -> None:
    bench = Bench(tmp_path, FULL, 0.08)
    bench.download()
    report = bench.generate("out.mp4", "--model", "moda", "--emotion", "happy", "--steps", "3")
    assert report["frames"] == 2
    assert len(list(read_video(tmp_path / "out.mp4"))) == 2
