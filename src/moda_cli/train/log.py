"""The course of a run: `log.jsonl`, and TensorBoard where asked for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moda_cli.errors import UsageError
from moda_cli.files import whole_rows, write_rows


def tensorboard_writer() -> Any:
    """TensorBoard's writer class. Raises UsageError where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboard",
            hint="pip install 'moda-cli[tensorboard]'",
        ) from None
    return SummaryWriter


class RunLog:
    """Rows of numbers by step. Rows after the step a run resumes from are removed."""

    def __init__(self, run: Path, step: int, board: Any = None) -> None:
        path = run / "log.jsonl"
        write_rows(path, (row for row in whole_rows(path) if row["step"] <= step))
        self._file = path.open("a")
        self._board = board(run / "tensorboard", purge_step=step + 1) if board else None

    def write(self, row: Mapping[str, float]) -> None:
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        if self._board:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        self._file.close()
        if self._board:
            self._board.close()
