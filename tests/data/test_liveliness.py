"""What a synthetic speaker does besides lip motion keeps to what is known of people."""

import numpy as np
import pytest

from moda_cli.config import EMOTIONS, FPS, NO_EMOTION, SAMPLES_PER_FRAME
from moda_cli.data.synthetic.behaviour import EXPRESSIONS, Performance, perform
from moda_cli.data.synthetic.delivery import Delivery, delivery
from moda_cli.data.synthetic.visemes import Phone
from moda_cli.motion import ARTICULATORS

MINUTES = 10
AWAY = 0.09  # of the reach of an eye: what is less is still the viewer's face
LID, BROW = ARTICULATORS.index("lid_a"), ARTICULATORS.index("brow_up")
Spoken = tuple[list[Phone], np.ndarray]


def monologue(seed: int = 0) -> Spoken:
    """Phrases of syllables, some of them stressed, with pauses between: phones and wave (N,)."""
    rng = np.random.default_rng(seed)
    num_frames = MINUTES * 60 * FPS
    level, phones, now = np.zeros(num_frames), [], 0
    while True:
        silence, syllables = int(rng.integers(8, 38)), int(rng.integers(5, 22))
        if now + silence + 5 * syllables > num_frames:
            phones.append(Phone("SIL", now / FPS, num_frames / FPS))
            break
        phones.append(Phone("SIL", now / FPS, (now + silence) / FPS))
        now += silence
        for _ in range(syllables):
            loud = 1.0 if rng.random() < 0.25 else 0.35
            level[now : now + 5] = loud * np.array([0.3, 0.9, 1, 0.7, 0.2])
            phones.append(Phone("AA", now / FPS, (now + 5) / FPS))
            now += 5
    sound = rng.standard_normal(num_frames * SAMPLES_PER_FRAME).astype(np.float32)
    return phones, 0.1 * sound * np.repeat(level, SAMPLES_PER_FRAME).astype(np.float32)


def silence() -> Spoken:
    seconds = MINUTES * 60
    wave = np.zeros(seconds * FPS * SAMPLES_PER_FRAME, np.float32)
    return [Phone("SIL", 0, seconds)], wave


