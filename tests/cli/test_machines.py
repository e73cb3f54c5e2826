"""Programs that call the command: failures as JSON, defaults from a file or the environment."""

import json
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from moda_cli.cli import app

EXAMPLES = Path(__file__).parents[2] / "examples"


def moda(*args: object) -> Result:
    return CliRunner().invoke(app, list(map(str, args)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "message"),
    [
        (["generate", "--fps", "0"], 2, "usage", "--fps 0 is not in 1-120"),
        (["generate", "--frobnicate"], 2, "usage", "there is no option --frobnicate"),
        (["generate", "a.png", "b.wav"], 3, "input", "there is no file a.png"),
        (["generate", "--model", "elsewhere"], 4, "weights", "elsewhere"),
        (["generate", "--device", "cuda:99"], 5, "device", "cuda:99"),
        (["train", "features", "-o", "run"], 3, "input", "features"),
        (["eval", "clips"], 3, "input", "clips"),
    ],
)
def test_a_failure_is_one_object_with_the_same_code(
    arguments: list[str], code: int, kind: str, message: str
) -> None:
    plain, told = moda(*arguments), moda(*arguments, "--json")
    assert plain.exit_code == told.exit_code == code
    assert plain.stdout == ""
    (error,) = json.loads(told.stdout).values()
    assert (error["code"], error["kind"]) == (code, kind)
    assert message in error["message"]
    assert error.keys() == {"code", "kind", "message", "hint"}


def test_the_verdict_of_a_check_is_one_line_even_of_a_quiet_run(folder: Path) -> None:
    done = moda("generate", "--check", "-q", "--size", 128)
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("check: passed: ")


def test_option_before_variable_before_file_before_built_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "moda.toml").write_text(
        'fps = 12\nseed = 1\n[generate]\nseed = 2\nsize = 64\nblink = false\nemotion = "sad"\n'
        'save-motion = "m.safetensors"\n[eval]\nseed = 3\n'
    )
    monkeypatch.setenv("MODA_SIZE", "96")
    monkeypatch.setenv("MODA_EMOTION", "fear")
    done = moda("generate", "--print-config", "--emotion", "happy")
    assert done.exit_code == 0, done.output
    said = dict(line.split("  # ") for line in done.stdout.splitlines() if "  # " in line)
    rows = {line.strip(): source for line, source in said.items()}
    assert rows['emotion = "happy"'] == "command line"
    assert rows["size = 96"] == "MODA_SIZE"
    assert rows["seed = 2"] == rows["fps = 12.0"] == rows["blink = false"] == "moda.toml"
    assert rows["# steps is not set"] == rows["# codec is not set"] == "built in"
    assert tomllib.loads(done.stdout)["generate"]["size"] == 96  # it may be kept as a moda.toml
    made = moda("generate", "--seed", 5)
    assert made.exit_code == 0
    assert "note: moda.toml sets blink, fps, save-motion\n" in made.stderr
    assert (folder / "m.safetensors").is_file()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[generate]\nemotoin = 'sad'", ["emotoin", "did you mean emotion?"]),
        ("emotoin = 'sad'", ["emotoin", "did you mean emotion?"]),
        ("[generate]\nfps = 300", ["--fps 300 is not in 1-120", "moda.toml sets it"]),
        ("[generate]\nblink = 'perhaps'", ["blink", "perhaps"]),
        ("[generate]\nfps = [1, 2]", ["fps takes one value"]),
        ("generate = 1", ["write [generate]"]),
        ("fps =", ["moda.toml"]),
    ],
)
def test_faults_of_moda_toml_are_named(folder: Path, text: str, words: list[str]) -> None:
    (folder / "moda.toml").write_text(text)
    done = moda("generate")
    assert done.exit_code == 2
    for word in words:
        assert word in done.stderr
    assert moda("generate", "-h").exit_code == 0  # help is there whatever the file says


def test_json_may_be_a_default_for_failures_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODA_JSON", "1")
    assert json.loads(moda("generate", "a.png", "b.wav").stdout)["error"]["code"] == 3
