"""What a new user meets: no arguments, no output, wrong files in the wrong order."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from media_files import probe
from moda_cli.checks import resolve
from moda_cli.cli import app, bar, opening
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.errors import UsageError
from moda_cli.files import example
from moda_cli.pipeline import Pipeline

ROOT = Path(__file__).parents[2]
PORTRAIT, SPEECH = ROOT / "examples" / "portrait.png", ROOT / "examples" / "speech.wav"


def moda(*args: object) -> Result:
    return CliRunner().invoke(app, list(map(str, args)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_without_arguments_the_example_is_made_and_nothing_replaced(folder: Path) -> None:
    first = moda("generate", "--size", 64)
    assert (first.exit_code, first.stdout) == (0, "portrait_speech.mp4\n"), first.output
    assert "moda generate PORTRAIT AUDIO" in first.stderr
    made = (folder / "portrait_speech.mp4").read_bytes()
    assert " 64x64" in probe(folder / "portrait_speech.mp4")
    assert moda("generate", "--size", 64).stdout == "portrait_speech_2.mp4\n"
    assert moda("generate", PORTRAIT, SPEECH, "--size", 64).stdout == "portrait_speech_3.mp4\n"
    assert (folder / "portrait_speech.mp4").read_bytes() == made
    assert moda("generate", "-o", "portrait_speech.mp4").exit_code == 2
    assert moda("generate", "-y", "--size", 96).stdout == "portrait_speech.mp4\n"
    assert " 96x96" in probe(folder / "portrait_speech.mp4")


def test_the_example_comes_with_the_package() -> None:
    hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    shipped = hatch["targets"]["wheel"]["force-include"]
    for name in ("portrait.png", "speech.wav"):
        assert shipped[f"examples/{name}"] == f"moda_cli/assets/example/{name}"
        assert example(name).read_bytes() == (ROOT / "examples" / name).read_bytes()


def test_the_small_model_is_told_of_once(folder: Path) -> None:
    assert "`moda download` fetches MoDA's" in moda("generate", "--size", 64).stderr
    assert "moda download" not in moda("generate", "--size", 64).stderr


def test_what_is_opened_is_what_was_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A player of our own stands where the system's would."""
    player = folder / "bin" / "xdg-open"
    player.parent.mkdir()
    player.write_text(f'#!/bin/sh\necho "$1" >> {folder}/played\n')
    player.chmod(0o755)
    monkeypatch.setattr(opening.sys, "platform", "linux")
    monkeypatch.setenv("PATH", f"{player.parent}{os.pathsep}{os.environ['PATH']}")
    assert moda("generate", "--size", 64, "--open").exit_code == 0
    for _ in range(100):
        if (folder / "played").exists() and (folder / "played").read_text():
            break
        subprocess.run(["sleep", "0.05"], check=True)
    assert (folder / "played").read_text() == "portrait_speech.mp4\n"
    monkeypatch.setenv("PATH", str(folder))
    assert "has no program that opens files" in moda("generate", "--size", 64, "--open").stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["speech.wav", "portrait.png"], 2, ["moda generate portrait.png speech.wav"]),
        (["https://a.example/p.png", "speech.wav"], 3, ["https://a.example/p.png is an address"]),
        (["portrait.png", "Hello there, friend"], 3, ["reads like text", "text-to-speech"]),
        (["potrait.png", "speech.wav"], 3, ["potrait.png", "did you mean portrait.png?"]),
        (["portrait.png"], 2, ["AUDIO is missing", "`moda generate` alone"]),
    ],
)
def test_mistaken_files_are_told_before_anything_loads(
    folder: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    for path in (PORTRAIT, SPEECH):
        (folder / path.name).symlink_to(path)
    command = (
        "import sys\nfrom moda_cli.cli import app\n"
        f"try: app(['generate', *{arguments!r}])\n"
        "finally: print({'torch', 'numpy', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "set()\n"), done.stderr
    for word in words:
        assert word in done.stderr


def test_a_stream_is_not_poured_into_a_terminal(folder: Path) -> None:
    primary, terminal = os.openpty()
    command = [sys.executable, "-m", "moda_cli", "generate", str(PORTRAIT), str(SPEECH), "-o", "-"]
    done = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "pipe it" in done.stderr
    for end in (primary, terminal):
        os.close(end)


def test_of_two_runs_to_one_file_one_fails_cleanly(folder: Path) -> None:
    command = [sys.executable, "-m", "moda_cli", "generate", "--size", "64", "-o", "out.mp4"]
    runs = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    errors = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 2]
    lost = errors[[run.returncode for run in runs].index(2)]
    assert re.search("out.mp4 (exists|meanwhile)", lost)
    assert [path.name for path in folder.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("name", ["out.mp4", "frames/%06d.png"])
def test_what_came_to_be_there_meanwhile_stays(folder: Path, name: str) -> None:
    taken = Path(name)

    def other_run(phase: str, done: int, total: int | None) -> None:
        if (phase, done) == ("drawing", 1):
            taken.parent.mkdir(exist_ok=True)
            (taken if taken.suffix == ".mp4" else taken.parent / "000000.png").write_text("theirs")

    clip = resolve(ClipConfig(PORTRAIT, SPEECH, taken, render=RenderConfig(size=64)))
    with pytest.raises(UsageError):
        Pipeline.load("mini", "cpu").generate(clip, on_phase=other_run)
    assert [path.read_text() for path in folder.rglob("*") if path.is_file()] == ["theirs"]


def test_phases_are_named_in_their_order() -> None:
    seen: list[tuple[str, int, int | None]] = []
    clip = ClipConfig(PORTRAIT, SPEECH, Path("-"), render=RenderConfig(size=64))

    def follow(phase: str, done: int, total: int | None) -> None:
        seen.append((phase, done, total))

    generate_into_a_file(clip, follow)
    phases = list(dict.fromkeys(phase for phase, _, _ in seen))
    assert phases[:2] == ["listening", "finding the face"]
    assert set(phases[2:]) == {"sampling", "drawing"}
    assert max(done for phase, done, _ in seen if phase == "sampling") == 4  # 250 frames
    assert seen[-1] == ("drawing", 250, 250)


def generate_into_a_file(clip: ClipConfig, follow: Callable[..., None]) -> None:
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        output = Path(folder) / "out.mp4"
        Pipeline.load("mini", "cpu").generate(replace(clip, output=output), on_phase=follow)


def test_speed_counts_from_the_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock of our own: ten seconds of loading, then a frame every tenth of a second."""
    clock = iter([0.0, 10.0, 10.1, 10.2])
    drawn: list[tuple[object, ...]] = []

    class Bar:
        def __enter__(self) -> Callable[..., None]:
            return lambda done, total, title, rate: drawn.append((title, done, rate))

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(bar, "progress_bar", lambda *_, shown: Bar())
    monkeypatch.setattr(bar.time, "perf_counter", lambda: next(clock))
    with bar.phases(25, shown=True) as show:
        show("loading")
        for done in (1, 2, 3):
            show("drawing", done, 50)
    assert drawn[-1] == ("drawing", 3, "10 frames/s, RTF 2.50")
