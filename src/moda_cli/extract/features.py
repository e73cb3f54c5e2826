"""A stretch of video to feature files: the usable clips in it, and why the rest is left out."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from moda_cli import media
from moda_cli.choice import BUNDLED
from moda_cli.config import (
    EMOTIONS,
    FPS,
    NO_EMOTION,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    AudioKind,
    ModelConfig,
)
from moda_cli.data.annotations import Cut
from moda_cli.data.feature_files import write_clip
from moda_cli.errors import InputError
from moda_cli.extract.emotion_classifier import EmotionClassifier
from moda_cli.extract.index import left_out
from moda_cli.extract.stretches import Stretch, stretches, unusable, views
from moda_cli.face.extractors import MotionExtractor, load_motion_extractor, read_heads
from moda_cli.face.landmarks203 import LandmarkNetwork, load_landmarks
from moda_cli.face.mesh_motion import mesh_motion, rest_measures, rest_motion
from moda_cli.face.video_motion import smoothed
from moda_cli.files import Row
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.metrics.mouth import audio_mouth_lag
from moda_cli.metrics.sync import SyncNetworks, sync_score
from moda_cli.motion import Stats
from moda_cli.speech.encoder import ENCODERS, SpeechEncoder, load_encoder
from moda_cli.speech.logmel import log_mel
from moda_cli.speech.released import SpeechFeatures
from moda_cli.weights import store

log = logging.getLogger(__name__)


MotionKind = Literal["liveportrait", "mesh"]  # who sees how a face moves

MOTION_EXTRACTOR = "motion_extractor"
EMOTION, SYNC = "hsemotion", ("s3fd", "syncnet")  # taken where they are installed

BATCH = 16  # crops that the motion extractor sees at once
EMOTION_EVERY = 5  # frames
OUT_OF_STEP = 2  # frames that mouth and sound may be apart: a tracked mouth is known no better
SURE_MOUTH = 0.4  # correlation of mouth and loudness from which their lag is believed
SURE_SYNCNET = 3.0  # Sync-C below which SyncNet takes the sound for another's


@dataclass(frozen=True, slots=True)
class ExtractionNetworks:
    """What a job looks and listens with."""

    landmarks: LandmarkNetwork | None  # None, as `motion`: the mesh says how the face moves
    motion: MotionExtractor | None
    encoder: SpeechEncoder | None = None  # None: log-mel
    emotion: EmotionClassifier | None = None
    sync: SyncNetworks | None = None  # None: mouth and loudness are compared

    @classmethod
    def load(
        cls, audio: AudioKind, motion: MotionKind, device: torch.device
    ) -> "ExtractionNetworks":
        """Raises WeightsError for what is missing or damaged."""
        looks = motion == "liveportrait"
        emotion = store.installed(EMOTION) if looks else None
        sync = [path for path in map(store.installed, SYNC) if path]
        return cls(
            load_landmarks() if looks else None,
            load_motion_extractor(device) if looks else None,
            load_encoder(ModelConfig(audio=audio), device) if audio in ENCODERS else None,
            EmotionClassifier(emotion) if emotion else None,
            SyncNetworks.load(load_file(sync[0]), load_file(sync[1]), device)
            if len(sync) == len(SYNC)
            else None,
        )


def extract_cut(cut: Cut, out: Path, networks: ExtractionNetworks) -> tuple[list[Row], list[Row]]:
    """Write the usable clips of a stretch of video; their rows, and those of what is left out.

    The video is decoded twice: to find the faces and, once their crops can be smoothed, to look at
    them. Raises InputError for a file that cannot be read.
    """
    assert cut.video is not None
    if cut.sound is None and not media.probe_video(cut.video).has_sound:
        return [], [left_out(cut, cut.start_s, cut.end_s, "no sound")]
    first = round(cut.start_s * SAMPLE_RATE)
    wave = media.read_audio(cut.sound) if cut.sound else media.read_video_sound(cut.video)
    wave = wave[first:]
    footage = Footage(cut)
    rows: list[Row] = []
    dropped: list[Row] = []
    number = 0
    frames, at = iter(footage), 0
    found = stretches(footage, networks.landmarks, cut.box.holds if cut.box else None)
    for stretch in [piece for long in found for piece in long.pieces(cut.longest_s)]:
        sound = wave[stretch.start * SAMPLES_PER_FRAME : stretch.stop * SAMPLES_PER_FRAME]
        start_s = cut.start_s + stretch.start / FPS
        reason = unusable(stretch, sound)
        sync: Row = {}
        if not reason:
            stretch, sound = in_common(stretch, sound)
            reason, sync = judge_sync(stretch, sound, footage, networks.sync)
        end_s = cut.start_s + stretch.stop / FPS
        if reason:
            dropped.append(left_out(cut, round(start_s, 3), round(end_s, 3), reason))
            continue
        name = f"{cut.name}_{number:03d}"
        number += 1
        neutral = None
        if networks.motion:
            part = islice(frames, stretch.start - at, stretch.stop - at)
            at = stretch.stop
            motion, kp, emotion = watch(part, stretch, networks)
        else:
            motion, neutral = by_mesh(stretch, found)
            kp, emotion = torch.zeros(63), torch.zeros(NO_EMOTION)
        if cut.emotion and networks.emotion is None:
            emotion[EMOTIONS.index(cut.emotion)] = 1
        digest = write_clip(
            out / f"{name}.safetensors",
            motion,
            kp,
            hear(sound, networks.encoder),
            emotion,
            neutral,
        )
        rows.append(
            {
                "clip": name,
                "source": cut.source,
                "start": round(start_s, 3),
                "end": round(end_s, 3),
                "frames": len(stretch),
                **({"emotion": cut.emotion} if cut.emotion else {}),
                "sync": sync,
                "sha256": digest,
            }
        )
    return rows, dropped


@dataclass(frozen=True, slots=True)
class Footage:
    """The frames of a clip, decoded anew each time; or those of a stretch of it."""

    cut: Cut
    start: int = 0
    stop: int | None = None

    def __iter__(self) -> Iterator[Picture]:
        assert self.cut.video is not None
        end, start = self.cut.end_s, self.cut.start_s
        length = None if end is None else end - start
        frames = media.read_video(self.cut.video, start_s=start, duration_s=length)
        return islice(frames, self.start, self.stop)


def in_common(stretch: Stretch, wave: Wave) -> tuple[Stretch, Wave]:
    """As many frames as there is sound for, and the sound of just these."""
    count = min(len(stretch), len(wave) // SAMPLES_PER_FRAME)
    return stretch.part(0, count), wave[: count * SAMPLES_PER_FRAME]


def judge_sync(
    stretch: Stretch, wave: Wave, footage: Footage, networks: SyncNetworks | None
) -> tuple[str, Row]:
    """Why mouth and sound do not belong together, if so, and what is known of it."""
    if networks is not None:
        part = replace(footage, start=stretch.start, stop=stretch.stop)
        try:
            found = sync_score(part, wave, networks).alignment
        except InputError as error:
            log.info("%s: SyncNet cannot look at it: %s", footage.cut.name, error)
        else:
            sync = {"by": "syncnet", "late": found.offset, "score": round(found.confidence, 3)}
            if found.confidence < SURE_SYNCNET:
                sure = f"{found.confidence:.2f} < {SURE_SYNCNET}"
                return f"the sound is not this mouth's: Sync-C {sure}", sync
            return _step(found.offset, f"Sync-C {found.confidence:.1f}"), sync
    late, correlation = audio_mouth_lag(stretch.openness, wave)
    if correlation < SURE_MOUTH:
        return "", {"by": "unknown", "score": round(correlation, 3)}
    return _step(late, f"r {correlation:.2f}"), {
        "by": "mouth",
        "late": late,
        "score": round(correlation, 3),
    }


def _step(late: int, surety: str) -> str:
    if abs(late) <= OUT_OF_STEP:
        return ""
    which = "mouth" if late > 0 else "sound"
    return f"out of step: the {which} is {abs(late)} frames late ({surety})"


@torch.inference_mode()
def watch(
    frames: Iterator[Picture], stretch: Stretch, networks: ExtractionNetworks
) -> tuple[Tensor, Tensor, Tensor]:
    """Motion (T, 70), the first frame's kp_canonical (63), and emotion (8) of a stretch.

    The emotion is the mean of the probabilities, or zero without a classifier.
    """
    assert networks.motion is not None
    device = next(networks.motion.parameters()).device
    motions: list[Tensor] = []
    emotions: list[NDArray[np.float32]] = []
    identity = torch.empty(0)
    looks = views(frames, stretch, EMOTION_EVERY)
    while batch := list(islice(looks, BATCH)):
        crops, faces = zip(*batch, strict=True)
        images = torch.from_numpy(np.stack(crops)).to(device).permute(0, 3, 1, 2)
        motion, kp_canonical = read_heads(networks.motion(images.float() / 255))
        if not motions:
            identity = kp_canonical[0].flatten().cpu()
        motions.append(motion.cpu())
        if networks.emotion:
            emotions += [networks.emotion.probabilities(f) for f in faces if f is not None]
    emotion = np.mean(emotions, axis=0, dtype=np.float64) if emotions else np.zeros(NO_EMOTION)
    return torch.cat(motions), identity, torch.from_numpy(emotion).float()


def by_mesh(stretch: Stretch, video: Sequence[Stretch]) -> tuple[Tensor, Tensor]:
    """Motion (T, 70) of a stretch off the bundled model's neutral (70), and that.

    The face's rest is that of the whole video, where it may be calmer. Smoothed without lag.
    """
    known = np.concatenate([each.measures for each in video if not each.reason])
    motion, _ = mesh_motion(stretch.measures, rest_measures(known)[1])
    neutral = Stats.read(BUNDLED / "stats.json").neutral
    off = smoothed(motion - rest_motion(), np.zeros(len(motion), np.int_))
    return off + neutral, neutral


def hear(wave: Wave, encoder: SpeechEncoder | None) -> Tensor:
    """Audio features (T, layers, D) of a clip's sound (640 T)."""
    return log_mel(wave) if encoder is None else SpeechFeatures(encoder, wave).speech().cpu()
