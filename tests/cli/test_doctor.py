"""`moda doctor` on this machine, whole and with parts that are broken."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moda_cli.cli import app
from moda_cli.media.formats import CODECS


def doctor(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["doctor", *args])
    assert done.stderr == ""
    return done.exit_code, done.stdout


def test_a_machine_that_can_generate_is_described(tmp_path: Path) -> None:
    code, printed = doctor("--json")
    found = json.loads(printed)
    assert (code, found["ready"], found["faults"]) == (0, True, [])
    assert {"moda", "torch", "python", "ffmpeg"} <= found["versions"].keys()
    assert found["devices"][0]["name"] == "cpu"
    assert found["devices"][0]["memory"] > 1e9
    assert "float32" in found["devices"][0]["precisions"]
    assert found["encoders"].keys() == CODECS.keys()
    assert found["encoders"]["h264"] == ""
    assert found["speed"]["rtf"] > 0
    rows = {row["profile"]: row for row in found["weights"]}
    assert rows["moda"]["missing"]["spade"] > 1e8
    assert rows["moda"]["to_fetch"] > 6e8


def test_what_is_wrong_is_said_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "weights.toml").write_text("no toml")
    monkeypatch.setenv("MODA_CACHE", str(tmp_path / "file" / "cache"))
    code, printed = doctor()
    assert code == 0  # the small model needs none
    assert "file/cache cannot be written\n    -> set MODA_CACHE" in printed
    monkeypatch.setenv("MODA_WEIGHTS", str(tmp_path / "weights.toml"))
    code, printed = doctor()
    assert code == 1
    assert printed.count("-> unset MODA_WEIGHTS") == 1


def test_without_ffmpeg_it_cannot_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    code, printed = doctor()
    assert code == 1
    assert "-> unset IMAGEIO_FFMPEG_EXE" in printed
    assert printed.endswith("this machine cannot generate\n")
