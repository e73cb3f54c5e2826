"""A filmed mouth that speaks anew, on films that the rig has drawn itself and on real ones."""

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

from film_clips import FPS, NEUTRAL, film, numbered, speech_of, talker, wave
from moda_cli.config import ClipConfig
from moda_cli.face.film import FilmedPortrait, parse_redrive
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh import follow_mesh, head_angles
from moda_cli.face.track import FaceTracker
from moda_cli.media import read_audio, read_video, usual_fps
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, JAW_OPENS, decode, encode, load_motion, resample
from moda_cli.pipeline import Pipeline
from moda_cli.render.rig.controls import controls
from moda_cli.render.rig.likeness import Likeness, Lips
from moda_cli.studio import RigStudio


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> ClipConfig:
    path = film(tmp_path_factory.mktemp("film") / "talk.mp4", talker())
    return ClipConfig(path, Path("-"), Path("-"))


STUDIO = RigStudio(None, None)


@cache
def looked_at(clip: ClipConfig) -> FilmedPortrait:
    """Its faces are followed once."""
    portrait = STUDIO.look(clip)
    assert isinstance(portrait, FilmedPortrait)
    return portrait


def redriven(clip: ClipConfig, motion: torch.Tensor, parts: str = "lips") -> list[Picture]:
    portrait = looked_at(clip)
    film = replace(portrait.film, parts=parse_redrive(parts))
    renderer = STUDIO.renderer(replace(portrait, film=film), NEUTRAL, absolute=False)
    return list(renderer.render(motion))


def meshes(frames: list[Picture]) -> NDArray[np.float64]:
    tracker = FaceTracker()
    sights = [tracker.look(frame) for frame in frames]
    return np.array([sight.mesh.points for sight in sights if sight])


@cache
def own_meshes() -> NDArray[np.float64]:
    return meshes(list(talker()))


def openings(frames: list[Picture]) -> NDArray[np.float64]:
    return np.array([FaceLandmarks(mesh).opening for mesh in meshes(frames)])


def test_the_lips_do_what_is_asked_and_not_what_they_did(clip: ClipConfig) -> None:
    jaw = wave(45, 17)
    seen, own = (
        openings(redriven(clip, speech_of(jaw))),
        np.array([FaceLandmarks(mesh).opening for mesh in own_meshes()]),
    )
    asked = JAW_OPENS * jaw.clip(0)
    assert own.max() > 0.1
    assert np.corrcoef(seen, asked)[0, 1] > 0.95
    assert abs(np.corrcoef(seen, own)[0, 1]) < abs(np.corrcoef(own, asked)[0, 1]) + 0.2
    assert seen[jaw < -4].max() < 0.03


def test_closed_lips_stay_closed_and_where_they_are(clip: ClipConfig) -> None:
    """Whatever the film says: a mouth at rest on a turning head, no more restless than that."""
    frames = redriven(clip, speech_of(np.full(45, -8.0)))
    seen, own = meshes(frames), own_meshes()
    assert openings(frames).max() < 0.03
    known = Likeness([seen[0]])
    heights = np.array([
        Lips.of(known.frame(mesh).to_face(mesh)).curves[1:3, 20].mean() for mesh in seen
    ])  # fmt: skip
    assert heights.std() < 0.012
    chins = [
        np.array([Lips.of(known.frame(m).to_face(m)).chin for m in each]) for each in (seen, own)
    ]
    assert chins[0].std() < 0.6 * chins[1].std()


def test_all_but_the_mouth_stays_as_filmed(clip: ClipConfig) -> None:
    frames = redriven(clip, speech_of(wave(20, 17)))
    again = _frames(clip)[:20]
    changed = np.array([(a != b).any(axis=-1) for a, b in zip(frames, again, strict=True)])
    assert changed.any(axis=(1, 2)).all()
    for mesh, where in zip(meshes(again), changed, strict=True):
        face = FaceLandmarks(mesh)
        rows, columns = np.nonzero(where)
        places = face.to_face(np.column_stack((columns, rows)).astype(float))
        assert places[:, 1].min() > 0.1  # below the eyes
        assert np.abs(places[:, 0]).max() < 1.9
        assert places[:, 1].max() < face.to_face(face.chin)[1] + 1.3


def _frames(clip: ClipConfig) -> list[Picture]:
    return list(read_video(clip.portrait, FPS))


def test_the_head_turns_only_where_it_is_asked_to(clip: ClipConfig) -> None:
    motion = speech_of(np.full(12, -8.0), np.full(12, 9.0))
    yaws = [
        np.array([head_angles(mesh)[1] for mesh in meshes(redriven(clip, motion, parts))])
        for parts in ("lips", "lips,head")
    ]
    own = np.array([head_angles(mesh)[1] for mesh in own_meshes()])[:12]
    assert np.abs(yaws[0] - own).max() < 3
    assert np.abs(np.median(yaws[1] - own)) > 4


