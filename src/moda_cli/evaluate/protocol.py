"""What an evaluation leaves to choose, named in its results."""

from dataclasses import dataclass, field
from typing import Literal

from moda_cli.config import FPS, SAMPLE_RATE
from moda_cli.metrics.fvd import FvdNetwork, FvdProtocol

SIDE = 512  # pixels, of every measured frame
PREPARATION = 3  # changes when the same file would be prepared otherwise

Fit = Literal["centre", "stretch"]


@dataclass(frozen=True, slots=True)
class Protocol:
    """How clips are prepared and compared. Both sides are treated alike."""

    fit: Fit = "centre"  # the largest centred square, or the whole frame squeezed into one
    resample: bool = False  # take generated clips that are not at 25 fps
    encode_reference: bool = True  # through the encoder of generated clips: else it is measured
    fvd: FvdProtocol = field(default_factory=FvdProtocol)
    fvd_network: FvdNetwork = "i3d_torchscript"
    bootstrap: int = 1000  # resamples of the clips, for means
    bootstrap_distances: int = 100  # for FID and FVD, which cost more
    seed: int = 0  # of the bootstrap

    def described(self) -> dict[str, str | int]:
        """For people who compare results: every choice by its name."""
        return {
            "preparation": PREPARATION,
            "frames": f"{SIDE}x{SIDE} RGB, {FPS} fps, fit {self.fit}, cut to the shorter side",
            "sound": f"mono, {SAMPLE_RATE} Hz, 16 bit",
            "generated rate": "resampled" if self.resample else "25 fps only",
            "reference encoding": "h264 crf 20" if self.encode_reference else "as saved",
            "fid": "pytorch-fid features of all frames, covariance over n-1, exact trace",
            "fvd": f"{self.fvd_network}, cut {self.fvd.cut}, resize {self.fvd.resize}, n-1",
            "f_sim": "ArcFace w600k_r50, largest SCRFD face, every frame against the reference",
            "sync": "S3FD, longest track of more than 50 frames, SyncNet, shifts of 15 frames",
            "smoothness": "VBench motion smoothness, AMT-S, raw score",
            "bootstrap": f"95 %, percentiles, {self.bootstrap} resamples of clips for means,"
            f" {self.bootstrap_distances} for FID and FVD",
        }
