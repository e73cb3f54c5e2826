"""Real time: every frame in order, every sample of the sound, whatever comes and from whom."""

import math
import threading
import time
from collections.abc import Iterator
from itertools import groupby, islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import moda_cli as moda
from moda_cli import media
from moda_cli.config import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.errors import UsageError
from moda_cli.live.fluency import Fluency
from moda_cli.live.session import LiveSession

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def pipeline() -> moda.Pipeline:
    return moda.Pipeline.load("mini", device="cpu")


@pytest.fixture
def session(pipeline: moda.Pipeline) -> LiveSession:
    with pipeline.live(EXAMPLES / "portrait.png", size=64) as session:
        yield session


def taken(session: LiveSession, seconds: float) -> np.ndarray:
    """The sound of so much of a session, whose frames come in order, one after another."""
    frames = list(islice(session.frames(), round(seconds * FPS)))
    assert all(frame.picture.shape == (64, 64, 3) for frame in frames)
    assert {b.number - a.number for a, b in pairwise(frames)} == {1}
    return np.concatenate([frame.sound for frame in frames])


def test_a_sentence_pushed_at_once_is_spoken_whole(session: LiveSession) -> None:
    wave = media.read_audio(EXAMPLES / "speech.wav")[: 2 * SAMPLE_RATE]
    began = time.monotonic()
    session.push(wave)
    assert session.pace.speaking
    heard = taken(session, 3)
    assert time.monotonic() - began > 2.5  # in real time
    start = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(wave)[0])
    assert np.array_equal(heard[start : start + len(wave)], wave)
    assert not heard[:start].any()
    assert not heard[start + len(wave) :].any()
    pace = session.pace
    assert (pace.waiting_s, pace.speaking) == (0, False)
    assert pace.shown >= 75
    assert pace.busy > 0


def test_sound_that_waits_is_heard_ahead_of_its_time(session: LiveSession) -> None:
    """As much as waits and helps, in whole frames, and what is heard so is what comes."""
    heard: list[tuple[np.ndarray, np.ndarray]] = []
    hear = session._face.hear

    def watched(wave: np.ndarray, coming: np.ndarray) -> object:
        heard.append((wave, coming))
        return hear(wave, coming)

    session._face.hear = watched  # type: ignore[method-assign, assignment]
    ramp = np.linspace(0.01, 0.5, 2 * SAMPLE_RATE, dtype=np.float32)
    for part in np.array_split(ramp, 23):
        session.push(part)
    taken(session, 3)
    most = session._face.coming * SAMPLES_PER_FRAME
    lengths = [len(coming) for _, coming in heard]
    assert max(lengths) == most
    assert not any(length % SAMPLES_PER_FRAME for length in lengths)
    assert lengths[-1] == 0  # nothing waits any more
    whole = np.concatenate([wave for wave, _ in heard])
    done = 0
    for wave, coming in heard:
        done += len(wave)
        assert np.array_equal(whole[done : done + len(coming)], coming)