def test_brows_go_up_only_where_they_are_asked_to(clip: ClipConfig) -> None:
    motion = NEUTRAL.repeat(6, 1)
    motion[:, EXPRESSION] = encode(torch.tensor([0, 0, 0, 0, 0, 0, 15.0, 0]).repeat(6, 1))

    def brows(frames: list[Picture]) -> NDArray[np.float64]:
        faces = [FaceLandmarks(mesh) for mesh in meshes(frames)]
        return np.array([face.to_face(face.mesh[[105, 334], :2])[:, 1].mean() for face in faces])

    own, lips, both = (
        brows(frames)
        for frames in (
            _frames(clip)[:6], redriven(clip, motion), redriven(clip, motion, "lips,brows")
        )
    )  # fmt: skip
    assert np.abs(lips - own).max() < 0.02
    assert (own - both).min() > 0.03


def test_lips_that_are_not_asked_for_say_what_they_said(clip: ClipConfig) -> None:
    made, own = redriven(clip, speech_of(wave(6, 17)), "brows"), _frames(clip)
    assert all(np.array_equal(a, b) for a, b in zip(made, own, strict=False))
    turned = openings(redriven(clip, speech_of(wave(12, 17), np.full(12, 9.0)), "head"))
    before = [FaceLandmarks(mesh).opening for mesh in own_meshes()[:12]]
    assert np.abs(turned - before).max() < 0.03


def test_a_face_that_leaves_is_let_go_softly_and_taken_up_again(
    clip: ClipConfig, tmp_path: Path
) -> None:
    frames = list(talker())
    for k in range(18, 28):
        frames[k] = numbered(np.full_like(frames[k], 90), k)
    path = film(tmp_path / "leaves.mp4", frames)
    motion = speech_of(np.full(45, 30.0))
    made, own = (
        redriven(replace(clip, portrait=path), motion),
        _frames(replace(clip, portrait=path)),
    )
    moved = np.array([np.abs(a.astype(int) - b).sum() for a, b in zip(made, own, strict=True)])
    assert (moved[18:28] == 0).all()
    assert moved[:8].min() > 0
    assert moved[40:].min() > 0
    # less and less is drawn before it goes
    assert moved[17] < moved[14] < moved[10]


def test_a_cut_to_another_face_is_no_gap_and_no_mixture(clip: ClipConfig, tmp_path: Path) -> None:
    frames = list(talker())[:24]
    other = [numbered((255 - frame[:, ::-1] // 3).astype(np.uint8), k) for k, frame in
             enumerate(frames)]  # fmt: skip
    path = film(tmp_path / "cut.mp4", [*frames[:12], *other[12:]])
    jaw = np.full(24, 35.0)
    seen = openings(redriven(replace(clip, portrait=path), speech_of(jaw)))
    assert len(seen) == 24
    assert seen[:11].min() > 0.08
    assert seen[12:].min() > 0.08


def test_what_was_drawn_does_not_depend_on_who_drew_before(clip: ClipConfig) -> None:
    motion = speech_of(wave(12, 17))
    first, again = redriven(clip, motion), redriven(clip, motion)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("name", ["talker_25fps", "talker_30fps", "head_moves_30fps"])
def test_people_say_what_they_never_said(name: str, tmp_path: Path) -> None:
    """Measured on the finished file: its mouth, its m, b and p, and all that is no face."""
    media_files = Path(os.environ["MODA_MEDIA"])
    path, speech = media_files / "video" / f"{name}.mp4", tmp_path / "speech.wav"
    soundfile.write(speech, read_audio(media_files / "audio" / "speech_6.wav")[:56000], 16000)
    made, motion = tmp_path / "made.mp4", tmp_path / "motion.safetensors"
    clip = ClipConfig(path, speech, made, save_motion=motion, crf=8)
    result = Pipeline.load("mini", "cpu", "rig").generate(clip)
    fps = usual_fps(path)
    assert (result.fps, result.frames) == (fps, round(3.5 * fps + 0.49))
    recording = load_motion(motion)
    moved = torch.cat(list(resample([recording.motion], fps))) - recording.neutral
    jaw = decode(moved[:, EXPRESSION].double())[: result.frames, 0].numpy()
    asked = [
        max(controls(row)["jaw"], 0.0) for row in decode(moved[:, EXPRESSION]).double().numpy()
    ]
    tracker = FaceTracker()
    seen, own, apart = [], [], []
    for new, old in zip(read_video(made, fps), read_video(path, fps), strict=False):
        sight = tracker.look(old)
        assert sight is not None
        seen.append(FaceLandmarks(follow_mesh(new, sight.mesh).points).opening)
        face = FaceLandmarks(sight.mesh.points)
        own.append(face.opening)
        rows, columns = np.mgrid[: new.shape[0] : 4, : new.shape[1] : 4]
        places = face.to_face(np.stack((columns, rows), axis=-1).astype(float))
        outside = (places[..., 1] < 0) | (np.abs(places[..., 0]) > 1.9)
        apart.append(np.abs(new[::4, ::4].astype(int) - old[::4, ::4])[outside].mean())
    seen = np.array(seen)
    assert np.corrcoef(seen, asked[: len(seen)])[0, 1] > 0.9
    assert np.corrcoef(seen, own)[0, 1] < 0.5
    assert np.quantile(seen[jaw < -4], 0.9) < max(0.03, 2 / face.iod)  # as the mesh can tell
    assert np.max(apart) < 2.5  # of 255: the codec's
