"""A video as the portrait, end to end: its rate, length and shape, and what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from film_clips import FPS, film, number_of, talker
from media_files import make
from moda_cli.api import Pipeline
from moda_cli.checks import resolve
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.errors import InputError, UsageError
from moda_cli.face.film import Faces, find_portrait, first_face
from moda_cli.face.mesh import Mesh, mean_mesh
from moda_cli.face.steady import EASE_S, Steady, steadied
from moda_cli.face.track import Sight
from moda_cli.media import read_audio, read_video

SPEECH = Path(__file__).parents[2] / "examples" / "speech.wav"
FRAMES = 24


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("mini", "cpu", "rig")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("film")


@pytest.fixture(scope="module")
def filmed(folder: Path) -> Path:
    return film(folder / "talk.mp4", talker()[:FRAMES])


def speech(path: Path, seconds: float) -> Path:
    soundfile.write(path, read_audio(SPEECH)[: round(seconds * 16000)], 16000)
    return path


def there_and_back(count: int, frames: int) -> list[int]:
    """Numbers of the frames that are shown of a film of so many frames."""
    period = 2 * frames - 2
    return [min(k % period, period - k % period) for k in range(count)]


def numbers(path: Path, fps: float) -> list[int]:
    return [number_of(frame) for frame in read_video(path, fps)]


def test_a_longer_sound_plays_it_back_and_forth_at_its_own_rate(
    pipeline: Pipeline, filmed: Path, folder: Path
) -> None:
    made = folder / "long.mp4"
    result = pipeline.generate(filmed, speech(folder / "long.wav", 2.0), made, crf=8)
    assert (result.fps, result.frames) == (FPS, 60)
    assert numbers(made, FPS) == there_and_back(60, FRAMES)


def test_a_shorter_sound_ends_it(pipeline: Pipeline, filmed: Path, folder: Path) -> None:
    made = folder / "short.mp4"
    result = pipeline.generate(filmed, speech(folder / "short.wav", 0.5), made, crf=8, label="AI")
    assert result.frames == 15
    assert numbers(made, FPS) == [*range(15)]


def test_another_rate_shows_each_moment_when_it_was(
    pipeline: Pipeline, filmed: Path, folder: Path
) -> None:
    made, sound = folder / "slow.mp4", speech(folder / "slow.wav", 0.7)
    result = pipeline.generate(filmed, sound, made, fps=15, crf=8)
    assert (result.fps, result.frames) == (15, 11)
    assert np.abs(np.array(numbers(made, 15)) - 2 * np.arange(11)).max() <= 1


def test_frames_of_uneven_length_are_shown_when_their_stamps_say(
    pipeline: Pipeline, filmed: Path, folder: Path
) -> None:
    uneven, made = folder / "uneven.mkv", folder / "uneven.mp4"
    make("-i", filmed, "-vf", "select='not(between(n,6,11))+eq(n,9)'", "-fps_mode", "passthrough",
         "-crf", 8, uneven)  # fmt: skip
    result = pipeline.generate(uneven, speech(folder / "u.wav", 0.6), made, fps=FPS, crf=8)
    assert result.frames == 18
    seen, held = np.array(numbers(made, FPS)), [5, 5, 5, 9, 9, 9]
    assert np.abs(seen - [*range(6), *held, *range(12, 18)]).max() <= 1
    assert len(set(seen[6:12])) <= 3  # nothing was made up between them


@pytest.mark.parametrize(
    ("options", "shape"),
    [({"size": 160}, (160, 160)), ({"aspect": "9:16"}, (416, 234)), ({"full_frame": False,
     "size": 128}, (128, 128))],
)  # fmt: skip
def test_it_is_framed_like_a_picture_and_holds_still(
    pipeline: Pipeline, filmed: Path, options: dict[str, object], shape: tuple[int, int]
) -> None:
    frames = list(pipeline.stream(filmed, blocks(0.3), **options))
    assert frames[0].shape == (*shape, 3)
    assert len(frames) == 9
    edge = np.array([frame[:, :6].astype(int) for frame in frames])
    assert np.abs(np.diff(edge, axis=0)).mean() < 3  # the background does not move


def blocks(seconds: float) -> list[np.ndarray]:
    return [read_audio(SPEECH)[: round(seconds * 16000)]]


def test_it_is_said_what_a_video_cannot_be_asked(filmed: Path, folder: Path) -> None:
    portrait = Path(__file__).parents[2] / "examples" / "portrait.png"
    clip = ClipConfig(portrait, SPEECH, folder / "no.mp4", render=RenderConfig(redrive="head"))
    with pytest.raises(UsageError, match="is of a video") as refused:
        resolve(clip)
    assert refused.value.hint
    with pytest.raises(UsageError, match="'hair'"):
        resolve(replace(clip, portrait=filmed, render=RenderConfig(redrive="lips,hair")))
    assert resolve(replace(clip, portrait=filmed)).fps == FPS


def test_nothing_in_it_is_transparent(pipeline: Pipeline, filmed: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="nothing transparent"):
        pipeline.generate(filmed, SPEECH, folder / "no.mov", background="transparent")


def test_a_film_without_a_face_is_refused_by_name(pipeline: Pipeline, folder: Path) -> None:
    path = film(folder / "empty.mp4", [np.full((96, 96, 3), 3 * k, np.uint8) for k in range(20)])
    with pytest.raises(
        InputError, match=r"empty\.mp4 shows no usable face in any of its 20"
    ) as told:
        pipeline.generate(path, SPEECH, folder / "no.mp4")
    assert "face_points" in str(told.value.hint)
    assert not (folder / "no.mp4").exists()


def test_the_face_may_come_later(pipeline: Pipeline, folder: Path) -> None:
    frames = [np.full_like(frame, 60) if k < 9 else frame for k, frame in enumerate(talker()[:20])]
    path = film(folder / "later.mp4", frames)
    made = list(pipeline.stream(path, blocks(0.6)))
    own = list(read_video(path, FPS))
    same = [np.array_equal(a, b) for a, b in zip(made, own, strict=False)]
    assert all(same[:9])
    assert not any(same[14:])
    assert find_portrait(ClipConfig(path, SPEECH, Path("-")), folder).iod > 20


def test_a_face_is_looked_for_every_fifth_of_a_second(folder: Path) -> None:
    frames = [np.full_like(frame, 60) if k < 7 else frame for k, frame in enumerate(talker()[:20])]
    path = film(folder / "seventh.mp4", frames)
    number, _, face = first_face(ClipConfig(path, SPEECH, Path("-")), 25, folder)
    shown = int(np.ceil(7 * 25 / FPS))
    assert number == shown + -shown % 5  # of a frame each 0.04 s
    assert face.iod > 20


def test_of_two_faces_the_one_that_is_named_speaks(pipeline: Pipeline, folder: Path) -> None:
    path = film(folder / "pair.mp4", [np.hstack((frame, frame)) for frame in talker()[:9]])
    for face, mine, other in (("left", 0, 1), ("right", 1, 0)):
        made = pipeline.stream(path, blocks(0.25), face=face)
        pairs = list(zip(made, read_video(path, FPS), strict=False))
        halves = [[np.array_equal(*parts) for parts in zip(np.split(new, 2, axis=1), np.split(
            old, 2, axis=1), strict=True)] for new, old in pairs]  # fmt: skip
        assert all(half[other] for half in halves)
        assert not any(half[mine] for half in halves)


def test_faces_are_known_again_when_they_are_asked_for_backwards() -> None:
    one = Steady(np.arange(478 * 3, dtype=float).reshape(478, 3), 0.5, 2)
    faces = Faces(iter([None, one, None, one]))
    for number in (3, 0, 1, 2, 1):
        face = faces[number]
        assert (face is None) == (number % 2 == 0)
        if face:
            assert np.array_equal(face.mesh, one.mesh)
            assert (face.share, face.person) == (0.5, 2)
    with pytest.raises(IndexError):
        faces[4]


def moving(frames: int, noise: float, speed: float) -> list[Sight]:
    draw = np.random.default_rng(0)
    face = 100 * mean_mesh() + 200
    return [
        Sight(Mesh(face + [speed * k, 0, 0] + noise * draw.standard_normal(face.shape)), 0)
        for k in range(frames)
    ]


def places(faces: list[Steady | None]) -> np.ndarray:
    return np.array([face.mesh for face in faces if face])


def test_trembling_is_taken_off_and_movement_is_not_late() -> None:
    exact, seen = moving(40, 0, 2.5), moving(40, 0.4, 2.5)
    steady, known = places(list(steadied(seen, 25))), np.array([s.mesh.points for s in exact])
    off = np.linalg.norm((steady - known)[..., :2], axis=-1)
    raw = np.linalg.norm((np.array([s.mesh.points for s in seen]) - known)[..., :2], axis=-1)
    assert len(steady) == 40
    assert off.mean() < 0.6 * raw.mean()
    assert np.abs((steady - known)[3:-3, :, 0].mean()) < 0.05  # 2.5 pixels are a frame


def test_a_face_that_goes_is_eased_out_and_one_that_comes_in() -> None:
    sights: list[Sight | None] = [*moving(20, 0, 0), None, None, *moving(20, 0, 0)]
    shares = [face.share if face else 0.0 for face in steadied(sights, 25)]
    assert len(shares) == 42
    assert shares[20] == shares[21] == 0
    ease = round(25 * EASE_S)
    assert all(a > b for a, b in zip(shares[20 - ease : 20], shares[21 - ease : 21], strict=True))
    assert shares[0] == shares[10] == shares[41] == 1
    for frames in (0, 1, 3, 8):  # fewer than are looked ahead too
        assert len(list(steadied(sights[:frames], 25))) == frames


def test_two_clips_of_one_film_in_a_batch(filmed: Path, folder: Path) -> None:
    from moda_cli.jobs.clips import ClipMaker, Job

    sound = speech(folder / "b.wav", 0.4)
    work = ClipMaker("mini", "rig", "auto")("cpu", 0)
    made = []
    for name in ("one", "two"):
        clip = ClipConfig(filmed, sound, folder / f"{name}.mp4", crf=8)
        rows = work(Job(clip, name), (), lambda *_: None)
        assert rows["frames"] == 12
        made.append(list(read_video(clip.output, FPS)))
    assert all(np.array_equal(a, b) for a, b in zip(*made, strict=True))
