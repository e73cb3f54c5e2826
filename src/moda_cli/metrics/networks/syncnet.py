"""SyncNet (Chung and Zisserman, 2016): embeddings of a face's motion and of a sound.

Follows the released code (joonson/syncnet_python).
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moda_cli.metrics.networks.mfcc import mfcc

WINDOW = 5  # frames that one embedding sees
AUDIO_COLUMNS = 20  # columns of MFCC it hears, four per frame
VIDEO_BATCH = 16  # windows at a time: 0.3 GB of activations
AUDIO_BATCH = 64


def convolution(
    in_dim: int,
    out_dim: int,
    kernel: tuple[int, int] | tuple[int, int, int],
    padding: int = 0,
    stride: int = 1,
) -> list[nn.Module]:
    """Convolution, batch norm, ReLU; the kernel is (rows, columns) or (frames, rows, columns)."""
    if len(kernel) == 2:
        conv: nn.Module = nn.Conv2d(in_dim, out_dim, kernel, stride, padding)
        return [conv, nn.BatchNorm2d(out_dim), nn.ReLU(inplace=True)]
    conv = nn.Conv3d(in_dim, out_dim, kernel, (1, stride, stride), (0, padding, padding))
    return [conv, nn.BatchNorm3d(out_dim), nn.ReLU(inplace=True)]


def embedding_head() -> nn.Sequential:
    """(B, 512) -> (B, 1024), not normalised."""
    return nn.Sequential(
        nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 1024)
    )


class SyncNet(nn.Module):
    """Modules carry the checkpoint's names, so that its file loads as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(  # (B, 1, 13, 20) -> (B, 512, 1, 1)
            *convolution(1, 64, (3, 3), padding=1),
            nn.Identity(),  # the release pools 1x1 here; it keeps the numbering
            *convolution(64, 192, (3, 3), padding=1),
            nn.MaxPool2d(3, (1, 2)),
            *convolution(192, 384, (3, 3), padding=1),
            *convolution(384, 256, (3, 3), padding=1),
            *convolution(256, 256, (3, 3), padding=1),
            nn.MaxPool2d(3, 2),
            *convolution(256, 512, (5, 4)),
        )
        self.netcnnlip = nn.Sequential(  # (B, 3, T, 224, 224) -> (B, 512, T - 4, 1, 1)
            *convolution(3, 96, (WINDOW, 7, 7), stride=2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *convolution(96, 256, (1, 5, 5), padding=1, stride=2),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *convolution(256, 256, (1, 3, 3), padding=1),
            *convolution(256, 256, (1, 3, 3), padding=1),
            *convolution(256, 256, (1, 3, 3), padding=1),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *convolution(256, 512, (1, 6, 6)),
        )
        self.netfcaud = embedding_head()
        self.netfclip = embedding_head()

    def embed_audio(self, columns: Tensor) -> Tensor:
        """columns: MFCC windows (B, 1, 13, 20) -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(columns).flatten(1))  # type: ignore[no-any-return]

    def embed_video(self, frames: Tensor) -> Tensor:
        """frames: (T, 3, 224, 224) **BGR, 0 to 255** -> (T - 4, 1024), one row per 5 frames.

        Only the first convolution spans frames, so a run of windows costs no frame twice.
        """
        features = self.netcnnlip(frames.transpose(0, 1)[None])[0, :, :, 0, 0]
        return self.netfclip(features.T)  # type: ignore[no-any-return]


@torch.inference_mode()
def audio_embeddings(network: SyncNet, samples: NDArray[np.int16]) -> Tensor:
    """(n, 1024) of a 16 kHz wave, one row per video frame whose 0.2 s of sound are whole."""
    device = next(network.parameters()).device
    columns = torch.from_numpy(mfcc(samples)).float().T  # (13, F)
    windows = columns.unfold(1, AUDIO_COLUMNS, 4).transpose(0, 1)[:, None]  # (n, 1, 13, 20)
    batches = windows.split(AUDIO_BATCH)
    return torch.cat([network.embed_audio(batch.to(device)).cpu() for batch in batches])


@torch.inference_mode()
def video_embeddings(network: SyncNet, crops: Iterable[NDArray[np.uint8]]) -> Tensor:
    """(T - 4, 1024) of T >= 5 RGB face crops (224, 224, 3), taken a few at a time."""
    device = next(network.parameters()).device
    return torch.cat(
        [
            network.embed_video(
                torch.from_numpy(np.stack(run)).to(device).flip(-1).permute(0, 3, 1, 2).float()
            ).cpu()
            for run in overlapping_runs(crops)
        ]
    )


def overlapping_runs(crops: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    """Runs of at most 16 windows that share 4 frames with the one before."""
    crops = iter(crops)
    run = list(islice(crops, WINDOW - 1))
    while more := list(islice(crops, VIDEO_BATCH)):
        run += more
        yield run
        run = run[1 - WINDOW :]
