"""The committed example inputs: what the README's first line runs on."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.media import read_audio
from moda_cli.media.pictures import read_image

EXAMPLES = Path(__file__).parent.parent / "examples"


def landmarks() -> FaceLandmarks:
    points = json.loads((EXAMPLES / "portrait.json").read_text())
    return FaceLandmarks(**{name: np.array(value) for name, value in points.items()})


def test_portrait_is_a_detectable_face_with_room_round_it() -> None:
    picture, face = read_image(EXAMPLES / "portrait.png"), landmarks()
    assert picture.shape == (512, 512, 3)
    assert 105 <= face.iod <= 120
    assert (EXAMPLES / "portrait.png").stat().st_size < 400_000
    cascade = Cascade(lbp_frontal_face_cascade_filename())
    boxes = cascade.detect_multi_scale(picture, 1.1, 1, (100, 100), (400, 400))
    middle = (face.pupils.mean(axis=0) + face.mouth) / 2
    assert any(
        box["c"] < middle[0] < box["c"] + box["width"]
        and box["r"] < middle[1] < box["r"] + box["height"]
        for box in boxes
    )


def test_landmarks_lie_on_what_is_drawn() -> None:
    picture, face = read_image(EXAMPLES / "portrait.png").astype(float).mean(axis=2), landmarks()
    for x, y in face.pupils.round().astype(int):
        assert picture[y - 1 : y + 2, x - 1 : x + 2].mean() < 60
        assert picture[y + 4, [x - 16, x + 16]].max() > 150  # the white of the eye
    for x, y in face.seam[3:-3].round().astype(int):
        column = picture[y - 8 : y + 9, x]
        assert abs(int(column.argmin()) - 8) <= 2
    np.testing.assert_allclose(face.seam[[0, -1]], face.corners)


def test_speech_is_ten_seconds_with_pauses() -> None:
    wave = read_audio(EXAMPLES / "speech.wav")
    assert len(wave) == 160_000
    assert 0.70 < np.abs(wave).max() < 0.72
    assert 0.05 < (np.abs(wave.reshape(250, 640)).max(axis=1) < 0.01).mean() < 0.4


@pytest.mark.slow
@pytest.mark.parametrize("palette", ["amber", "umber"])
def test_portrait_is_what_its_generator_draws(
    palette: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    drawing = importlib.import_module("draw_portrait")
    picture, points = drawing.draw(drawing.PALETTES[palette])
    assert points == json.loads((EXAMPLES / "portrait.json").read_text())
    if palette == "amber":  # another OpenCV may round another way
        difference = picture.astype(int) - read_image(EXAMPLES / "portrait.png")
        assert np.abs(difference).mean() < 1
