"""What LivePortrait's F and M say of a crop, kept on disk: they look at each portrait once."""

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.errors import UsageError
from moda_cli.face.extractors import Extractors
from moda_cli.files import atomic_write
from moda_cli.motion import Source

log = logging.getLogger(__name__)

KEPT = 32  # entries, 8.4 MB each: the most recently used


def extract_once(
    extractors: Extractors, crop: NDArray[np.uint8], folder: Path
) -> tuple[Tensor, Source]:
    """`extractors.extract(crop)`, from `folder` where these networks have seen the crop before.

    The key is what decides the result, the pixels of the crop, the networks and how they run: which
    file, face, background or detector led to the crop need not be known. A damaged entry is made
    anew, and a folder that cannot be written only costs time.
    """
    path = folder / f"{_key(extractors, crop)}.safetensors"
    kept = _read(path)
    if kept is None:
        volume, source = extractors.extract(crop)
        _write(path, [volume.cpu(), source.motion, source.kp_canonical])
        return volume, source
    volume, motion, kp_canonical = kept
    device = next(extractors.motion.parameters()).device
    return volume.to(device), Source(motion, kp_canonical)


def _key(extractors: Extractors, crop: NDArray[np.uint8]) -> str:
    """Weights count by the sums of their bits, a few ms where reading them again takes longer."""
    networks = (extractors.appearance, extractors.motion)
    weights = [weight for network in networks for weight in network.state_dict().values()]
    sums = torch.stack([weight.flatten().view(torch.int32).sum() for weight in weights]).tolist()
    how = (sums, extractors.dtype, weights[0].device.type, torch.__version__, crop.shape)
    return hashlib.sha256(repr(how).encode() + crop.tobytes()).hexdigest()


def _digest(tensors: Iterable[Tensor]) -> Tensor:
    """The sha256 of tensors on the CPU, uint8 (32)."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _read(path: Path) -> list[Tensor] | None:
    """feature_volume, motion and kp_canonical of an entry, None where it is not there whole."""
    try:
        entry = load_file(path)
        kept = [entry[name] for name in ("feature_volume", "motion", "kp_canonical")]
        if not torch.equal(_digest(kept), entry["sha256"]):
            raise ValueError("its sum is wrong")
        path.touch()
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.debug("%s is not used: %s", path, error)
        return None
    log.debug("the portrait was seen before: %s", path)
    return kept


def _write(path: Path, tensors: list[Tensor]) -> None:
    """Keep an entry and let go of the oldest, where that can be done."""
    entry = dict(zip(("feature_volume", "motion", "kp_canonical"), tensors, strict=True))
    entry = {name: tensor.contiguous() for name, tensor in entry.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file({**entry, "sha256": _digest(tensors)}, temporary)
        for old in sorted(path.parent.iterdir(), key=lambda file: -file.stat().st_mtime)[KEPT:]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError, UsageError) as error:
        log.debug("%s is not kept: %s", path, error)
