"""What a model hears a sound through, chosen once: log-mel, or a speech encoder."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from moda_cli.config import SamplerConfig
from moda_cli.control.timeline import Timeline
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import Take, causal_take, live_take, released_take
from moda_cli.media.waves import Read, Samples
from moda_cli.motion import Source
from moda_cli.speech.encoder import SpeechEncoder
from moda_cli.speech.released import LiveSpeech, SpeechFeatures


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
