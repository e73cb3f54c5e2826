"""The committed example inputs: what the README's first line runs on."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from moda_cli.face.search import find_faces
from moda_cli.media import read_audio
from moda_cli.media.pictures import read_image

EXAMPLES = Path(__file__).parent.parent / "examples"


def landmarks() -> dict[str, NDArray[np.float64]]:
    points = json.loads((EXAMPLES / "portrait.json").read_text())
    return {name: np.array(value) for name, value in points.items()}


def test_portrait_is_a_detectable_face_with_room_round_it() -> None:
    picture = read_image(EXAMPLES / "portrait.png")
    assert picture.shape == (512, 512, 3)
    assert (EXAMPLES / "portrait.png").stat().st_size < 400_000
    (face,) = find_faces(picture).faces
    assert 105 <= face.iod <= 120
    assert np.linalg.norm(face.mouth - landmarks()["mouth"]) < 0.05 * face.iod


def test_landmarks_lie_on_what_is_drawn() -> None:
    picture, points = read_image(EXAMPLES / "portrait.png").astype(float).mean(axis=2), landmarks()
    for x, y in points["pupils"].round().astype(int):
        assert picture[y - 1 : y + 2, x - 1 : x + 2].mean() < 60
        assert picture[y + 4, [x - 16, x + 16]].max() > 150  # the white of the eye
    for x, y in points["seam"][3:-3].round().astype(int):
        column = picture[y - 8 : y + 9, x]
        assert abs(int(column.argmin()) - 8) <= 2
    np.testing.assert_allclose(points["seam"][[0, -1]], points["corners"])


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
