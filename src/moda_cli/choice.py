"""What `auto` comes to: the device, its precision, the model and its renderer."""

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch

from moda_cli import components
from moda_cli.config import ModelConfig
from moda_cli.errors import DeviceError, UsageError
from moda_cli.generator.model import MODEL_FILES, read_config
from moda_cli.weights import store

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "assets" / "mini"


def resolve_device(name: str) -> torch.device:
    """The device `--device` names; auto is CUDA, else the CPU. On CUDA, float32 is not TF32.

    Raises DeviceError where it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if not re.fullmatch(r"(cpu|mps|cuda)(:\d+)?", name):
            raise RuntimeError("it is not cpu, cuda, cuda:N or mps")
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise DeviceError(
            f"device {name!r} cannot be used: {reason}", hint="try --device cpu"
        ) from None
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # 10 bits of mantissa, in convolutions only
    return torch.device("cpu") if device.type == "cpu" else device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The precision `--dtype` names; auto is the release's float16 on CUDA, else float32.

    Raises UsageError for float16 where torch takes minutes a frame for it.
    """
    if name == "auto":
        name = "float16" if device.type == "cuda" else "float32"
    if name == "float16" and device.type == "cpu":
        raise UsageError("float16 takes minutes a frame on a CPU", hint="use bfloat16 or float32")
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def use_threads(count: int) -> None:
    """Let torch and OpenCV take this many threads of the CPU in this process."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


@contextmanager
def enough_memory(device: torch.device) -> Iterator[None]:
    """Out of memory as an error a user can act on. Raises DeviceError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"{device} is out of memory: {reason}",
            hint="close other programs on it, or use --device cpu",
        ) from error


@dataclass(frozen=True, slots=True)
class Choice:
    """A model and a renderer."""

    model: str  # mini, moda, or a directory written by training
    renderer: str  # rig or liveportrait
    config: ModelConfig  # of the model's network

    @property
    def directory(self) -> Path:
        """Where a model lies that is not a downloaded component."""
        return BUNDLED if self.model == "mini" else Path(self.model)

    @property
    def components(self) -> tuple[str, ...]:
        """All that is to be downloaded for it."""
        own = (components.MODA,) if self.model == "moda" else ()
        return (*own, *components.needed(self.config, self.renderer))

    def described(self) -> dict[str, str]:
        """What is said of the model beside a result, with one hash over all files that are loaded.

        The components must be there.
        """
        own = [] if self.model == "moda" else [self.directory / file for file in MODEL_FILES]
        lock = store.read_lock()
        fetched = [lock[name].path_sha256 for name in self.components]
        sums = " ".join([self.renderer, *map(store.sha256_of, own), *fetched])
        digest = hashlib.sha256(sums.encode()).hexdigest()
        return {"model": self.model, "model_sha256": digest, "renderer": self.renderer}


def choose(model: str, renderer: str, device: torch.device) -> Choice:
    """`auto` is `moda` on CUDA where its weights are there, else `mini`; and what belongs to it.

    Raises WeightsError for a directory without a model.
    """
    if model == "auto":
        official = choose("moda", renderer, device) if device.type == "cuda" else None
        if official and not components.missing(official.components):
            return official
        if official:
            log.info("`moda download` fetches the official weights")
        model = "mini"
    config = components.moda_config() if model == "moda" else None
    config = config or read_config(BUNDLED if model == "mini" else Path(model))
    if renderer == "auto":
        renderer = "liveportrait" if config.source == "extracted" else "rig"
    return Choice(model, renderer, config)
