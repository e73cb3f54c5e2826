"""Where a clip's time goes, as `-v` says it."""

import re
import threading
import time
from pathlib import Path

from typer.testing import CliRunner

from moda_cli.cli import app
from moda_cli.stopwatch import Stopwatch, watched

EXAMPLES = Path(__file__).parents[1] / "examples"
NAP_S = 0.05


def nap() -> int:
    time.sleep(NAP_S)
    return 1


def test_a_stage_counts_its_own_work_and_no_other() -> None:
    clock = Stopwatch()

    def inner():
        for _ in range(2):
            yield nap()

    def outer():
        for item in watched(inner(), "inner", clock):
            nap()
            yield item

    def beside() -> None:
        with clock("beside"):
            nap()

    thread = threading.Thread(target=beside)
    thread.start()
    assert len(list(watched(outer(), "outer", clock))) == 2
    thread.join()
    seconds = clock.seconds
    assert 2 * NAP_S <= seconds["inner"] < 4 * NAP_S
    assert 2 * NAP_S <= seconds["outer"] < 4 * NAP_S  # 4 naps with what it asked for
    assert seconds["beside"] >= NAP_S
    assert clock.elapsed() >= seconds["inner"] + seconds["outer"]


def test_verbose_says_each_stages_share(tmp_path: Path) -> None:
    files = [EXAMPLES / "portrait.png", EXAMPLES / "speech.wav", "-o", tmp_path / "out.mp4", "-y"]
    options = ["--size", "64", "--steps", "1", "--model", "mini", "--device", "cpu"]
    usual, told = (
        CliRunner().invoke(app, ["generate", *map(str, files), *options, *more])
        for more in ([], ["-v"])
    )
    assert usual.exit_code == told.exit_code == 0, told.output
    line = r"250 frames in [\d.]+ s: (?:\w+ \d+%(?:, )?){5}\n"
    assert not re.search(line, usual.stderr)
    (said,) = re.findall(line, told.stderr)
    shares = {name: int(share) for name, share in re.findall(r"(\w+) (\d+)%", said)}
    assert list(shares) == ["portrait", "motion", "drawing", "encoding", "waiting"]
    assert min(shares["motion"], shares["drawing"]) > 0
    assert shares["drawing"] + shares["waiting"] <= 101
