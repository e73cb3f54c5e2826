"""A portrait that moves: its motion as it is made, who draws it, and what a timeline adds."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moda_cli import media
from moda_cli.checks import Clip
from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.control.inserts import gaze_laid_over
from moda_cli.control.timeline import Timeline
from moda_cli.control.timeline_file import described
from moda_cli.errors import ModaError, UsageError
from moda_cli.face.answer import MouthAnswer
from moda_cli.face.portrait import Portrait
from moda_cli.media.lettering import Lettering
from moda_cli.media.pictures import Picture
from moda_cli.media.sound import LiveSound, StoredWave
from moda_cli.media.waves import Samples
from moda_cli.motion import Recording, resample
from moda_cli.render.renderer import Renderer

log = logging.getLogger(__name__)

Sound = LiveSound | StoredWave | Samples
Gaze = Callable[[Tensor], Tensor | None]  # of seconds (n,)


@dataclass(frozen=True, slots=True)
class Animation:
    """A portrait, the motion (n, 70) at 25 fps that is made for it piece by piece, and who draws.

    neutral: (70) the motion at which a frame is the portrait; absolute: as in `Recording`.
    lettering: what is burnt into its frames. timeline: what is asked for when, with what was heard.
    gaze(seconds (n,)): as `Renderer` takes it, (n, 2).
    """

    portrait: Portrait
    neutral: Tensor
    absolute: bool
    motion: Iterator[Tensor]
    renderer: Renderer
    lettering: Lettering
    timeline: Timeline
    gaze: Gaze

    def recording(self, motion: Tensor) -> Recording:
        """Its whole motion (T, 70), as a file holds it."""
        gaze = self.gaze(torch.arange(len(motion)).double() / FPS)
        return Recording(motion, self.neutral, self.absolute, gaze)

    def frames(self, motion: Iterable[Tensor], fps: float) -> Iterator[Picture]:
        """Yield a frame per 1 / fps seconds of motion at 25 fps.

        A mouth that stays shut in the first seconds although it is asked to open is warned of.
        """
        answer = MouthAnswer(self.portrait.face, self.neutral, fps)
        done = 0
        for piece in resample(motion, fps):
            gaze = self.gaze(torch.arange(done, done + len(piece)).double() / fps)
            for row, frame in zip(piece, self.renderer.render(piece, gaze), strict=True):
                answer.see(row, frame[..., :3])
                yield self.lettering(frame, done / fps)
                done += 1
        answer.judge()


def within_sound(
    frames: Iterable[Picture], sound: LiveSound, fps: float, timeline: Timeline
) -> Iterator[Picture]:
    """The frames that begin before the sound ends: the last of its motion may outlast it.

    The end is known by then, for it was read before that motion was made. What the timeline asks
    for later is warned of.
    """
    for done, frame in enumerate(frames):
        if sound.length is None or done < num_frames(sound.length / SAMPLE_RATE, fps):
            yield frame
    try:
        timeline.check_within((sound.length or 0) / SAMPLE_RATE)
    except ModaError as error:
        log.warning("%s", error)


def num_frames(seconds: float, fps: float) -> int:
    """Frames that begin within so many seconds."""
    return math.ceil(round(seconds * fps, 6))


def heard_timeline(clip: Clip, sound: Sound) -> Timeline:
    """The clip's timeline, with the emotions of the voice where it asks for them.

    Raises UsageError for a sound that is only now arriving.
    """
    if not clip.timeline.auto:
        return clip.timeline
    whole: Samples
    if not isinstance(sound, LiveSound):
        whole = sound
    elif str(clip.config.audio) != "-":
        whole = media.read_audio(clip.config.audio)
    else:
        hint = "give a file, or name the emotions"
        raise UsageError("--emotion auto needs the whole sound before it begins", hint=hint)
    from moda_cli.control.prosody import hear_emotions

    heard = hear_emotions(whole)
    log.info("emotions heard in the voice:\n%s", described(Timeline.of(heard)))
    return Timeline.of((*clip.timeline.entries, *heard))


def gaze_at(taken: Timeline, timeline: Timeline, seconds: Tensor) -> Tensor | None:
    """Where the eyes look at `seconds` (n,): as taken from recordings, and as asked for."""
    looks, asked = torch.zeros(len(seconds), 2), timeline.gaze(seconds)
    for layer in (taken, timeline):
        looks = gaze_laid_over(looks, layer, seconds)
    if asked is not None:
        return (looks + asked).clamp(-1, 1)
    return looks if looks.any() else None
