"""Sync-C and Sync-D of a clip: find the face, follow it, compare it with the sound.

As SyncNet's released code (joonson/syncnet_python) does, including its habit of comparing windows
at the ends of a clip with zero vectors.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.config import SAMPLES_PER_FRAME
from moda_cli.errors import InputError
from moda_cli.media.cuts import CutDetector
from moda_cli.metrics.face_track import (
    MIN_TRACK,
    face_crops,
    link_tracks,
    longest_track,
)
from moda_cli.metrics.networks.s3fd import S3FD, detect_faces
from moda_cli.metrics.networks.syncnet import WINDOW, SyncNet, audio_embeddings, video_embeddings
from moda_cli.weights.state import load_strict

DETECTION_BATCH = 16  # frames
MAX_SHIFT = 15  # frames that the sound is tried early and late

Frames = Iterable[NDArray[np.uint8]]


@dataclass(frozen=True, slots=True)
class SyncNetworks:
    """Face detector and SyncNet, both on one device."""

    detector: S3FD
    syncnet: SyncNet

    @classmethod
    def load(
        cls,
        detector: Mapping[str, Tensor],
        syncnet: Mapping[str, Tensor],
        device: str | torch.device = "cpu",
    ) -> "SyncNetworks":
        """From the state dicts of `sfd_face.pth` and `syncnet_v2.model`.

        Raises WeightsError if one does not fit.
        """
        with torch.device("meta"):
            networks = cls(S3FD(), SyncNet())
        names = networks.syncnet.state_dict()
        counts = {name: torch.zeros(()) for name in names if name.endswith("num_batches_tracked")}
        load_strict(networks.detector, detector, "S3FD")
        load_strict(networks.syncnet, {**counts, **syncnet}, "SyncNet")  # old files lack the counts
        networks.detector.eval().to(device)
        networks.syncnet.eval().to(device)
        return networks


@dataclass(frozen=True, slots=True)
class Alignment:
    """Distances between video and sound over the tried shifts, and what follows from them."""

    distances: NDArray[np.float64]  # (n, 2 max_shift + 1)
    offset: int  # frames; positive when video frame i belongs to the sound of frame i - offset
    confidence: float  # Sync-C: median of the mean distances less their minimum
    min_distance: float  # Sync-D


def align_embeddings(video: Tensor, audio: Tensor, max_shift: int = MAX_SHIFT) -> Alignment:
    """Compare embeddings (n, D) of windows that begin at the same times.

    Outside the clip the sound's embedding is zero and counts, as released: short clips have other
    medians than long ones, so only equal cuts compare.
    """
    count = len(video)
    padded = torch.nn.functional.pad(audio, (0, 0, max_shift, max_shift))
    shifts = range(2 * max_shift + 1)
    gaps = [torch.norm(video - padded[k : k + count] + 1e-6, dim=1) for k in shifts]
    distances = torch.stack(gaps, dim=1).double().numpy()
    means = distances.mean(axis=0)
    best, median = int(means.argmin()), float(np.median(means))
    return Alignment(
        distances,
        offset=max_shift - best,
        confidence=median - float(means[best]),
        min_distance=float(means[best]),
    )


def align_crops(
    network: SyncNet, crops: Iterable[NDArray[np.uint8]], samples: NDArray[np.int16], length: int
) -> Alignment:
    """Compare `length` face crops at 25 fps with the 16 kHz wave that begins with them.

    As released the last whole window is left out: N frames give N - 5 windows.
    """
    num_frames = min(length, len(samples) // SAMPLES_PER_FRAME)
    windows = num_frames - WINDOW
    video = video_embeddings(network, islice(crops, num_frames - 1))
    return align_embeddings(video, audio_embeddings(network, samples)[:windows])


@dataclass(frozen=True, slots=True)
class SyncScore:
    """How well a clip's longest face track and its sound agree."""

    alignment: Alignment
    frames: range  # the clip's frames that the track covers
    coverage: float  # as a share of the clip


def sync_score(frames: Frames, wave: NDArray[np.float32], networks: SyncNetworks) -> SyncScore:
    """Score RGB frames (H, W, 3) at 25 fps against a 16 kHz wave (N,) in [-1, 1].

    `frames` is gone through twice: once for faces, once for the crops of the longest track. Give an
    object that decodes anew on each iteration; the frames of a bare iterator are kept in memory.

    Raises InputError with the reason: no face, too short, too small, too little sound.
    """
    if isinstance(frames, Iterator):
        frames = list(frames)
    detections: list[NDArray[np.float64]] = []
    shots: list[int] = []
    is_cut, shot = CutDetector(), 0
    remaining = iter(frames)
    while batch := list(islice(remaining, DETECTION_BATCH)):
        detections += detect_faces(networks.detector, batch)
        for frame in batch:
            shot += is_cut(frame)
            shots.append(shot)
    track = longest_track(link_tracks(detections, shots))
    length = len(track.boxes)
    samples = pcm16(wave)[track.start * SAMPLES_PER_FRAME :][: length * SAMPLES_PER_FRAME]
    heard = len(samples) // SAMPLES_PER_FRAME
    if heard <= MIN_TRACK:
        raise InputError(f"the face is heard for {heard} frames only, {MIN_TRACK + 1} are needed")
    alignment = align_crops(networks.syncnet, face_crops(frames, track), samples, length)
    scored = range(track.start, track.start + length)
    return SyncScore(alignment, scored, length / len(detections))


def pcm16(wave: NDArray[np.float32]) -> NDArray[np.int16]:
    """A wave in [-1, 1] as the 16-bit samples it was read from."""
    return np.clip(np.rint(wave * 32768), -32768, 32767).astype(np.int16)