def test_any_rate_and_shape_and_what_is_no_number(session: LiveSession) -> None:
    time_s = np.arange(48_000) / 48_000
    tone = np.sin(2 * np.pi * 440 * time_s)
    tone[::1000] = np.nan
    for block in np.array_split(np.stack((tone, tone), axis=1), 37):
        session.push(block, 48_000)
    heard = taken(session, 1.6)
    loud = heard[np.flatnonzero(np.abs(heard) > 0.1)[0] :][: SAMPLE_RATE // 2]
    assert np.abs(np.fft.rfft(loud)).argmax() == pytest.approx(440 / 2, abs=1)
    assert np.isfinite(heard).all()
    assert np.abs(heard).max() <= 1.1
    for wave, rate in ((np.zeros((2, 2, 2)), 16_000), (np.zeros(5), 10)):
        with pytest.raises(UsageError, match="cannot be spoken"):
            session.push(wave, rate)
    with pytest.raises(UsageError, match="would wait"):
        session.push(np.zeros(601 * SAMPLE_RATE))


def test_an_interrupt_drops_what_waits(session: LiveSession) -> None:
    session.push(np.full(20 * SAMPLE_RATE, 0.1, np.float32))
    assert taken(session, 1.2).any()
    session.interrupt()
    assert not taken(session, 1).any()  # not even of frames that were drawn
    assert (session.pace.waiting_s, session.pace.speaking) == (0, False)
    session.push(np.full(SAMPLE_RATE, 0.1, np.float32))
    assert taken(session, 1).any()  # and listens again


def test_what_is_asked_is_checked_at_once(session: LiveSession) -> None:
    session.ask("happy@0.5", yaw=5, ease=0.2)
    with pytest.raises(UsageError, match="no track 'jaw'"):
        session.ask(jaw=3)
    with pytest.raises(UsageError, match="out of range"):
        session.ask(yaw=400)
    with pytest.raises(UsageError, match="unknown emotion"):
        session.ask("0:happy,2:sad")
    taken(session, 0.5)


def test_a_session_ends_with_its_context_and_a_client_that_leaves_costs_nothing(
    pipeline: moda.Pipeline,
) -> None:
    with pipeline.live(EXAMPLES / "portrait.png", size=64) as session:
        waiting = threading.Thread(target=lambda: list(session.frames()), daemon=True)
        waiting.start()
        time.sleep(0.3)
    waiting.join(5)
    assert not waiting.is_alive()
    assert "moda-live" not in [thread.name for thread in threading.enumerate()]
    assert list(session.frames()) == []


def runs(chosen: list[bool]) -> list[int]:
    """How many pictures in a row are left out, each time that any is."""
    return [len(list(group)) for drawn, group in groupby(chosen) if not drawn]


@pytest.mark.parametrize("share", [0.9, 0.75, 0.5, 0.4, 0.34, 0.2, 0.01, -3])
def test_where_time_is_short_pictures_are_left_out_evenly(share: float) -> None:
    fluency = Fluency(0.04)
    fluency.spent(3, 0.09)  # 0.03 s a picture
    chosen = [drawn for _ in range(100) for drawn in fluency.choose(3, share * 0.09)]
    kept = max(share, 1 / 6)
    assert sum(chosen) == pytest.approx(300 * kept, abs=1)
    assert {1 + run for run in runs(chosen)} <= {math.floor(1 / kept), math.ceil(1 / kept)}
    assert all(all(fluency.choose(3, 0.09)) for _ in range(5))


def test_a_picture_that_takes_seconds_takes_no_more_than_its_part_of_the_time() -> None:
    fluency = Fluency(0.04)
    assert all(fluency.choose(3, -1))  # what it costs is not known
    fluency.spent(3, 6)
    assert sum(sum(fluency.choose(3, -1)) for _ in range(1000)) == 3000 * 0.04 / 2 // 4


def test_a_renderer_that_is_too_slow_shows_every_nth_picture_and_all_the_sound(
    pipeline: moda.Pipeline,
) -> None:
    with pipeline.live(EXAMPLES / "portrait.png", size=64) as session:
        render = session._face._renderer.render

        def slow(motion: torch.Tensor, gaze: torch.Tensor | None = None) -> Iterator[np.ndarray]:
            for picture in render(motion, gaze):
                time.sleep(0.08)  # twice what there is time for
                yield picture

        session._face._renderer.render = slow
        wave = media.read_audio(EXAMPLES / "speech.wav")[: 3 * SAMPLE_RATE]
        session.push(wave)
        frames = list(islice(session.frames(), 4 * FPS))
        pace = session.pace
    heard = np.concatenate([frame.sound for frame in frames])
    start = int(np.flatnonzero(heard)[0]) - int(np.flatnonzero(wave)[0])
    assert np.array_equal(heard[start : start + len(wave)], wave)
    assert [frame.number for frame in frames] == list(range(4 * FPS))
    assert all(
        after.drawn or np.array_equal(before.picture, after.picture)
        for before, after in pairwise(frames)
    )
    left_out = runs([frame.drawn for frame in frames])
    assert pace.left_out >= sum(left_out) > 20
    assert pace.late_s > 0
    assert sorted(left_out)[len(left_out) * 9 // 10] <= 12  # whatever else this machine does
