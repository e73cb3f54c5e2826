"""Takes: what a clip is sampled from and how its motion is finished, and their sampling."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moda_cli.config import ModelConfig, SamplerConfig
from moda_cli.control.timeline import Timeline
from moda_cli.device import on_stream
from moda_cli.errors import WeightsError
from moda_cli.generator.guidance import Window, guidance_terms, guided_velocity
from moda_cli.generator.lips import LiveLips, modulate_lips
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.sampler import CountFrames, Velocity, Windows, euler_sigmas, sample_windows
from moda_cli.media.waves import Read, Samples, frames_to_cover, reader
from moda_cli.motion import EPS, LIP_KEYPOINTS, MOUTH_CHANNELS, SCALE, Source
from moda_cli.speech.logmel import LogMel
from moda_cli.speech.released import ADDED, LiveSpeech, SpeechFeatures, silence

EASE_IN = 10  # frames over which a clip leaves the source picture
SIZED = slice(63, 67)  # scale and translation grow with the face in its crop
LIP_REFERENCE = -(ADDED * 3 // 4)  # the frame of the added silence in which lips rest

DrawNoise = Callable[[], Tensor]
OnWindow = Callable[[int, int | None], None]  # (done, of); None where sound may still arrive
Finish = Callable[[Tensor, bool], Tensor]  # (normalised (n, 70), the clip's last?) -> physical


@dataclass(frozen=True, slots=True)
class Start:
    """What a clip begins with."""

    identity: Tensor  # (63) canonical keypoints
    motion: Tensor  # (70) physical, of the source picture
    ratio: Tensor  # (1) the portrait's scale over the training mean; 1 for a constant source
    prev: Tensor  # (70) normalised, the frame before the first


def start_of(model: MotionGenerator, source: Source | None) -> Start:
    """The portrait's start for a model trained on extracted sources, else the model's own.

    The release's models move faces of one size: the portrait's scale is divided out before the
    model and multiplied back by `physical`. Raises WeightsError for a model that needs a source
    and has none.
    """
    stats = model.stats
    if not model.starts_from_portrait:
        prev = stats.normalise(stats.neutral)
        return Start(stats.identity, stats.neutral, torch.ones(1), prev)
    if source is None:
        raise WeightsError(
            "this model starts from the portrait's own motion, which the LivePortrait motion "
            "extractor reads",
            hint="run: moda download",
        )
    ratio = (source.motion[SCALE] + EPS) / (stats.mean[SCALE] + EPS)
    prev = source.motion.clone()
    prev[SIZED] /= ratio
    return Start(source.kp_canonical.flatten(), source.motion, ratio, stats.normalise(prev))


def physical(model: MotionGenerator, z: Tensor, start: Start) -> Tensor:
    """Physical motion (T, 70) of normalised z, at the portrait's size."""
    motion = model.stats.denormalise(z)
    motion[:, SIZED] *= start.ratio
    return motion


