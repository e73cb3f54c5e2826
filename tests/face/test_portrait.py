"""A portrait on its way to a renderer: what is said of it, what is kept, what is enlarged."""

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from moda_cli.config import ASPECTS, ClipConfig, RenderConfig
from moda_cli.errors import InputError
from moda_cli.face.candidates import find_candidates
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.portrait import SMALL_IOD, find_face, frame_portrait, read_portrait
from moda_cli.media.pictures import read_image, write_image
from non_faces import animals

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"


def clip(portrait: Path, **options: object) -> ClipConfig:
    return ClipConfig(portrait, Path("-"), Path("-"), **options)


def shrunk(folder: Path, side: int) -> Path:
    small = cv2.resize(read_image(PORTRAIT), (side, side), interpolation=cv2.INTER_AREA)
    write_image(folder / f"{side}.png", np.asarray(small, np.uint8))
    return folder / f"{side}.png"


def test_a_small_face_is_enlarged_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = clip(shrunk(tmp_path, 130))
    portrait = read_portrait(small, None, None, released=False, seen_before=tmp_path)
    assert portrait.face.iod == pytest.approx(SMALL_IOD, rel=0.02)
    assert portrait.picture.shape[0] == pytest.approx(130 * 60 / 28, abs=10)
    assert "28 pixels between the eyes" in caplog.text
    caplog.clear()
    sized = clip(small.portrait, render=RenderConfig(size=128))
    portrait = read_portrait(sized, None, None, released=False, seen_before=tmp_path)
    assert portrait.picture.shape == (128, 128, 3)
    large = clip(PORTRAIT)
    caplog.clear()
    portrait = read_portrait(large, None, None, released=False, seen_before=tmp_path)
    assert portrait.picture.shape == (512, 512, 3)
    assert not caplog.records


def test_several_faces_are_counted_and_the_choice_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drawn = read_image(PORTRAIT)
    both = np.hstack((cv2.resize(drawn, (400, 400)), drawn[56:456, 56:456]))
    write_image(tmp_path / "two.png", both)
    with caplog.at_level(logging.INFO):
        face = find_face(both, clip(tmp_path / "two.png"), tmp_path)
    assert face.pupils[0, 0] > 400
    assert "two.png shows 2 faces: number 2 from the left" in caplog.text


def test_a_refusal_draws_what_was_seen_and_names_it(tmp_path: Path) -> None:
    pig, overlay = animals()["pig"], tmp_path / "seen.png"
    with pytest.raises(InputError, match=r"pig\.png: no face found for sure") as raised:
        find_face(pig, clip(tmp_path / "pig.png", show_landmarks=overlay), tmp_path)
    assert f"{overlay} shows it" in raised.value.hint
    changed = (read_image(overlay) != pig).any(axis=-1)
    assert changed.sum() > 200
    assert find_face(pig, clip(tmp_path / "pig.png", force=True), tmp_path).score < 0.8


@pytest.mark.parametrize(("aspect", "size"), [("9:16", None), ("16:9", 640), ("1:1", 300)])
def test_the_face_is_where_a_shaped_portrait_shows_it(aspect: str, size: int | None) -> None:
    picture = read_image(PORTRAIT)
    face = FaceLandmarks(find_candidates(picture)[0].mesh.points)
    framed, moved = frame_portrait(picture, face, RenderConfig(aspect=aspect, size=size))
    wide, high = ASPECTS[aspect]
    assert framed.shape[1] * high == framed.shape[0] * wide
    assert size is None or max(framed.shape) == size
    (again,) = find_candidates(framed)
    found = FaceLandmarks(again.mesh.points)
    for name in ("pupils", "mouth", "chin"):
        away = np.abs(getattr(found, name) - getattr(moved, name)).max()
        assert away < 0.05 * moved.iod, name
