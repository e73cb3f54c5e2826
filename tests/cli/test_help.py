"""Help, completion and complaints: in this program's words, and near what was meant."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moda_cli.cli import app
from moda_cli.cli.app import COMMANDS
from moda_cli.config import CODEC_NAMES
from moda_cli.media.formats import CODECS

LIBRARIES = re.compile(
    r"Input should|Invalid value|Usage:|Error:|<(str|int|path|float)|pydantic|No such"
)


def moda(*args: object) -> Result:
    return CliRunner().invoke(app, list(map(str, args)), terminal_width=100)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_by_three_names(command: str) -> None:
    shown = moda(command, "--help")
    assert shown.exit_code == 0
    assert moda(command, "-h").stdout == shown.stdout
    assert moda("help", command).stdout.split()[2:] == shown.stdout.split()[2:]
    assert not re.search(r"<\w+|\w+ range|\[\[|\{[A-Z]+\}", shown.stdout)


def test_options_stand_under_headings_with_examples_below() -> None:
    shown = moda("generate", "-h").stdout
    headings = re.findall(r"^(\S.*):$", shown, re.M)
    assert headings[:7] == [
        "Input and output",
        "Expression",
        "Video",
        "Also write",
        "Model and machine",
        "Batch",
        "Messages",
    ]
    assert len(re.findall(r"^  moda generate", shown.split("Examples:")[1], re.M)) == 3
    assert "--fps N" in shown
    assert "1 to 120" in shown


def test_codecs_offered_are_those_there_are() -> None:
    assert set(CODEC_NAMES) == set(CODECS)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("generate --emotion ha", "happy"),
        ("generate --codec hev", "hevc_nvenc"),
        ("generate --model mi", "mini"),
        ("generate --emo", "--emotion-scale"),
        ("gen", "generate"),
        ("download ev", "eval"),
        ("eval --split hd", "hdtf-100"),
        ("eval --metrics f", "fvd"),
    ],
)
def test_shells_complete_commands_options_and_values(
    shell: str, typed: str, offered: str, tmp_path: Path
) -> None:
    (tmp_path / "moda.toml").write_text("fps =")  # a broken file is not the shell's to tell of
    words = ["moda", *typed.split()]
    environment = {
        **os.environ,
        "_MODA_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": " ".join(words),
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    code = "from moda_cli.cli import app; app(prog_name='moda')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert offered in re.findall(r"[\w-]+", done.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generat"], ["no command generat", "did you mean generate?"]),
        (["help", "dowload"], ["did you mean download?"]),
        (["generate", "--emotoin", "happy"], ["--emotoin", "did you mean --emotion?"]),
        (["generate", "--emotion", "hapy"], ["hapy", "did you mean happy?"]),
        (["generate", "--dtype", "flaot32"], ["--dtype", "flaot32", "did you mean float32?"]),
        (["generate", "--background", "whit"], ["whit", "did you mean white?"]),
        (["generate", "--codec", "hecv", "-o", "o.mp4"], ["hecv", "did you mean hevc?"]),
        (["generate", "--fps", "many"], ["--fps many is not a number"]),
        (["generate", "--steps", "2.5"], ["--steps 2.5 is not a whole number"]),
        (["generate", "--fps", "nan"], ["--fps nan is not in 1-120"]),
        (["generate", "--fps"], ["--fps needs a value"]),
        (["generate", "--quiet=1"], ["--quiet takes no value"]),
        (["generate", "a.png", "b.wav", "my", "out.mp4"], ["no place for my out.mp4", "quotes"]),
        (["train"], ["FEATURES is missing"]),
        (["train", "features"], ["--output is missing"]),
        (["train", "features", "-o", "r", "--workers", "x"], ["--workers x is not a whole number"]),
        (["eval", "clips", "--fit", "center"], ["did you mean centre?"]),
        (["eval", "clips", "--split", "hdtf-5O"], ["did you mean hdtf-50?"]),
        (["eval", "clips", "--metrics", "fid,fsym"], ["did you mean fsim?"]),
        (["extract", "v.mp4", "-o", "f", "--audio", "hubbert"], ["did you mean hubert?"]),
        (["download", "evl"], ["evl", "did you mean eval?"]),
        (["download", "--license", "comercial"], ["did you mean commercial?"]),
    ],
)
def test_complaints_are_our_own_and_name_what_is_near(
    arguments: list[str], words: list[str]
) -> None:
    done = moda(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert 1 <= len(done.stderr.splitlines()) <= 2
    assert not LIBRARIES.search(done.stderr)
    for word in words:
        assert word in done.stderr


def test_a_mistyped_model_is_told_what_it_may_have_been() -> None:
    done = moda("generate", "--model", "mda")
    assert done.exit_code == 4
    assert "did you mean moda?" in done.stderr
