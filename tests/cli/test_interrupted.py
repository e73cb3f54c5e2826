"""What is finished is said when a command is interrupted."""

import pytest

from moda_cli.cli.interrupted import count_kept


def work(count: int, error: BaseException, shown: bool = True) -> None:
    with count_kept("clips", shown) as on_count:
        for done in range(count):
            on_count(done + 1, 7)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_the_count_is_said(error: BaseException, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(type(error)):
        work(3, error)
    said = capsys.readouterr().err
    assert said == "3 of 7 clips are done and kept; the same command goes on\n"


def test_nothing_is_said_of_errors_nor_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="bad"):
        work(3, ValueError("bad"))
    with pytest.raises(KeyboardInterrupt):
        work(3, KeyboardInterrupt(), shown=False)
    assert capsys.readouterr().err == ""
