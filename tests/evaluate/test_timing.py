"""Clips made for an evaluation: how they are timed, and when they must be made again."""

import shutil
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from moda_cli.choice import BUNDLED, choose
from moda_cli.config import ClipConfig
from moda_cli.errors import UsageError
from moda_cli.evaluate import timing
from moda_cli.evaluate.inputs import Timing
from moda_cli.evaluate.timing import ClipTimer, Material, described, generate_all, timed_generate
from moda_cli.jobs.processes import Event
from moda_cli.jobs.workforce import Workforce
from moda_cli.media import read_audio
from moda_cli.pipeline import OnFrame, Pipeline, Result

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"
CPU = torch.device("cpu")


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    path = tmp_path / "speech.wav"
    soundfile.write(path, read_audio(EXAMPLES / "speech.wav")[16_000:19_200], 16_000)
    return path


def by(model: str) -> Callable[..., Generator[Event]]:
    timer = ClipTimer(model, "rig", "auto")
    return partial(Workforce(["cpu"], threads=0).execute, prepare=timer)


def test_the_first_run_warms_up_and_the_median_of_three_counts(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = [90.0, 7.0, 50.0, 8.0]  # what the clock says: a cold run, then one disturbed of three
    plain = Pipeline.generate

    def clocked(self: Pipeline, clip: ClipConfig, on_frame: OnFrame | None = None) -> Result:
        return replace(plain(self, clip, on_frame), seconds=shown.pop(0))

    monkeypatch.setattr(Pipeline, "generate", clocked)
    clip = ClipConfig(PORTRAIT, speech, tmp_path / "a.mp4", overwrite=True)
    timing = timed_generate(Pipeline.load("mini", "cpu"), clip, CPU)
    assert (timing.encode_seconds, timing.duration) == (8.0, 5 / 25)
    assert shown == []
    assert timing.seconds is not None
    assert 0 < max(timing.stages.values()) <= timing.seconds < 8


def test_a_retrained_model_makes_its_clips_again(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "REPEATS", 1)
    run, made = tmp_path / "run", tmp_path / "made"
    shutil.copytree(BUNDLED, run)

    def make() -> tuple[dict[str, Timing], bytes]:
        choice = choose(str(run), "rig", CPU)
        jobs = [Material("a", PORTRAIT, speech)]
        timings, failed = generate_all(jobs, made, by(str(run)), 0, described(choice, 0))
        assert failed == []
        return timings, (made / "a.mp4").read_bytes()

    first = make()
    assert make() == first, "the same model: nothing is made or timed again"
    weights = load_file(run / "model.safetensors")
    save_file({name: 1.1 * value for name, value in weights.items()}, run / "model.safetensors")
    timings, video = make()
    assert timings != first[0]
    assert video != first[1]


def test_clips_from_elsewhere_are_not_replaced(
    tmp_path: Path, speech: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "REPEATS", 1)
    execute, clip = by("mini"), tmp_path / "b.mp4"
    jobs = [Material("a", PORTRAIT, speech), Material("b", PORTRAIT, speech)]
    clip.write_bytes(b"another method's")
    with pytest.raises(UsageError, match=r"b\.mp4 is there"):
        generate_all(jobs, tmp_path, execute, 0, {})
    assert clip.read_bytes() == b"another method's"
    assert not (tmp_path / "a.mp4").exists()
    clip.unlink()

    def interrupted(*_: object) -> None:  # made, and then stopped while it is timed
        clip.write_bytes(b"ours")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(timing, "timed_generate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            generate_all(jobs[1:], tmp_path, execute, 0, {})
    assert "b" in generate_all(jobs[1:], tmp_path, execute, 0, {})[0]