def window_noise(shape: ModelConfig, seed: int) -> DrawNoise:
    """A function that draws the next window's noise (1, window, 70), on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    return lambda: frame_noise(shape, shape.window, generator)[None]


def frame_noise(shape: ModelConfig, frames: int, generator: torch.Generator) -> Tensor:
    """What frames (frames, 70) are sampled from: less of it in the mouth, as the model has it."""
    temperature = torch.ones(shape.motion_dim)
    temperature[list(MOUTH_CHANNELS)] = shape.lip_noise
    return temperature * torch.randn((frames, shape.motion_dim), generator=generator)


@dataclass(frozen=True, slots=True)
class Take:
    """A clip to be sampled: what it hears, how it begins and is guided, how its motion is made."""

    audio_at: Callable[[int], Tensor]  # features (window, layers, channels) from a frame on
    num_frames: int | CountFrames
    timeline: Timeline
    config: SamplerConfig
    start: Start
    draw_noise: DrawNoise
    finisher: Callable[[], Finish]  # called before the first window; each clip has its own


def sample(
    model: MotionGenerator, take: Take, on_window: OnWindow = lambda *_: None
) -> Iterator[Tensor]:
    """Yield a clip's physical motion (n, 70), piece by piece; on_window(done, of) follows."""
    finish, shape = take.finisher(), model.network.config
    known = None if callable(take.num_frames) else take.num_frames
    total = known and -(-(known - shape.overlap) // (shape.window - shape.overlap))
    on_window(0, total)
    for done, ((_, z, last),) in enumerate(_windows(model, [take]), start=1):
        on_window(done, total)
        if len(motion := finish(z[0], last)):
            yield motion


def sample_together(model: MotionGenerator, takes: Sequence[Take]) -> list[Tensor]:
    """The whole physical motion (T, 70) of each clip, windows of all of them in one batch.

    What `sample` gives, up to rounding. All have the same number of steps.
    """
    finish = [take.finisher() for take in takes]
    pieces: list[list[Tensor]] = [[] for _ in takes]
    for sampled in _windows(model, takes):
        for number, z, last in sampled:
            pieces[number].append(finish[number](z[0], last))
    return [torch.cat(own) for own in pieces]


def _windows(
    model: MotionGenerator, takes: Sequence[Take]
) -> Iterator[list[tuple[int, Tensor, bool]]]:
    """`sample_windows` of these takes."""
    shape, device = model.network.config, model.device
    sigmas = euler_sigmas(takes[0].config.steps or shape.steps, shape.last_sigma)
    clips = [
        Windows(
            take.num_frames,
            take.start.prev[None, None].to(device),
            window=shape.window,
            overlap=shape.overlap,
        )
        for take in takes
    ]

    def window_of(number: int) -> Window:
        take, at = takes[number], clips[number]
        return Window(
            take.audio_at(at.start).to(device),
            take.timeline.emotion_shares(at.start, shape.window),
            take.start.identity.to(device),
            at.prev[0],
            guidance_terms(take.config, shape),
        )

    def velocity_of(going: Sequence[int]) -> Velocity:
        windows = [window_of(number) for number in going]
        return guided_velocity(model.network, windows, sigmas, model.forward)

    def draw_noise(number: int) -> Tensor:
        return takes[number].draw_noise().to(device)

    made = sample_windows(velocity_of, clips, sigmas, draw_noise)
    return on_stream(made, model.stream) if model.stream else made


class _EaseIn:
    """The first frames of physical motion (n, 70), blended out of the source picture's (70)."""

    def __init__(self, origin: Tensor) -> None:
        self._origin, self._done = origin, 0

    def __call__(self, motion: Tensor) -> Tensor:
        frames = torch.arange(self._done, self._done + len(motion))
        self._done += len(motion)
        ease = (frames / EASE_IN).clamp(max=1)[:, None]
        return torch.lerp(self._origin, motion, ease * ease * (3 - 2 * ease))


def causal_take(
    model: MotionGenerator,
    wave: Samples | Read,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None = None,
) -> Take:
    """A 16 kHz wave heard as log-mel: one row of motion at 25 fps per 640 samples.

    Windows are causal: each hears the sound up to its own end, so that the wave may still be
    arriving. The first frame is the source picture's, and the clip eases out of it. Raises
    WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, start_of(model, source)
    mel = LogMel(wave if callable(wave) else reader(wave))

    def finisher() -> Finish:
        ease = _EaseIn(start.motion)
        return lambda z, _: ease(physical(model, z, start))

    return Take(
        lambda frame: mel.window(frame, shape.window),
        mel.frames if callable(wave) else frames_to_cover(len(wave)),
        timeline,
        config,
        start,
        window_noise(shape, config.seed),
        finisher,
    )


def released_take(
    model: MotionGenerator,
    features: SpeechFeatures,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None,
    draw_noise: DrawNoise | None = None,
) -> Take:
    """A whole clip in one piece, the silence after its speech trimmed but for a begun frame.

    The release's order of operations: windows, their joining, lips, physical motion, the trim. Lips
    move away from their rest in that silence. draw_noise() gives one window's noise
    (1, window, 70), by default from the seed. Raises WeightsError for a model that needs a source
    and has none.
    """
    shape, start = model.network.config, start_of(model, source)

    def finisher() -> Finish:
        pieces: list[Tensor] = []

        def finish(piece: Tensor, last: bool) -> Tensor:
            pieces.append(piece)
            if not last:
                return piece[:0]
            z = torch.cat(pieces)
            z = modulate_lips(z, z[LIP_REFERENCE], LIP_KEYPOINTS)
            return physical(model, z[: features.covering], start)

        return finish

    return Take(
        lambda frame: features.window(frame, shape.window),
        len(features),
        timeline,
        config,
        start,
        draw_noise or window_noise(shape, config.seed),
        finisher,
    )


def live_take(
    model: MotionGenerator,
    features: LiveSpeech,
    timeline: Timeline,
    config: SamplerConfig,
    source: Source | None,
) -> Take:
    """A sound that may still be arriving.

    As `released_take`, but lips move away from their rest in silence that is sampled first, by the
    largest distance so far. Raises WeightsError for a model that needs a source and has none.
    """
    shape, start = model.network.config, start_of(model, source)

    def finisher() -> Finish:
        quiet = silence(features.encoder, shape.window)
        lips = lips_from_rest(model, quiet, timeline, config, start)
        return lambda z, _: physical(model, lips(z), start)

    return Take(
        lambda frame: features.window(frame, shape.window),
        features.frames,
        timeline,
        config,
        start,
        window_noise(shape, config.seed),
        finisher,
    )


def lips_from_rest(
    model: MotionGenerator, quiet: Tensor, timeline: Timeline, config: SamplerConfig, start: Start
) -> LiveLips:
    """The released modulation of lips, away from their rest in 2 s of silence, sampled for it.

    quiet: the features of that silence (window, layers, channels).
    """
    noise = window_noise(model.network.config, config.seed)
    take = Take(lambda _: quiet, ADDED, timeline, config, start, noise, lambda: lambda z, _: z)
    rest = torch.cat(list(sample(model, take)))[LIP_REFERENCE]  # stays normalised
    return LiveLips(rest, LIP_KEYPOINTS)