def act(spoken: Spoken, emotion: str = "none", intensity: float = 1.0) -> Performance:
    phones, wave = spoken
    lips = np.zeros((len(wave) // SAMPLES_PER_FRAME, 3), np.float32)
    rng = np.random.default_rng(7)
    return perform(lips, phones, wave, EMOTIONS.index(emotion), intensity, rng)


@pytest.fixture(scope="module")
def speech() -> Spoken:
    return monologue()


@pytest.fixture(scope="module")
def spoken(speech: Spoken) -> Delivery:
    return delivery(*speech, MINUTES * 60 * FPS)


@pytest.fixture(scope="module")
def speaker(speech: Spoken) -> Performance:
    return act(speech)


@pytest.fixture(scope="module")
def listener() -> Performance:
    return act(silence())


def blink_frames(performance: Performance) -> np.ndarray:
    shut = performance.articulators[:, LID] > 12
    return np.flatnonzero(shut[1:] & ~shut[:-1])


def speed(performance: Performance) -> float:
    """Of the head, in degrees a second."""
    return float(np.linalg.norm(np.diff(performance.pose, axis=0), axis=1).mean() * FPS)


def away(performance: Performance) -> np.ndarray:
    return np.linalg.norm(performance.gaze, axis=1) > AWAY


@pytest.mark.parametrize("emotion", ["none", "anger", "sad"])
def test_lids_close_twelve_to_twenty_times_a_minute(speech: Spoken, emotion: str) -> None:
    for sound in (speech, silence()):
        assert 12 <= len(blink_frames(act(sound, emotion))) / MINUTES <= 20


def test_blinks_mark_the_ends_of_phrases(speaker: Performance, spoken: Delivery) -> None:
    ending = spoken.around(spoken.ends, 0.1, 0.6)
    at_ends = ending[blink_frames(speaker)].mean()
    assert at_ends / ending.mean() > 2 * (1 - at_ends) / (1 - ending.mean())


def test_gaps_between_blinks_are_skewed_as_peoples_are(listener: Performance) -> None:
    gaps = np.diff(blink_frames(listener)) / FPS
    assert gaps.min() > 0.5
    assert gaps.mean() > 1.1 * np.median(gaps)
    assert 0.4 < np.log(gaps).std() < 0.9


@pytest.mark.parametrize("part", ["gaze", "pose", "lids"])
def test_nothing_is_periodic(listener: Performance, part: str) -> None:
    curves = {
        "gaze": listener.gaze[:, 0],
        "pose": listener.pose[:, 1],
        "lids": listener.articulators[:, LID],
    }
    curve = curves[part] - curves[part].mean()
    for lag in range(4 * FPS, 12 * FPS):
        assert np.dot(curve[lag:], curve[:-lag]) / np.dot(curve, curve) < 0.35


def test_eyes_jump_and_rest(speaker: Performance) -> None:
    moved = np.linalg.norm(np.diff(speaker.gaze, axis=0), axis=1)
    assert np.mean(moved == 0) > 0.85
    saccades = np.flatnonzero(moved > AWAY)
    assert len(saccades) > 10 * MINUTES
    assert np.mean(np.diff(saccades) == 1) < 0.02  # a saccade takes one frame
    assert np.quantile(np.abs(speaker.gaze), 0.98) < 0.36
    assert np.abs(speaker.gaze).max() < 0.5


def test_eyes_come_back_to_the_viewer(speaker: Performance, listener: Performance) -> None:
    assert 0.1 < away(speaker).mean() < 0.35
    assert away(listener).mean() < 0.5 * away(speaker).mean()
    back = np.flatnonzero(~away(speaker))
    assert np.diff(back).max() < 6 * FPS
    assert np.abs(speaker.gaze.mean(axis=0)).max() < 0.02


def test_eyes_leave_at_the_start_of_a_phrase_and_are_back_at_its_end(
    speaker: Performance, spoken: Delivery
) -> None:
    starting = away(speaker)[spoken.around(spoken.starts, 0, 0.8)].mean()
    ending = away(speaker)[spoken.around(spoken.ends, 0.2, 0.2)].mean()
    assert ending < 0.5 * starting


def test_large_gaze_shifts_come_with_blinks(speaker: Performance) -> None:
    moved = np.linalg.norm(np.diff(speaker.gaze, axis=0), axis=1)
    closed = speaker.articulators[1:, LID] > 4
    assert closed[moved > 0.25].mean() > 1.5 * closed[moved < 0.05].mean()


def test_the_head_does_not_drift(speaker: Performance, listener: Performance) -> None:
    for performance in (speaker, listener):
        by_minute = performance.pose.reshape(MINUTES, -1, 3).mean(axis=1)
        assert np.abs(by_minute).max() < 0.8
        assert np.abs(performance.pose).max() < 10


def test_the_head_moves_more_in_speech(
    speaker: Performance, listener: Performance, spoken: Delivery
) -> None:
    assert speed(speaker) > 2.5 * speed(listener) > 0.5
    speaking = spoken.speaking > 0
    np.testing.assert_allclose(speaker.pose[speaking].std(axis=0), [1.3, 2.2, 1.0], rtol=0.3)


def test_nods_and_brows_fall_on_the_stress(speaker: Performance, spoken: Delivery) -> None:
    at = np.array([f for f in spoken.stressed if FPS < f < spoken.num_frames - FPS])
    beside = np.concatenate((at - 8, at + 8))
    pitch, brow = speaker.pose[:, 0], speaker.articulators[:, BROW]
    assert pitch[at].mean() - pitch[beside].mean() > 0.5
    assert brow[at].mean() - brow[beside].mean() > 1


def test_the_head_rises_with_the_breath_before_a_phrase(
    speaker: Performance, spoken: Delivery
) -> None:
    starts = np.array(spoken.starts)
    pitch = speaker.pose[:, 0]
    assert pitch[starts - 6].mean() < pitch[spoken.speaking > 0].mean() - 0.3


def test_anger_is_quick_and_sadness_slow_and_low(speech: Spoken, speaker: Performance) -> None:
    angry, sad = act(speech, "anger"), act(speech, "sad")
    assert speed(angry) > 1.3 * speed(speaker) > 1.3 * 1.3 * speed(sad)
    assert len(blink_frames(angry)) > len(blink_frames(sad))
    down = sad.gaze[away(sad), 1].mean()
    assert down > speaker.gaze[away(speaker), 1].mean() + 0.03


def test_intensity_scales_everything(speech: Spoken, speaker: Performance) -> None:
    for ours, plain in zip(act(speech, "anger", 0), speaker, strict=True):
        np.testing.assert_array_equal(ours, plain)
    half = speed(act(speech, "anger", 0.5))
    assert speed(speaker) < half < speed(act(speech, "anger"))
    assert EXPRESSIONS[NO_EMOTION].tempo == 1
