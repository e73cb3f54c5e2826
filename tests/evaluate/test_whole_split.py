"""`moda eval --generate` from a data set's clips to the report, every network at its full size."""

import json
from pathlib import Path

import pytest
import soundfile
from typer.testing import CliRunner

from eval_bench import full_weights, install, violations
from moda_cli.cli import app
from moda_cli.config import SAMPLES_PER_FRAME, ClipConfig, SamplerConfig
from moda_cli.data.splits import PROTOCOL
from moda_cli.evaluate import catalogue, prepared, timing
from moda_cli.media import probe_video, read_audio
from moda_cli.pipeline import Pipeline

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
ROOT = Path(__file__).parents[2]
SCHEMA = json.loads(
    (Path(catalogue.__file__).parents[1] / "assets/results.schema.json").read_text()
)
FRAMES, FIRST = 9, 4  # what the last pool of I3D needs
SIDE = 256  # pixels: at 512 the smoothness of one clip takes ten times as long


def data_set(folder: Path, names: list[str]) -> None:
    """Talking heads to stand in for real ones: a frame more than is measured, of `mini`."""
    wave = read_audio(ROOT / "examples" / "speech.wav")
    samples = (FIRST + FRAMES + 1) * SAMPLES_PER_FRAME
    pipeline = Pipeline.load("mini", "cpu")
    (folder / "clips").mkdir(parents=True)
    for k, name in enumerate(names):
        sound = folder / f"{name}.wav"
        soundfile.write(sound, wave[8000 * k : 8000 * k + samples], 16_000)
        output = folder / "clips" / f"{name}.mp4"
        sampler = SamplerConfig(seed=k)
        pipeline.generate(
            ClipConfig(ROOT / "examples/portrait.png", sound, output, sampler=sampler)
        )


def run(folder: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    command = ["eval", str(folder / "made"), "--reference", str(folder / "root")]
    command += ["--split", "hdtf-50", "--annotations", str(folder / "manifest.json")]
    command += ["--generate", "--model", "mini", "--device", "cpu", "--no-reference-row", "--json"]
    command += ["--fvd-cut", "whole"]
    done = CliRunner().invoke(app, [*command, "--bootstrap-distances", "5", *arguments])
    assert isinstance(done.exception, SystemExit | None), done.exception
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_three_clips_of_a_split_are_made_and_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, tmp_path / "moda", full_weights(tmp_path / "weights"))
    for module in (prepared, timing):
        monkeypatch.setattr(module, "SIDE", SIDE)
    names = [f"WRA_Person{k}_000" for k in range(3)]
    data_set(tmp_path / "root", names)
    entry = {"speaker": "", "first_frame": FIRST, "frames": FRAMES, "order_key": ""}
    test = [{"id": name, **entry} for name in ("WRA_Gone_000", *names[:2])]
    listed = {"protocol": PROTOCOL, "dataset": "HDTF", "test": test}
    (tmp_path / "manifest.json").write_text(
        json.dumps({**listed, "reserve": [{"id": names[2], **entry}]})
    )
    code, data = run(tmp_path)
    assert code == 1  # one was replaced, and these are too short for SyncNet
    assert violations(data, SCHEMA, SCHEMA) == []
    assert [clip["id"] for clip in data["clips"]] == [names[2], *names[:2]]
    summary = data["summary"]["generated"]
    assert summary["fid"]["samples"] == 3 * FRAMES
    assert any(note.startswith("FID rests on") for note in data["notes"])
    assert summary["fvd"]["samples"] == 3
    for column in ("fid", "fvd", "f_sim", "smoothness", "rtf", "rtf_encode"):
        assert summary[column]["clips"] == 3
        assert summary[column]["low"] <= summary[column]["high"]
    assert 0 < summary["rtf"]["value"] < 20
    assert set(data["clips"][0]["timing"]["stages"]) == {"portrait", "motion", "frames"}
    assert data["generation"]["dtype"] == "float32"
    reasons = {(row["id"], row["metric"]): row["reason"] for row in data["left_out"]}
    assert reasons["WRA_Gone_000", None] == f"there is no such clip; replaced by {names[2]}"
    assert "are needed" in reasons[names[0], "sync"]
    made = tmp_path / "made" / f"{names[0]}.mp4"
    assert probe_video(made).has_sound
    folder = tmp_path / "made-eval"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["media_sha256"]) == 3
    page = (folder / "report.html").read_text()
    assert page.count("<video") == 6
    assert "MoDA (sync) (paper)" in page

    cached = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*")}
    again, same = run(tmp_path)
    assert (again, same) == (code, data)
    after = {path: path.stat().st_mtime_ns for path in (folder / "cache").rglob("*")}
    assert after == cached  # nothing is looked at again; the same timings say nothing is made
