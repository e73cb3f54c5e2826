"""The one command that measures the GPU path runs, and says what it could not measure."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def run(out: Path, *parts: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--tiny", "--out", out]
    done = subprocess.run(
        [*map(str, command), "--parts", *parts],
        cwd=ROOT,
        env={**os.environ, "MODA_CACHE": str(out / "none")},
        capture_output=True,
        text=True,
    )
    report = json.loads((out / "gpu.json").read_text())
    assert {"card", "cpu", "torch", "commit"} <= report.keys()
    assert done.returncode == any(row["value"] is None for row in report["rows"]), done.stderr
    return report["rows"]


def test_figures_are_printed_and_written(tmp_path: Path) -> None:
    rows = run(tmp_path, "card", "motion")
    assert [row["part"] for row in rows] == ["card", "card", "motion", "motion"]
    assert all(row["value"] > 0 for row in rows)
    assert rows[-1]["note"] == "relative error 0.0e+00"  # without a GPU they are the same path
    table = (tmp_path / "gpu.md").read_text()
    assert f"| {rows[-1]['value']:.4g} ms | <= 50 ms |" in table


@pytest.mark.slow
def test_every_part_runs(tmp_path: Path) -> None:
    rows = run(tmp_path, "draw", "clips", "stream", "train")
    assert {row["part"] for row in rows} == {"draw", "clips", "stream", "train"}
    absent = [row for row in rows if row["value"] is None]
    assert not absent
