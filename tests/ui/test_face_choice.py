"""Which face of a portrait is animated: drawn over it, and chosen by a click."""

from pathlib import Path

import numpy as np
import pytest

from input_cases import EXAMPLES
from moda_cli.errors import InputError
from moda_cli.media.pictures import read_image, write_image
from moda_cli.ui.face_choice import look


@pytest.fixture(scope="module")
def couple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example twice side by side, 1,200 pixels wide."""
    one = read_image(EXAMPLES / "portrait.png")
    canvas = np.full((512, 1200, 3), 200, np.uint8)
    canvas[:, :512] = one
    canvas[56:456, 700:1100] = one[:400, 56:456]
    path = tmp_path_factory.mktemp("couple") / "couple.png"
    write_image(path, canvas)
    return path


def test_a_click_takes_the_face_next_to_it(couple: Path) -> None:
    seen = look(couple, "largest", "", force=False)
    assert len(seen.eyes) == 2
    assert max(seen.picture.shape[:2]) == 1024
    (left, _), (right, _) = seen.eyes
    assert left < 512 < right
    assert (seen.nearest(left + 9, 80), seen.nearest(900, 300)) == ("1", "2")
    other = look(couple, "2", "", force=False)
    assert "Face 2 of 2" in other.words
    first = look(couple, "1", "", force=False)
    assert "Face 1 of 2" in first.words
    changed = np.abs(other.picture.astype(int) - first.picture).max(axis=(0, 2)) > 40
    assert changed[:512].any()  # the mesh is drawn over the one, not the other
    assert changed[512:].any()


def test_what_has_no_such_face_is_told_with_the_file(couple: Path) -> None:
    with pytest.raises(InputError, match=r"couple\.png: .*3"):
        look(couple, "3", "", force=False)
