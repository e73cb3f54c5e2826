"""A face that speaks hop by hop: in step, like the file's, quiet when interrupted."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from moda_cli import media
from moda_cli.config import FPS, SAMPLES_PER_FRAME, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.errors import UsageError
from moda_cli.generator.hops import Hop, HopSampler
from moda_cli.generator.takes import causal_take, sample
from moda_cli.live.face import LiveFace, LiveFrame
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode
from moda_cli.pipeline import Pipeline
from moda_cli.speech.logmel import PushedMel, log_mel, window_features

EXAMPLES = Path(__file__).parents[2] / "examples"
HOP = Hop()


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("mini", "cpu")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    wave = media.read_audio(EXAMPLES / "speech.wav")
    hop = HOP.new * SAMPLES_PER_FRAME
    return wave[: len(wave) // hop * hop]


def face(pipeline: Pipeline, emotion: str = "none", seed: int = 42) -> LiveFace:
    clip = ClipConfig(EXAMPLES / "portrait.png", Path("-"), Path("-"), render=RenderConfig(size=64))
    portrait = pipeline.studio.look(clip)
    renderer = pipeline.studio.renderer(portrait, pipeline.model.stats.neutral, absolute=False)
    sampler = hop_sampler(pipeline, seed)
    return LiveFace(sampler, renderer, pipeline.model.stats.neutral, parse_emotion(emotion))


def hop_sampler(pipeline: Pipeline, seed: int = 42) -> HopSampler:
    model, start = pipeline.model, parse_emotion("none")
    return pipeline.hearing.hops(model, start, SamplerConfig(seed=seed), None, HOP)


def hops(wave: np.ndarray) -> np.ndarray:
    return wave.reshape(-1, HOP.new * SAMPLES_PER_FRAME)


def spoken(given: LiveFace, wave: np.ndarray) -> list[LiveFrame]:
    return [frame for hop in hops(wave) for frame in given.advance(hop)]


def articulators(pipeline: Pipeline, motion: torch.Tensor) -> torch.Tensor:
    return decode((motion - pipeline.model.stats.neutral)[:, EXPRESSION])


def moved(pipeline: Pipeline, wave: np.ndarray, seed: int = 42, coming: int = 0) -> torch.Tensor:
    """The motion (T, 70) that a live face is given for a wave, and silence after it.

    coming: so many frames beyond a hop are known.
    """
    sampler, made, done = hop_sampler(pipeline, seed), [], 0
    for hop in hops(np.pad(wave, (0, HOP.new * SAMPLES_PER_FRAME))):
        done += len(hop)
        follows = wave[done : done + coming * SAMPLES_PER_FRAME]
        made.append(sampler.step(hop, parse_emotion("none").emotion_shares, follows))
    return torch.cat(made)[HOP.ahead :][: len(wave) // SAMPLES_PER_FRAME]


def test_a_frame_is_given_before_the_next_is_drawn(pipeline: Pipeline) -> None:
    given, drawn = face(pipeline), []
    render = given._renderer.render

    def counted(motion: torch.Tensor, gaze: torch.Tensor | None = None) -> Iterator[np.ndarray]:
        for picture in render(motion, gaze):
            drawn.append(picture)
            yield picture

    given._renderer.render = counted  # type: ignore[method-assign]
    heard = given.hear(np.zeros(HOP.new * SAMPLES_PER_FRAME, np.float32))
    for count, frame in enumerate(given.draw(heard, [True] * HOP.new), start=1):
        assert len(drawn) == count
        assert frame.picture is drawn[-1]


def test_a_pushed_sound_is_heard_as_a_whole_one() -> None:
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(60 * SAMPLES_PER_FRAME)).astype(np.float32)
    frames = wave.reshape(60, -1)
    silent = np.zeros(5 * SAMPLES_PER_FRAME, np.float32)
    mel = PushedMel(5)
    for start in range(0, 60, 3):
        mel.push(frames[start : start + 3].ravel())
    assert torch.equal(
        mel.last(20), window_features(log_mel(np.concatenate((silent, wave))), 45, 20)
    )
    mel.take_back(10)
    mel.push(silent)
    other = np.concatenate((silent, wave[: 50 * SAMPLES_PER_FRAME], silent))
    assert torch.equal(mel.last(20), window_features(log_mel(other), 40, 20))


def test_frames_carry_their_sound_and_the_same_hops_give_the_same(
    pipeline: Pipeline, speech: np.ndarray
) -> None:
    wave = speech[: 40 * SAMPLES_PER_FRAME]
    frames, again = (spoken(face(pipeline), wave) for _ in range(2))
    assert [frame.number for frame in frames] == list(range(40))
    heard = np.concatenate([frame.sound for frame in frames])
    late = HOP.ahead * SAMPLES_PER_FRAME
    assert not heard[:late].any()
    assert np.array_equal(heard[late:], wave[:-late])
    assert all(np.array_equal(a.picture, b.picture) for a, b in zip(frames, again, strict=True))
    other = spoken(face(pipeline, seed=7), wave)
    assert any((a.picture != b.picture).any() for a, b in zip(frames, other, strict=True))


def test_what_is_heard_before_its_time_is_heard_again_and_no_otherwise(
    pipeline: Pipeline, speech: np.ndarray
) -> None:
    first, other = hop_sampler(pipeline), hop_sampler(pipeline)
    shares = parse_emotion("none").emotion_shares
    blocks = hops(speech)[20:40]
    for number, hop in enumerate(blocks[:-2]):
        made = first.step(hop, shares, np.concatenate(blocks[number + 1 : number + 3])[: 6 * 640])
        without = other.step(hop, shares)
    assert not torch.allclose(made, without, atol=0.01)
    for sampler in (first, other):
        sampler.ear.push(blocks[-2])
    assert torch.equal(first.ear.last(30), other.ear.last(30))


@pytest.mark.slow
def test_lips_move_as_those_of_the_file_and_the_head_no_rougher(
    pipeline: Pipeline, speech: np.ndarray
) -> None:
    live = moved(pipeline, speech)
    take = causal_take(pipeline.model, speech, parse_emotion("none"), SamplerConfig())
    file = torch.cat(list(sample(pipeline.model, take)))[: len(live)]
    jaws = [articulators(pipeline, motion)[:, ARTICULATORS.index("jaw")] for motion in (live, file)]
    best = max(
        range(-4, 5),
        key=lambda k: float(torch.corrcoef(torch.stack((jaws[0].roll(k), jaws[1])))[0, 1]),
    )
    assert best == 0  # in step
    without = torch.corrcoef(torch.stack(jaws))[0, 1]
    assert without > 0.85
    ahead = moved(pipeline, speech, coming=10)  # as what comes faster than it is spoken
    jaws[0] = articulators(pipeline, ahead)[:, ARTICULATORS.index("jaw")]
    known = torch.corrcoef(torch.stack(jaws))[0, 1]
    assert known > without
    rough = [motion[20:, POSE].diff(n=2, dim=0).abs().mean() for motion in (live, file)]
    assert rough[0] < 3 * rough[1]


def test_an_interrupted_mouth_closes_in_three_frames_and_stays_shut(
    pipeline: Pipeline, speech: np.ndarray
) -> None:
    loud = speech[: 84 * SAMPLES_PER_FRAME]
    given = face(pipeline)
    drawn: list[torch.Tensor] = []
    render = given._renderer.render

    def watching(motion: torch.Tensor, gaze: torch.Tensor | None = None) -> object:
        drawn.append(motion)
        return render(motion, gaze)

    given._renderer.render = watching  # type: ignore[method-assign]
    frames = spoken(given, loud)
    jaw = articulators(pipeline, torch.cat(drawn))[:, 0]
    shown = 40 + int(jaw[40:72].argmax())  # in the middle of an open vowel
    drawn.clear()
    instead = given.interrupt(shown)
    assert [frame.number for frame in instead] == list(range(shown, len(frames)))
    assert not any(frame.sound.any() for frame in instead)
    after = spoken(given, np.zeros(40 * SAMPLES_PER_FRAME, np.float32))
    assert after[0].number == len(frames)
    assert not any(frame.sound.any() for frame in after)
    shut = articulators(pipeline, torch.cat(drawn))[:, 0]
    assert jaw[shown] > 20
    assert shut[2:9].abs().max() < 1  # from the third frame on
    assert shut[2:].max() < 0.3 * jaw[shown]  # nothing of the sentence comes back


def test_what_is_asked_while_it_runs_shows_and_is_forgotten_when_replaced(
    pipeline: Pipeline,
) -> None:
    given = face(pipeline)
    silence = np.zeros(HOP.new * SAMPLES_PER_FRAME, np.float32)
    still = given.advance(silence)[-1].picture
    given.ask(given.made, {"yaw": 20.0}, ease=0.2)
    for _ in range(4):
        turned = given.advance(silence)[-1].picture
    assert np.abs(turned.astype(int) - still).mean() > 3
    for second in range(200):
        given.made = FPS * (second + 2)
        given.ask(given.made, {"yaw": float(second % 5)})
        given.ask(given.made, {"blink": True})
    assert len(given._timeline.entries) < 40
    assert [e.values["emotion"] for e in given._timeline.asking("emotion")]


def test_emotions_that_need_the_whole_sound_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(UsageError, match="whole sound"):
        face(pipeline, "auto")
