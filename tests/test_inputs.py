"""Whatever is handed to `moda generate`: the documented exit code, plain words, nothing left."""

import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from input_cases import CASES, PORTRAIT, Case, page, speech, wav
from media_files import ffmpeg
from moda_cli.cli import app

LONGEST_S = 60.0  # on a busy machine


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "speech.wav"
    path.write_bytes(wav(speech()))
    return path


def arguments(case: Case, place: Path, good: Path) -> tuple[object, object, object]:
    """Portrait, sound and output of a case, made in an empty folder."""
    made = case.make(place)
    if isinstance(made, bytes):
        path = place / f"file{case.suffix}"
        path.write_bytes(made)
        made = path
    if case.kind == "portrait":
        return made, good, place / "out" / "out.mp4"
    if case.kind == "sound":
        return PORTRAIT, made, place / "out" / "out.mp4"
    if case.kind == "output":
        return PORTRAIT, good, made
    portrait, sound = place / f"{made}.png", place / f"{made}.wav"
    portrait.write_bytes(PORTRAIT.read_bytes())
    sound.write_bytes(good.read_bytes())
    return portrait, sound, place / "out" / f"{made}.mp4"


def first_frame(video: Path) -> np.ndarray:
    """Its grey pixels."""
    command = ("-i", f"file:{video}", "-frames:v", 1, "-f", "rawvideo", "-pix_fmt", "gray", "-")
    return np.frombuffer(ffmpeg(*command).stdout, np.uint8)


def files(place: Path) -> set[Path]:
    return {path for path in place.rglob("*") if not path.is_dir()}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.name}")
def test_every_input_has_its_answer(
    case: Case, tmp_path: Path, good: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    portrait, sound, output = arguments(case, tmp_path, good)
    before = files(tmp_path)
    started = time.monotonic()
    command = ["generate", "--steps", "1", "--size", "128", "-o", str(output), "--"]
    done = CliRunner().invoke(app, [*command, str(portrait), str(sound)])
    assert time.monotonic() - started < LONGEST_S
    said = done.stderr
    assert done.exit_code == case.code, said
    assert case.says in said
    assert "Traceback" not in said
    assert capfd.readouterr().err == "", "only our own words reach the terminal"
    new = files(tmp_path) - before
    if case.code:
        lines = [line for line in said.strip().splitlines() if not line.startswith("model ")]
        assert sum(line.startswith("error: ") for line in lines) == 1, said
        assert new == set()
        return
    (video,) = new
    assert first_frame(video).std() > 10


def test_the_page_of_cases_is_current() -> None:
    path = Path(__file__).parents[1] / "docs" / "inputs.md"
    assert path.read_text(encoding="utf-8") == page(), "python tests/support/input_cases.py"
