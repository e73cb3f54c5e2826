"""A video as motion: asked, drawn and read again; rates, losses, cuts, other faces, networks."""

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import torch

from driving import EACH, FAR, asked, bump, column, correlations, drawn, one_by_one, read
from extract_bench import talking
from extract_bench import write_video as lossless
from face_by_rule import save_landmarks
from liveportrait_by_rule import by_rule, facing_state
from moda_cli import media
from moda_cli.errors import InputError
from moda_cli.face.crops import crop_image, halve, smooth_crops
from moda_cli.face.extractors import AppearanceExtractor, Extractors, MotionExtractor, read_heads
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh_motion import rest_measures
from moda_cli.face.track import FaceTracker
from moda_cli.face.video_motion import Looks, Seen, at_25_fps, by_extractor, watch
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, Recording, decode, load_motion, save_motion
from moda_cli.weights.renames.liveportrait import MOTION, liveportrait_state
from moda_cli.weights.state import load_strict
from official import SMALL

Look = Callable[[Path], Recording]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """What the mesh sees in a video."""
    return Looks(None, None, tmp_path / "kept").recording


def saved(path: Path, frames: list[Picture], fps: float = 25) -> Path:
    media.write_video(iter(frames), path, fps, crf=14)
    return path


def test_what_is_asked_for_is_seen_again(tmp_path: Path, look: Look) -> None:
    """Each articulator, the pose and sideways looks; and it is a motion file like others."""
    wanted = one_by_one()
    recording = look(saved(tmp_path / "a.mp4", drawn(wanted)))
    assert recording.motion.shape == (len(wanted), 70)
    found = read(recording)
    for k, name in enumerate(FAR):
        part = slice(k * EACH, (k + 1) * EACH)
        one, other = column(wanted[part], name), column(found[part], name)
        assert np.corrcoef(one, other)[0, 1] > 0.95, name
        slope = np.polyfit(one, other, 1)[0]
        assert 0.3 < slope < 1.3, name  # width is shared by spread and round; the rig turns little
        if name in ("jaw", "smile", "lid_a", "lid_b", "brow_up", "brow_frown", "gaze_x"):
            assert slope == pytest.approx(1, abs=0.25), name
    save_motion(tmp_path / "a.safetensors", recording, {})
    assert torch.equal(load_motion(tmp_path / "a.safetensors").motion, recording.motion)


def test_a_closed_mouth_and_a_shut_eye_are_reached(tmp_path: Path, look: Look) -> None:
    blink = np.zeros(50)
    blink[20:25] = 14
    rows = asked(50, jaw=40 * np.sin(np.arange(50) / 4) ** 2, lid_a=blink, lid_b=blink)
    found = read(look(saved(tmp_path / "a.mp4", drawn(rows))))
    assert correlations(rows, found)["jaw"] > 0.98
    assert column(found, "jaw")[rows[:, 0] < 2].mean() == pytest.approx(0, abs=4)
    assert column(found, "lid_a")[21:24].min() > 11
    assert abs(column(found, "lid_a")[np.r_[:18, 27:50]]).max() < 2.5


def test_neither_the_size_of_the_face_nor_its_place_is_in_it(tmp_path: Path, look: Look) -> None:
    rows = asked(30, jaw=45 * bump(30), yaw=6 * bump(30))
    near = drawn(rows)
    far = [np.full((240, 320, 3), 90, np.uint8) for _ in near]
    for frame, face in zip(far, near, strict=True):
        frame[60:180, 170:290] = cv2.resize(face, (120, 120), interpolation=cv2.INTER_AREA)
    one, other = (
        read(look(saved(tmp_path / f"{k}.mp4", frames))) for k, frames in enumerate((near, far))
    )
    for name in ("jaw", "yaw"):
        assert np.corrcoef(column(one, name), column(other, name))[0, 1] > 0.98
        assert np.ptp(column(other, name)) == pytest.approx(np.ptp(column(one, name)), rel=0.2)


