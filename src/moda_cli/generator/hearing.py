"""What a model hears a sound through, chosen once: log-mel, or a speech encoder."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

from moda_cli.config import SamplerConfig
from moda_cli.control.timeline import Timeline
from moda_cli.generator.hops import Hop, HopSampler
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import (
    Take,
    causal_take,
    lips_from_rest,
    live_take,
    released_take,
    start_of,
)
from moda_cli.media.waves import Read, Samples
from moda_cli.motion import Source
from moda_cli.speech.encoder import SpeechEncoder
from moda_cli.speech.logmel import PushedMel
from moda_cli.speech.released import LiveSpeech, PushedSpeech, SpeechFeatures, silence


class Hearing(Protocol):
    """Makes of a clip's sound what its model samples."""

    @property
    def causal(self) -> bool:
        """Whether windows hear no further than their own end, so that they come one by one."""

    def take(
        self,
        model: MotionGenerator,
        sound: Samples | Read,
        timeline: Timeline,
        config: SamplerConfig,
        source: Source | None,
    ) -> Take:
        """One row of motion per 640 samples of a 16 kHz wave.

        What is still arriving is given as a function that reads it. source: the portrait's, of
        models that start from it.
        """

    def hops(
        self,
        model: MotionGenerator,
        timeline: Timeline,
        config: SamplerConfig,
        source: Source | None,
        hop: Hop,
    ) -> HopSampler:
        """The same a few frames at a time, of a sound that is pushed.

        timeline: as it begins. Raises UsageError for windows that are shorter than a hop.
        """


class HearsMel:
    """Log-mel, without weights."""

    causal = True

    def take(
        self,
        model: MotionGenerator,
        sound: Samples | Read,
        timeline: Timeline,
        config: SamplerConfig,
        source: Source | None,
    ) -> Take:
        """Causal windows, whether the sound is whole or still arriving."""
        return causal_take(model, sound, timeline, config, source)

    def hops(
        self,
        model: MotionGenerator,
        timeline: Timeline,
        config: SamplerConfig,
        source: Source | None,
        hop: Hop,
    ) -> HopSampler:
        """Windows as short as a hop, where the model was trained on them."""
        return HopSampler(model, config, hop, start_of(model, source), PushedMel)


@dataclass(frozen=True, slots=True)
class HearsSpeech:
    """A speech encoder: the release's whole clip, or its causal form for a sound that arrives."""

    encoder: SpeechEncoder
    causal: ClassVar[bool] = False

    def take(
        self,
        model: MotionGenerator,
        sound: Samples | Read,
        timeline: Timeline,
        config: SamplerConfig,
        source: Source | None,
    ) -> Take:
        """A sound that is read as it arrives is sampled in the causal form."""
        if callable(sound):
            return live_take(model, LiveSpeech(self.encoder, sound), timeline, config, source)
        whole = SpeechFeatures(self.encoder, sound)
        return released_take(model, whole, timeline, config, source)

    def hops(
        self,
        model: MotionGenerator,
        timeline: Timeline,
        config: SamplerConfig,
        source: Source | None,
        hop: Hop,
    ) -> HopSampler:
        """Windows that slide, their lips moved as in the causal form."""
        start, window = start_of(model, source), model.network.config.window
        lips = lips_from_rest(model, silence(self.encoder, window), timeline, config, start)
        return HopSampler(model, config, hop, start, partial(PushedSpeech, self.encoder), lips)
