"""Recorded work equals the work; where it cannot be recorded it is done as it is."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from moda_cli.graphs import recorded

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


@dataclass(frozen=True, slots=True)
class Line:
    slope: Tensor
    offset: Tensor


def line(x: Tensor, given: Line) -> Tensor:
    return torch.tanh(x @ given.slope) + given.offset


def inputs(rows: int) -> tuple[Tensor, Line]:
    x, slope, offset = (torch.randn(n, 8, device=CUDA) for n in (rows, 8, 1))
    return x, Line(slope, offset)


def test_every_shape_and_every_value_gives_the_functions_own_result() -> None:
    replayed, kept = recorded(line, CUDA), list[tuple[Tensor, Tensor]]()
    for rows in (3, 5, 3, 5, 5):
        given = inputs(rows)
        kept.append((replayed(*given), line(*given)))
    for made, expected in kept:  # none was overwritten by the next
        torch.testing.assert_close(made, expected)


def test_what_cannot_be_recorded_is_launched(caplog) -> None:
    def waits(x: Tensor) -> Tensor:
        return x * x.abs().max().item()

    replayed = recorded(waits, CUDA)
    for rows in (3, 5, 3):
        x, _ = inputs(rows)
        torch.testing.assert_close(replayed(x), x * x.abs().max())
    assert len(caplog.records) == 1


def test_threads_on_streams_of_their_own_never_see_each_others_values() -> None:
    replayed = recorded(line, CUDA)
    replayed(*inputs(5))

    def work(_: int) -> None:
        with torch.cuda.stream(torch.cuda.Stream()):
            for _ in range(50):
                given = inputs(5)
                torch.testing.assert_close(replayed(*given), line(*given))

    with ThreadPoolExecutor() as pool:
        list(pool.map(work, range(3)))
