"""The measures of `moda eval` that need no weights: a number, or the reason why there is none."""

from pathlib import Path

import numpy as np
import pytest

from moda_cli.evaluate.cache import Cache
from moda_cli.evaluate.catalogue import FACE_COLUMNS, all_metrics, look_at_face
from moda_cli.evaluate.columns import COLUMNS
from moda_cli.evaluate.prepared import open_generated
from moda_cli.evaluate.protocol import Protocol
from moda_cli.media import write_video
from moda_cli.media.pictures import read_image

PORTRAIT = Path(__file__).parents[2] / "examples/portrait.png"


def test_what_a_clip_is_too_short_for_is_named(tmp_path: Path) -> None:
    picture = read_image(PORTRAIT)
    write_video([picture] * 12, tmp_path / "still.mp4", 25)
    clip = open_generated(tmp_path / "still.mp4", Protocol())
    metric, cache = all_metrics(Protocol())["face"], Cache(tmp_path / "cache")
    for _ in range(2):  # measured, then remembered
        look = cache.keep("ab" * 32, lambda: look_at_face(clip))
        values, reasons = metric.values(look), metric.reasons(look)
        assert values["followed"] == 1
        assert values["jitter"] == pytest.approx(0, abs=1e-3)
        assert reasons["repeated"] == "the video is shorter than a second"
        assert reasons["sharpness_drift"] == "the face was not followed for 2 s"
        assert reasons["lip_sync"] == "the video has no sound"
        assert not values.keys() & reasons.keys()
        assert len(values) + len(reasons) == len(FACE_COLUMNS)
        shown = {column.key for column in COLUMNS if column.metric == "face"}
        assert values.keys() | reasons.keys() == shown
        assert all(np.isfinite(list(values.values())))
