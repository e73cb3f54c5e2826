"""LivePortrait's driving templates: pickles of what its motion extractor saw in a video.

They are read without running anything. A pickle may name any function to be called: only the names
of numpy's arrays and numbers are admitted, and what stands for them here is our own.
"""

import io
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.errors import InputError
from moda_cli.files import check_is_file

LARGEST = 256e6  # bytes; an hour of video is 90 MB
MOST_FRAMES = 1_000_000
HINT = "a driving template is a .pkl that LivePortrait writes beside a driving video"
SHAPES = {"exp": (21, 3), "scale": (1,), "t": (3,), "R": (3, 3)}
OLD_NAMES = {"R": "R_d"}  # of LivePortrait's first release
KINDS = "biuf"  # of the arrays that are admitted: numbers


class _Refused(Exception):
    """A pickle asks for more than plain data."""


class _Dtype:
    """A kind of numbers, in the place of numpy's, whose own state could be a structure's."""

    def __init__(self, name: Any, *_: Any) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in KINDS:
            raise _Refused(f"an array of {name}")

    def __setstate__(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])

    def array(self, data: Any, shape: Any, fortran: Any = False) -> NDArray[Any]:
        """Numbers in bytes, of which there must be as many as the shape says."""
        if not isinstance(data, bytes):
            raise _Refused("an array without bytes")
        flat = np.frombuffer(data, self.dtype)
        return flat.reshape(shape, order="F" if fortran in (True, "F") else "C")


class _Array:
    """An array, in the place of numpy's own."""

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.values = dtype.array(data, shape, fortran)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> _Array:
    made = _Array()
    made.values = dtype.array(data, shape, order)
    return made


def _scalar(dtype: Any, data: Any) -> Any:
    return dtype.array(data, ()).item()


def _encoded(text: Any, coding: Any) -> bytes:
    """What protocols below 3 write bytes as."""
    if not isinstance(text, str) or coding != "latin1":
        raise _Refused("_codecs.encode")
    return text.encode("latin1")


class _Type:
    """Stands for a type that is named only as an argument; nothing can be made of it."""


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Type,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,
    **{
        (f"numpy.{core}.{module}", name): made
        for core in ("core", "_core")
        for module, name, made in (
            ("multiarray", "_reconstruct", _Array),
            ("multiarray", "scalar", _scalar),
            ("numeric", "_frombuffer", _from_buffer),
        )
    },
}


class _Unpickler(pickle._Unpickler):
    """Builds dicts, lists, tuples, texts, numbers and arrays of numbers, and no more.

    It is the one in Python: a pickle of a few bytes can make the one in C fill the memory.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in pickle.NEXT_BUFFER
    }

    def load_build(self) -> None:
        """State is given to what stands for numpy's things, never to a class or a function."""
        owner = self.stack[-2]  # type: ignore[attr-defined]
        if not isinstance(owner, _Dtype | _Array):
            raise _Refused(f"a state of {str(owner)[:60]}")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        """Bytes that are there: room for as many as it says is not made beforehand."""
        (size,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        self.append(bytes(self.read(min(size, int(LARGEST)))))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        """Called for every name in the stream. Raises _Refused for what is not admitted."""
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def get_extension(self, code: int) -> None:
        """Names that a process has registered under a number."""
        raise _Refused(f"the extension {code}")

    def persistent_load(self, pid: Any) -> Any:
        """Nothing lies outside the file."""
        raise _Refused("an object outside the file")


def read_template(path: Path) -> tuple[Tensor, float]:
    """Motion (T, 70) of a driving template, translation z 0, angles in degrees, and its rate.

    With M the transpose of a frame's rotation R, yaw is asin(-M20), pitch atan2(M21, M22) and roll
    atan2(M10, M00), which is how LivePortrait makes R. Raises InputError for what is none, and for
    a pickle that asks for anything but plain data, by its name.
    """
    check_is_file(path, largest=LARGEST)
    try:
        template = _Unpickler(io.BytesIO(path.read_bytes())).load()
    except _Refused as refused:
        reason = f"{path} is refused: it asks for {refused}, which no driving template needs"
        raise InputError(reason, hint=HINT) from None
    except Exception as error:  # damaged pickles fail in every way
        raise InputError(
            f"cannot read {path}: {error or type(error).__name__}", hint=HINT
        ) from None
    try:
        frames, rate = template["motion"], float(template.get("output_fps", 25))
        if not isinstance(frames, list) or not 0 < len(frames) <= MOST_FRAMES:
            raise ValueError("its motion is no list of frames")
        parts = {name: np.stack([_part(frame, name) for frame in frames]) for name in SHAPES}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        said = f"there is no {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(f"{path} is no driving template: {said}", hint=HINT) from None
    turned = parts["R"].swapaxes(1, 2)
    yaw = np.arcsin(np.clip(-turned[:, 2, 0], -1, 1))
    pitch = np.arctan2(turned[:, 2, 1], turned[:, 2, 2])
    roll = np.arctan2(turned[:, 1, 0], turned[:, 0, 0])
    moved = parts["t"] * np.array([1.0, 1, 0])
    angles = np.degrees(np.stack([pitch, yaw, roll], axis=1))
    expression = parts["exp"].reshape(len(frames), 63)
    rows = np.concatenate([expression, parts["scale"], moved, angles], axis=1)
    return torch.from_numpy(rows.astype(np.float32)), rate


def _part(frame: Any, name: str) -> NDArray[np.float64]:
    """One field of a frame, without the leading axes of a batch. Raises KeyError, ValueError."""
    if not isinstance(frame, dict):
        raise ValueError("a frame is no dictionary")
    old = OLD_NAMES.get(name, name)
    found, shape = frame[name] if name in frame else frame[old], SHAPES[name]
    if not isinstance(found, _Array | float | int):
        raise ValueError(f"{name} of a frame is no array of numbers")
    values = np.asarray(found.values if isinstance(found, _Array) else found, np.float64)
    if values.size != np.prod(shape):
        raise ValueError(f"{name} of a frame is {values.shape}, not {shape}")
    return values.reshape(shape)
