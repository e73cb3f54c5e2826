"""The committed example inputs: what the README's first line runs on."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from numpy.typing import NDArray

from media_files import probe
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


def run(name: str, *arguments: object, folder: Path) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "arguments", "made"),
    [
        ("one_clip.py", [], ["portrait_speech.mp4"]),
        ("one_clip.py", ["named.mp4"], ["named.mp4"]),
        ("batch.py", ["out"], ["out/happy.mp4", "out/neutral.mp4", "out/sad.mp4"]),
        ("timeline.py", ["out.mp4"], ["out.mp4"]),
        ("stream.py", ["out.gif", "--fast"], ["out.gif"]),
        (
            "re_render.py",
            ["out"],
            ["out/calmer.mp4", "out/calmer.safetensors", "out/made.mp4", "out/made.safetensors"],
        ),
    ],
)
def test_scripts_of_the_python_door_run(
    tmp_path: Path, name: str, arguments: list[str], made: list[str]
) -> None:
    run(name, *arguments, folder=tmp_path)
    files = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert files == made
    for path in (path for path in files if path.endswith(".mp4")):
        assert "Audio: aac" in probe(tmp_path / path)
        assert "00:00:10.0" in probe(tmp_path / path)


def test_the_web_service_answers_with_a_video_or_a_reason(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "web_service.py"), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            address = f"http://localhost:{service.stdout.readline().split()[-1]}/?emotion="
            speech = (EXAMPLES / "speech.wav").read_bytes()
            with urlopen(f"{address}happy", speech) as answer:
                (tmp_path / "out.mp4").write_bytes(answer.read())
            with pytest.raises(HTTPError) as refused:
                urlopen(f"{address}hapy", speech)
            reason = refused.value.read()
        finally:
            service.terminate()
    assert "256x256" in probe(tmp_path / "out.mp4")
    assert b"did you mean happy?" in reason