def test_other_rates_and_varying_ones_are_taken_by_their_stamps(tmp_path: Path, look: Look) -> None:
    seconds = np.arange(60) / 30
    rows = asked(60, jaw=25 - 25 * np.cos(seconds * 2 * np.pi))
    steady = saved(tmp_path / "30.mkv", drawn(rows), fps=30)
    varying = tmp_path / "varying.mkv"  # every second frame of the first half only
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-i", str(steady)]
    command += ["-vf", "select='gt(n,30)+not(mod(n,2))'", "-fps_mode", "vfr", str(varying)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    truth = 25 - 25 * np.cos(np.arange(50) / 25 * 2 * np.pi)
    for path in (steady, varying):
        found = column(read(look(path)), "jaw")
        assert len(found) == 50
        fits = [np.corrcoef(truth[5 + k : 45 + k], found[5:45])[0, 1] for k in range(-3, 4)]
        assert int(np.argmax(fits)) == 3  # and not late
        assert fits[3] > 0.98


def test_where_the_face_leaves_the_motion_goes_to_rest_and_back(
    tmp_path: Path, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [np.full((256, 384, 3), 90, np.uint8) for _ in range(100)]
    faces = drawn(asked(100, jaw=25 - 25 * np.cos(np.arange(100) / 4), roll=5.0), size=128)
    for k, (frame, face) in enumerate(zip(frames, faces, strict=True)):
        if not (12 <= k < 14 or 30 <= k < 70):  # the first time it is too short to be away
            frame[64:192, 128:256] = face
    path = saved(tmp_path / "leaves.mp4", frames)
    with caplog.at_level(logging.WARNING):
        recording = look(path)
    (said,) = (record.message for record in caplog.records)
    assert "leaves.mp4 shows no face from 1.2 to 2.8 s" in said
    found = read(recording)
    assert abs(found[42:58]).max() < 1e-3
    assert column(found, "jaw")[[10, 27, 78]].max() > 20
    assert abs(np.diff(column(found, "jaw"))).max() < 16  # what is asked for goes 12.5 at most
    caplog.clear()
    again = look(path)  # from what was kept, and it is said again
    assert torch.equal(again.motion, recording.motion)
    assert said in caplog.text


def test_a_cut_to_another_view_makes_no_jump(tmp_path: Path, look: Look) -> None:
    rows = asked(60, jaw=20 - 20 * np.cos(np.arange(60) / 3), yaw=6.0)
    frames = drawn(rows)
    frames[30:] = [
        np.clip(frame.astype(int) * 3 // 4 + 60, 0, 255).astype(np.uint8)
        for frame in drawn(asked(60, jaw=column(rows, "jaw"), yaw=-6.0, roll=8.0))[30:]
    ]
    found = read(look(saved(tmp_path / "cut.mp4", frames)))
    assert np.corrcoef(rows[:, 0], column(found, "jaw"))[0, 1] > 0.95
    assert abs(np.diff(column(found, "roll"))).max() < 1.5  # 8 degrees between the shots
    assert abs(np.diff(column(found, "yaw"))).max() < 2


def test_the_largest_face_is_followed_and_stays_it(
    tmp_path: Path, look: Look, caplog: pytest.LogCaptureFixture
) -> None:
    large = drawn(asked(40, jaw=45 * np.sin(np.arange(40) / 4) ** 2))
    small = drawn(asked(40, jaw=45 * np.cos(np.arange(40) / 9) ** 2), size=128)
    frames = []
    for k in range(40):
        frame = np.full((192, 352, 3), 60, np.uint8)
        frame[:, :192] = large[k]
        if k < 30:  # the other goes
            frame[40:168, 210:338] = small[k]
        frames.append(frame)
    with caplog.at_level(logging.INFO):
        found = column(read(look(saved(tmp_path / "two.mp4", frames))), "jaw")
    assert "two.mp4 shows 2 faces" in caplog.text
    assert np.corrcoef(found, 45 * np.sin(np.arange(40) / 4) ** 2)[0, 1] > 0.97


def test_a_video_without_a_face_is_refused_by_name(tmp_path: Path, look: Look) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 96, 96, 3), np.uint8)
    path = saved(tmp_path / "wall.mp4", list(noise))
    with pytest.raises(InputError, match=r"no face found in .*wall\.mp4") as caught:
        look(path)
    assert "one face" in caught.value.hint
    with pytest.raises(InputError, match=r"absent\.mp4"):
        look(tmp_path / "absent.mp4")
    (tmp_path / "broken.mov").write_bytes(b"\0" * 4000)
    with pytest.raises(InputError, match=r"broken\.mov as a video"):
        look(tmp_path / "broken.mov")


def test_a_face_that_is_back_in_its_place_is_the_same_one(tmp_path: Path) -> None:
    face = drawn(asked(1))[0]
    empty = np.full_like(face, 30)
    faded = [np.asarray(cv2.addWeighted(face, 1 - k / 9, empty, k / 9, 0)) for k in range(10)]
    sights = [FaceTracker().look(frame) for frame in (face, empty)]
    assert [sight is None for sight in sights] == [False, True]
    tracker = FaceTracker()  # fading is no cut
    seen = [tracker.look(frame) for frame in [*[face] * 3, *faded, *faded[::-1], *[face] * 12]]
    people = {sight.person for sight in seen if sight}
    assert None in seen
    assert people == {0}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[LandmarkNetwork, Extractors]:
    """LivePortrait's F and M, and its points, by rule."""
    folder = tmp_path_factory.mktemp("networks")
    save_landmarks(folder / "landmark.onnx")
    motion = MotionExtractor(**SMALL["motion_extractor"])
    load_strict(motion, liveportrait_state(facing_state(motion), MOTION), "by rule")
    appearance = by_rule(AppearanceExtractor(**SMALL["appearance_extractor"]))
    return LandmarkNetwork(folder / "landmark.onnx"), Extractors(appearance, motion.eval())


def test_with_its_weights_it_is_what_m_says_off_the_neutral_frame(
    tmp_path: Path, networks: tuple[LandmarkNetwork, Extractors]
) -> None:
    landmarks, extractors = networks
    path = lossless(tmp_path / "talk.mkv", talking(24), None)
    seen = watch(path, landmarks, lambda *_: None)
    offsets, neutral = by_extractor(path, seen, extractors, lambda *_: None)
    crops = [
        halve(crop_image(frame, to_crop))
        for frame, to_crop in zip(media.read_video(path), smooth_crops(seen.crops), strict=True)
    ]
    with torch.inference_mode():
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2) / 255
        motion, _ = read_heads(extractors.motion(images))
    rest, _ = rest_measures(seen.measures)
    torch.testing.assert_close(neutral, motion[rest].mean(dim=0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        offsets[:, EXPRESSION], (motion - neutral)[:, EXPRESSION], atol=1e-4, rtol=1e-3
    )
    recording = Looks(landmarks, extractors, tmp_path / "kept").recording(path)
    assert recording.gaze is None  # it is in the expression
    assert not recording.absolute
    assert torch.equal(recording.neutral, neutral)
    assert recording.motion.std(dim=0).max() > 0
    by_mesh = Looks(None, None, tmp_path / "kept").recording(path)  # kept apart
    assert not torch.equal(by_mesh.motion, recording.motion)


TALKERS = ("talker_25fps", "talker_30fps", "head_moves_30fps", "animation_25fps")


@pytest.mark.media
@pytest.mark.slow
@pytest.mark.parametrize("name", TALKERS)
def test_a_portrait_does_what_a_real_face_does(name: str, tmp_path: Path, look: Look) -> None:
    """The lips, lids and pose seen in the made video against those of the driving one."""
    clip = Path(os.environ["MODA_MEDIA"]) / "video" / f"{name}.mp4"
    driven = look(clip)
    wanted = read(driven)
    made = read(look(saved(tmp_path / "made.mp4", drawn(wanted, size=256))))
    found = correlations(wanted, made)
    least = {"jaw": 0.95, "spread": 0.9, "round": 0.85, "smile": 0.75, "lid_a": 0.65, "lid_b": 0.8}
    least |= {"brow_up": 0.85, "yaw": 0.7, "roll": 0.9, "pitch": 0.75, "gaze_x": 0.85}
    assert not {part: found[part] for part, value in least.items() if found[part] < value}
    units = decode((driven.motion - driven.neutral)[:, EXPRESSION])
    assert (units[:, 0].abs() < 6).any()  # it shuts its mouth


@pytest.mark.parametrize("fps", [25, 100])
def test_how_many_frames_are_to_come_is_told_while_watching(tmp_path: Path, fps: float) -> None:
    told: list[tuple[int, int | None]] = []
    watch(saved(tmp_path / "a.mkv", drawn(asked(12)), fps), None, lambda *row: told.append(row))
    done, expected = told[-1]
    assert [row[0] for row in told] == list(range(1, done + 1))
    assert expected == pytest.approx(done, abs=1)


@pytest.mark.parametrize("fps", [6, 10, 24])
def test_whose_a_moment_is_says_the_frame_that_is_shown(fps: int) -> None:
    person = np.repeat([0, 1, -1, 1, 0], [2, 3, 2 * fps, 2, 1])  # away too long to be bridged
    seen = Seen(np.arange(len(person)) / fps, person, np.zeros((0,)), np.zeros((0,)))
    values = torch.arange(len(person))[:, None].double()
    made, whose = at_25_fps(values, seen)
    moments = np.arange(len(whose)) / 25
    np.testing.assert_array_equal(whose, person[(moments * fps + 1e-6).astype(int)])
    inside = (moments * fps <= 1) | ((moments * fps >= 2) & (moments * fps <= 4))
    np.testing.assert_allclose(made[inside, 0], moments[inside] * fps, atol=1e-6)
