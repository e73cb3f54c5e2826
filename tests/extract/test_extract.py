"""`moda extract`: what it keeps of a video, what it says of the rest, and what a kill leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from extract_bench import (
    SMALL_MOTION,
    install,
    make_networks,
    picture,
    rows_of,
    save_classifier,
    speech,
    talking,
    write_video,
)
from liveportrait_by_rule import by_rule
from media_files import make
from moda_cli.cli import app
from moda_cli.config import SAMPLES_PER_FRAME
from moda_cli.data.annotations import Box, Cut, find_cuts
from moda_cli.device import one_thread
from moda_cli.errors import UsageError, WeightsError
from moda_cli.extract import extraction
from moda_cli.extract.emotion_classifier import EmotionClassifier
from moda_cli.extract.extraction import Extractor, extract, run_all
from moda_cli.extract.features import Footage, judge_sync
from moda_cli.extract.stretches import (
    Stretch,
    face_box,
    has_speech,
    stretches,
    unusable,
    views,
)
from moda_cli.face.crops import crop_image, halve, smooth_crops
from moda_cli.face.extractors import MotionExtractor, read_heads
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh_motion import MEASURES
from moda_cli.files import Row
from moda_cli.jobs.processes import Event, OnProgress, Work
from moda_cli.media import read_audio, read_video
from moda_cli.owner import LOCK, owned
from moda_cli.speech.logmel import log_mel

LEFT, RIGHT, MIDDLE = (150.0, 180.0), (480.0, 180.0), (320.0, 180.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_networks(tmp_path_factory.mktemp("networks"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with a cut and all that is left out, a short one and a silent one at 30 fps."""
    folder = tmp_path_factory.mktemp("videos")
    frames = [
        *talking(90),
        *[picture(40)] * 10,
        *talking(80, grey=200),
        *[picture(200, LEFT, RIGHT)] * 15,
    ]
    write_video(folder / "ann" / "scenes.mkv", frames, speech(len(frames) / 25))
    write_video(folder / "short.mkv", talking(50), speech(2))
    hum = 0.1 * np.sin(np.arange(16000 * 3.2)).astype(np.float32)
    write_video(folder / "hum.mov", talking(96), hum, fps=30)
    write_video(folder / "mute.mkv", talking(10), None)
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip as it should be, 80 frames."""
    return write_video(tmp_path_factory.mktemp("one") / "one.mkv", talking(80), speech(3.2))


@dataclass
class Bench:
    out: Path
    videos: Path

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["extract", *arguments, "-o", str(self.out)])

    def rows(self, name: str = "index.jsonl") -> list[dict[str, object]]:
        return rows_of(self.out / name)


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], videos: Path
) -> Bench:
    install(monkeypatch, tmp_path, files)
    return Bench(tmp_path / "features", videos)


def test_the_usable_clips_and_why_the_rest_is_left_out(bench: Bench) -> None:
    done = bench.run(str(bench.videos), "--audio", "hubert", "--verify", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["faults"] == {}
    rows = bench.rows()
    assert [row["clip"] for row in rows] == ["ann_scenes_000", "ann_scenes_001"]
    assert {(row["speaker"], row["source"]) for row in rows} == {("ann", "ann/scenes.mkv")}
    assert [(row["start"], row["end"]) for row in rows] == [(0, 3.6), (4, 7.2)]
    for row in rows:
        parts = load_file(bench.out / f"{row['clip']}.safetensors")
        assert parts["motion"].shape == (row["frames"], 70)
        assert parts["audio"].shape == (row["frames"], 12, 32)
        assert parts["audio"].dtype == torch.float16
        assert parts["kp"].shape == (63,)
        assert parts["emotion"].tolist() == [0] * 8  # no classifier is installed
    reasons = [(row["clip"], row["start"], row["reason"]) for row in bench.rows("dropped.jsonl")]
    assert reasons == [
        ("ann_scenes", 3.6, "no face"),
        ("ann_scenes", 7.2, "several faces"),
        ("hum", 0, "no speech"),
        ("mute", 0, "no sound"),
        ("short", 0, "2.00 s, shorter than 3 s"),
    ]


@pytest.fixture
def on_one_thread() -> Iterator[None]:
    """As features are computed: sums of floats depend on the threads."""
    with one_thread(opencv=True):
        yield


@pytest.mark.usefixtures("on_one_thread")
def test_features_are_those_of_the_networks_alone(
    bench: Bench, files: dict[str, Path], one: Path
) -> None:
    """A second computation, whole clip at once, from the frames and the sound."""
    assert bench.run(str(one), "--audio", "logmel", "-q").exit_code == 0
    (row,) = bench.rows()
    parts = load_file(bench.out / f"{row['clip']}.safetensors")
    landmarks = LandmarkNetwork(files["face_landmarks"])
    (stretch,) = stretches(read_video(one), landmarks)
    crops = [
        halve(crop_image(frame, to_crop))
        for frame, to_crop in zip(read_video(one), smooth_crops(stretch.crops), strict=True)
    ]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        motion, kp = read_heads(by_rule(MotionExtractor(**SMALL_MOTION))(images))
    torch.testing.assert_close(parts["motion"], motion, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(parts["kp"], kp[0].flatten(), atol=1e-5, rtol=1e-4)
    assert parts["audio"].equal(log_mel(read_audio(one)).half())
    assert parts["motion"].std(dim=0).max() > 0  # the networks see the sway


def test_a_broadcast_of_10_bits_whose_sound_starts_late(
    bench: Bench, one: Path, tmp_path: Path
) -> None:
    """It is read to its end, and its sound belongs to the frames during which it is heard."""
    path = tmp_path / "late.ts"
    make(
        "-i", one, "-itsoffset", 0.4, "-i", one, "-map", "0:v", "-map", "1:a", "-c:v", "libx264",
        "-preset", "ultrafast", "-pix_fmt", "yuv420p10le", "-c:a", "mp2", path,
    )  # fmt: skip
    assert bench.run(str(path), "--audio", "logmel", "-q").exit_code == 0
    (row,) = bench.rows()
    made = load_file(bench.out / f"{row['clip']}.safetensors")["audio"].float()
    wave = read_audio(one)

    def error(late: float) -> float:
        shifted = np.concatenate((np.zeros(round(late * 16_000), np.float32), wave))
        return float((log_mel(shifted)[: len(made)] - made).abs()[20:].mean())

    assert min((0.0, 0.2, 0.36, 0.4, 0.44, 0.6), key=error) == 0.4


def test_emotion_is_the_mean_over_the_faces(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, files: dict[str, Path], one: Path
) -> None:
    classifier = bench.out.parent / "classifier.onnx"
    save_classifier(classifier)
    install(monkeypatch, bench.out.parent, {**files, "hsemotion": classifier})
    assert bench.run(str(one), "--audio", "logmel").exit_code == 0
    found = load_file(bench.out / "one_000.safetensors")["emotion"]
    (stretch,) = stretches(read_video(one), LandmarkNetwork(files["face_landmarks"]))
    boxes = zip(read_video(one), stretch.crops, strict=True)
    faces = [face_box(frame, *crop) for frame, crop in islice(boxes, 0, None, 5)]
    wanted = np.mean([EmotionClassifier(classifier).probabilities(face) for face in faces], axis=0)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(found.numpy(), wanted, atol=0.01)


def test_a_second_run_does_nothing_and_another_kind_is_refused(bench: Bench, one: Path) -> None:
    video = bench.out.parent / "one.mkv"
    shutil.copy(one, video)
    assert bench.run(str(video), "--audio", "logmel").exit_code == 0
    (path,) = bench.out.glob("*.safetensors")
    before = path.stat().st_mtime_ns, (bench.out / "index.jsonl").read_bytes()
    assert bench.run(str(video), "--audio", "logmel").exit_code == 0
    assert (path.stat().st_mtime_ns, (bench.out / "index.jsonl").read_bytes()) == before
    refused = bench.run(str(video), "--audio", "hubert")
    assert refused.exit_code == 2
    assert "other options" in refused.stderr
    # a shorter video in its place leaves nothing of the old one
    write_video(video, talking(40), speech(1.6))
    assert bench.run(str(video), "--audio", "logmel").exit_code == 3
    assert not path.exists()
    assert bench.rows() == []


def test_a_folder_of_features_has_one_writer(bench: Bench, one: Path) -> None:
    with owned(bench.out):
        done = bench.run(str(one), "--audio", "logmel")
    assert done.exit_code == 2
    assert f"{bench.out} is being written by process {os.getpid()}" in done.stderr
    assert bench.run(str(one), "--audio", "logmel").exit_code == 0


@pytest.mark.usefixtures("on_one_thread")
def test_a_listed_clip_is_cut_out_of_the_whole_video(bench: Bench, files: dict[str, Path]) -> None:
    """Its picture and its sound begin at the listed second."""
    folder = bench.out.parent / "v"
    frames = list(talking(140))
    write_video(folder / "AAAAAAAAAAA.mkv", frames, speech(5.6))
    clip = {
        "ytb_id": "AAAAAAAAAAA",
        "duration": {"start_sec": 1.2, "end_sec": 4.6},
        "bbox": {"left": 0.2, "top": 0, "right": 0.8, "bottom": 1},
    }
    absent = {**clip, "ytb_id": "BBBBBBBBBBB"}
    annotations = bench.out.parent / "info.json"
    annotations.write_text(json.dumps({"AAAAAAAAAAA_3": clip, "BBBBBBBBBBB_0": absent}))
    options = ["--dataset", "celebvtext", "--annotations", str(annotations), "--split", "train"]
    assert bench.run(str(folder), *options, "--audio", "logmel").exit_code == 0
    (row,) = bench.rows()
    assert (row["start"], row["end"], row["frames"]) == (1.2, 4.6, 85)
    assert (row["speaker"], row["split"]) == ("AAAAAAAAAAA", "train")
    (dropped,) = bench.rows("dropped.jsonl")
    assert (dropped["clip"], dropped["reason"]) == ("BBBBBBBBBBB_0", "the video is not there")
    parts = load_file(bench.out / f"{row['clip']}.safetensors")
    wave = read_audio(folder / "AAAAAAAAAAA.mkv")[19200:73600]
    assert parts["audio"].equal(log_mel(wave).half())
    landmarks = LandmarkNetwork(files["face_landmarks"])
    (stretch,) = stretches(frames[30:115], landmarks)
    crops = [view for view, _ in views(frames[30:115], stretch, 5)]
    images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        motion, _ = read_heads(by_rule(MotionExtractor(**SMALL_MOTION))(images))
    torch.testing.assert_close(parts["motion"], motion, atol=1e-4, rtol=1e-4)


def test_an_unreadable_video_fails_alone(bench: Bench, one: Path) -> None:
    folder = bench.out.parent / "v"
    folder.mkdir()
    shutil.copy(one, folder)
    (folder / "bad.mp4").write_bytes(b"not a video")
    done = bench.run(str(folder), "--audio", "logmel")
    assert done.exit_code == 1
    assert [row["clip"] for row in bench.rows()] == ["one_000"]
    assert [row["clip"] for row in bench.rows("dropped.jsonl")] == ["bad"]


def test_verify_names_every_bad_file(bench: Bench) -> None:
    bench.out.mkdir()
    rows = []
    for name in ("good", "changed", "short", "nan", "gone"):
        parts = {
            "motion": torch.zeros(80 if name != "short" else 79, 70),
            "kp": torch.zeros(63),
            "audio": torch.zeros(80, 4, 80, dtype=torch.float16),
            "emotion": torch.zeros(8),
        }
        if name == "nan":
            parts["motion"][3, 4] = torch.nan
        path = bench.out / f"{name}.safetensors"
        save_file(parts, path)
        digest = subprocess.run(["sha256sum", path], capture_output=True, text=True).stdout[:64]
        rows.append({"clip": name, "frames": 80, "sha256": digest})
    path = bench.out / "changed.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    (bench.out / "gone.safetensors").unlink()
    save_file({"x": torch.zeros(1)}, bench.out / "stray.safetensors")
    (bench.out / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = bench.run("--verify", "--json")
    assert done.exit_code == 1
    faults = json.loads(done.stdout)["faults"]
    assert set(faults) == {f"{n}.safetensors" for n in ("changed", "short", "nan", "gone", "stray")}
    assert faults["short.safetensors"] == "it has 79 frames, and the index says 80"
    assert faults["nan.safetensors"] == "motion is not finite at frame 3"


def test_without_weights_it_says_which_command_fetches_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODA_CACHE", str(bench.out.parent / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    done = bench.run(str(bench.videos), "--audio", "logmel")
    assert done.exit_code == 4
    assert "moda download train" in done.stderr
    assert not bench.out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--synthetic", "1", "--audio", "hubert"],
        ["x", "--split", "authors"],
        ["x", "--dataset", "hdtf"],
        ["x", "--annotations", "y"],
        ["x", "--workers", "2", "--ray", "127.0.0.1:9"],
    ],
)
def test_options_that_do_not_fit(bench: Bench, arguments: list[str]) -> None:
    assert bench.run(*(str(bench.videos) if a == "x" else a for a in arguments)).exit_code == 2


def test_a_box_chooses_the_speaker(bench: Bench) -> None:
    video = write_video(bench.out.parent / "two.mkv", [picture(40, LEFT, RIGHT)] * 80, speech(3.2))
    cut = Cut("two", video, "two.mkv", "a", box=Box(0.5, 0, 1, 1))
    assert extract([cut], bench.out, "logmel", "cpu").clips == 1
    shifted = Cut("both", video, "two.mkv", "a", box=Box(0, 0, 1280, 720, height=720))
    assert extract([shifted], bench.out, "logmel", "cpu").clips == 1
    assert bench.rows("dropped.jsonl")[0]["reason"] == "several faces"


def test_smooth_crops_follow_drift_and_not_nods() -> None:
    still = np.tile([300.0, 200.0, 400.0], (200, 1))
    zoom = 512 / 400
    middle = [256 - zoom * 300, 256 - zoom * 200]
    wanted = np.column_stack((zoom * np.eye(2), middle))
    np.testing.assert_allclose(smooth_crops(still), np.tile(wanted, (200, 1, 1)), atol=1e-9)
    nodding = still + np.array([0, 10, 0]) * np.sin(np.arange(200) * 2 * np.pi / 20)[:, None]
    shift = smooth_crops(nodding)[75:-75, 1, 2] - wanted[1, 2]
    assert np.abs(shift).max() < 0.02 * zoom * 10
    drifting = still + np.array([1.0, 0, 0]) * np.arange(200)[:, None]
    apart = smooth_crops(drifting)[75:-75] @ np.array([0, 200, 1.0])
    np.testing.assert_allclose(apart[:, 0], 256 - zoom * drifting[75:-75, 0], atol=1e-6)


def test_what_is_speech() -> None:
    rng = np.random.default_rng(0)
    seconds = np.arange(16000 * 5) / 16000
    noise = rng.standard_normal(len(seconds)).astype(np.float32)
    assert has_speech(speech(5))
    assert has_speech(0.05 * speech(5) + 1e-4 * noise)
    assert not has_speech(0.001 * speech(5))
    assert not has_speech(np.zeros(80000, np.float32))
    assert not has_speech(0.1 * noise)
    assert not has_speech((0.2 * np.sin(2 * np.pi * 120 * seconds)).astype(np.float32))


def looked(openness: np.ndarray) -> Stretch:
    """Usable frames with a mouth that is open so far."""
    count = len(openness)
    return Stretch(0, count, "", np.zeros((count, 3)), openness, np.zeros((count, len(MEASURES))))


@pytest.mark.parametrize(("frames", "reason"), [(74, "shorter than 3 s"), (75, ""), (1500, "")])
def test_lengths(frames: int, reason: str) -> None:
    stretch = looked(np.zeros(frames))
    wave = speech(frames / 25)
    assert reason in unusable(stretch, wave)
    assert (reason == "") == (unusable(stretch, wave) == "")
    assert "shorter" in unusable(stretch, wave[: 74 * SAMPLES_PER_FRAME])


def test_mouth_and_loudness_decide_on_sync_where_they_agree() -> None:
    """The mouth of a clip is the loudness of its sound, late by some frames, or noise."""
    wave = speech(8)
    power = np.square(wave).reshape(-1, SAMPLES_PER_FRAME).mean(axis=1)
    mouth = np.convolve(power**0.25, np.ones(3) / 3, "same")
    cut = Footage(Cut("a", Path("a"), "a", "a"))
    for late in (-5, -4, 0, 1, 4, 5):
        openness = np.roll(mouth, late)
        stretch = looked(openness)
        reason, sync = judge_sync(stretch, wave, cut, None)
        assert sync["by"] == "mouth"
        assert abs(sync["late"] - late) <= 1
        which = "mouth" if late > 0 else "sound"
        assert (reason == "") if abs(late) < 2 else (f"the {which} is" in reason)
    noise = np.random.default_rng(0).standard_normal(len(mouth))
    reason, sync = judge_sync(looked(noise), wave, cut, None)
    assert (reason, sync["by"]) == ("", "unknown")


def features(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.iterdir() if path.is_file() and path.name != LOCK)
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def many(bench: Bench) -> Path:
    folder = bench.out.parent / "many"
    for k in range(4):
        write_video(folder / f"{k}.mkv", talking(80, sway=8 + k), speech(3.2))
    return folder


def command(folder: Path, out: Path, workers: int) -> list[str]:
    options = ["--audio", "hubert", "--workers", str(workers), "--device", "cpu"]
    return [sys.executable, "-m", "moda_cli", "extract", str(folder), "-o", str(out), *options]


@pytest.mark.slow
@pytest.mark.usefixtures("many_threads")
def test_a_killed_run_goes_on_and_any_number_of_workers_gives_the_same_bytes(
    bench: Bench, many: Path
) -> None:
    subprocess.run(command(many, bench.out, 1), check=True, capture_output=True)
    wanted = features(bench.out)
    assert len(wanted) == 4 + 2
    killed = bench.out.parent / "killed"
    process = subprocess.Popen(
        command(many, killed, 2), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while len(list(killed.glob(".jobs/*.json"))) < 1:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()  # returns once the workers have closed the pipes, so they ended as well
    assert not (killed / "index.jsonl").exists()
    first = {path.name: path.stat().st_mtime_ns for path in killed.glob(".jobs/*.json")}
    assert len(first) < 4
    subprocess.run(command(many, killed, 2), check=True, capture_output=True)
    assert features(killed) == wanted
    for name, modified in first.items():
        assert (killed / ".jobs" / name).stat().st_mtime_ns == modified
    assert not list(killed.glob(".*.part"))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
@pytest.mark.usefixtures("many_threads")
def test_a_cluster_gives_the_same_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray_bench import two_nodes

    monkeypatch.chdir(bench.out.parent)
    for k in range(2):
        write_video(Path("two") / f"{k}.mkv", talking(80, sway=8 + k), speech(3.2))
    Path("two", "bad.mp4").write_bytes(b"not a video")
    options = ["two", "--audio", "logmel", "--device", "cpu", "--json"]
    assert bench.run(*options).exit_code == 1
    wanted = features(bench.out)
    assert len(wanted) == 2 + 2
    bench.out = Path("elsewhere")
    with two_nodes() as (cluster, _):
        done = bench.run(*options, "--ray", cluster.address)
    assert done.exit_code == 1, done.output
    assert list(json.loads(done.stdout)["failed"]) == ["bad"]
    made = features(bench.out)
    assert made.pop("dropped.jsonl") != wanted.pop("dropped.jsonl")  # bad.mp4 by its whole path
    assert made == wanted


@dataclass(frozen=True)
class Deadly(Extractor):
    """Ends its process at the clip called 1."""

    def __call__(self, device: str, threads: int) -> Work:
        work = super().__call__(device, threads)

        def deadly(cut: Cut, following: Sequence[Cut], on_progress: OnProgress) -> Row:
            if cut.name == "1":
                os.kill(os.getpid(), signal.SIGSEGV)
            return work(cut, following, on_progress)

        return deadly


@pytest.mark.slow
def test_a_clip_that_takes_its_process_down_fails_alone(
    bench: Bench, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extraction, "Extractor", Deadly)
    summary = extract(find_cuts([many]), bench.out, "logmel", "cpu", workers=2)
    assert summary.clips == 3
    assert summary.failed == {"1": "its process was ended by SIGSEGV, 2 times"}
    assert [row["clip"] for row in bench.rows("dropped.jsonl")] == ["1"]


def test_a_full_disk_is_no_fault_of_the_clip(tmp_path: Path) -> None:
    def full() -> Generator[Event]:
        yield Event("failed", 0, "1", {"error": "OSError: [Errno 28] No space left on device"})

    cut = Cut("talk", tmp_path / "talk.mp4", "talk.mp4", "me")
    with pytest.raises(UsageError, match="no space is left for talk"):
        list(run_all([cut], tmp_path, {}, full()))


def test_weights_that_are_others_than_those_of_the_run(bench: Bench) -> None:
    options = extraction.resolve_options("logmel", "liveportrait")
    extractor = Extractor(bench.out, {**options, "networks": {"motion_extractor": "0" * 16}})
    with pytest.raises(WeightsError, match="other weights"):
        extractor("cpu", 1)
