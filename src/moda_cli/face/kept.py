"""What the networks say of portraits and videos, kept on disk: they look at each once."""

import hashlib
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moda_cli.errors import UsageError
from moda_cli.face import mesh
from moda_cli.face.candidates import Candidate, find_candidates
from moda_cli.face.extractors import Extractors
from moda_cli.face.mesh import Mesh
from moda_cli.files import atomic_write, one_at_a_time, sha256_of
from moda_cli.media.pictures import Picture
from moda_cli.motion import Source

log = logging.getLogger(__name__)

KEPT = 32  # entries of the extractors, 8.4 MB each: the most recently used
FACES_KEPT = 500  # entries of 12 kB a face
VIDEOS_KEPT = 100  # entries of 7 kB a second

Entry = dict[str, Tensor]


def extract_once(
    extractors: Extractors, crop: NDArray[np.uint8], folder: Path
) -> tuple[Tensor, Source]:
    """`extractors.extract(crop)`, from `folder` where these networks have seen the crop before.

    The key is what decides the result, the pixels of the crop, the networks and how they run: which
    file, face, background or detector led to the crop need not be known. A damaged entry is made
    anew, and a folder that cannot be written only costs time.
    """

    def extract() -> Entry:
        volume, source = extractors.extract(crop)
        seen = {"motion": source.motion, "kp_canonical": source.kp_canonical}
        return {"feature_volume": volume.cpu(), **seen}

    entry = _once(folder, _networks_key(extractors, crop), extract, KEPT)
    device = next(extractors.motion.parameters()).device
    source = Source(entry["motion"], entry["kp_canonical"])
    return entry["feature_volume"].to(device), source


def motion_once(
    path: Path, extractors: Extractors | None, watch: Callable[[], Entry], folder: Path
) -> Entry:
    """What `watch()` sees in a video, from `folder` / videos where it was looked at before.

    extractors: what looks at it beside the mesh. The key is the video's bytes, the networks and the
    code of this package; else as `extract_once`.
    """
    networks = _sums(extractors) if extractors else "mesh"
    how = repr((networks, sha256_of(path), _face_code(), torch.__version__))
    key = hashlib.sha256(how.encode()).hexdigest()
    return _once(folder / "videos", key, watch, VIDEOS_KEPT)


def candidates_once(picture: Picture, folder: Path) -> list[Candidate]:
    """`find_candidates(picture)`, from `folder` / faces where the picture was searched before.

    The key is its pixels, the networks' files and the code of this package; else as `extract_once`.
    """

    def search() -> Entry:
        found = find_candidates(picture)
        meshes = [each.mesh for each in found]
        measures = [(each.score, each.mesh.flag, each.mesh.distance) for each in found]
        return {
            "points": torch.from_numpy(np.array([m.points for m in meshes]).reshape(-1, 478, 3)),
            "measures": torch.tensor(measures, dtype=torch.float64).reshape(-1, 3),
        }

    key = _sum_of(repr((_face_code(), torch.__version__, picture.shape)), picture)
    entry = _once(folder / "faces", key, search, FACES_KEPT)
    rows = zip(entry["points"].numpy(), entry["measures"].tolist(), strict=True)
    return [
        Candidate(Mesh(points, flag, distance), score) for points, (score, flag, distance) in rows
    ]


def _sum_of(how: str, pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(how.encode() + pixels.tobytes()).hexdigest()


def _networks_key(extractors: Extractors, crop: NDArray[np.uint8]) -> str:
    return _sum_of(repr((_sums(extractors), torch.__version__, crop.shape)), crop)


def _sums(extractors: Extractors) -> tuple[object, ...]:
    """What tells networks and how they run from others.

    Weights count by the sums of their bits, a few ms where reading them again takes longer.
    """
    networks = (extractors.appearance, extractors.motion)
    weights = [weight for network in networks for weight in network.state_dict().values()]
    sums = torch.stack([weight.flatten().view(torch.int32).sum() for weight in weights]).tolist()
    return sums, extractors.dtype, weights[0].device.type


@cache
def _face_code() -> str:
    """The sum of what finds faces: the files of the networks and the modules beside this one."""
    files = [*mesh.FOLDER.glob("*.safetensors"), *Path(__file__).parent.glob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _once(folder: Path, key: str, make: Callable[[], Entry], most: int) -> Entry:
    """The entry of a key, made where it is not there whole; processes that ask for it too wait."""
    path = folder / f"{key}.safetensors"
    if entry := _read(path):
        return entry
    with one_at_a_time(folder / "lock", key):
        if entry := _read(path):
            return entry
        entry = {name: tensor.contiguous() for name, tensor in make().items()}
        _write(path, entry, most)
    return entry


def _digest(entry: Entry) -> Tensor:
    """The sha256 of tensors on the CPU, uint8 (32)."""
    digest = hashlib.sha256()
    for name in sorted(entry):
        digest.update(entry[name].numpy().tobytes())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)


def _read(path: Path) -> Entry | None:
    """An entry, None where it is not there whole."""
    try:
        entry = load_file(path)
        said = entry.pop("sha256")
        if not torch.equal(_digest(entry), said):
            raise ValueError("its sum is wrong")
        path.touch()
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        log.debug("%s is not used: %s", path, error)
        return None
    log.debug("it was seen before: %s", path)
    return entry


def _write(path: Path, entry: Entry, most: int) -> None:
    """Keep an entry and let go of the oldest but `most`, where that can be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file({**entry, "sha256": _digest(entry)}, temporary)
        kept = path.parent.glob("*.safetensors")
        for old in sorted(kept, key=lambda file: -file.stat().st_mtime)[most:]:
            old.unlink(missing_ok=True)
    except (OSError, SafetensorError, UsageError) as error:
        log.debug("%s is not kept: %s", path, error)
