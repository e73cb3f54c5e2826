"""What computes: the device, its precision, its memory, and the threads of the CPU."""

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2
import torch

from moda_cli.errors import DeviceError, UsageError


def resolve_device(name: str) -> torch.device:
    """The device `--device` names; auto is CUDA, else the CPU.

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


def has_bf16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; one without it takes eight times as long as for
    float32, since torch emulates it.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def forbid_tf32() -> None:
    """Float32 on CUDA keeps its 23 bits of mantissa; torch lets convolutions have 10."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


_TF32 = threading.RLock()


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """Matrix products and convolutions of float32 on CUDA with 10 bits of mantissa, or all 23.

    It decides what is launched, and what a graph captured here will launch. The switch belongs to
    the process: another thread that wants it waits, and finds it as it was before.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    with _TF32:
        before = matmul.allow_tf32, cudnn.allow_tf32
        matmul.allow_tf32 = cudnn.allow_tf32 = enabled
        try:
            yield
        finally:
            matmul.allow_tf32, cudnn.allow_tf32 = before


def several_devices(device: str, gpus: str | None, each: int) -> list[str]:
    """The device of each process: `each` on every GPU listed, or else on the one device.

    gpus: `all`, or their numbers. Raises UsageError for other text, DeviceError for what is absent.
    """
    if gpus is None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if not (device.startswith("cuda") and torch.cuda.is_available()):
            resolve_device(device)
        return [device] * each
    count = torch.cuda.device_count()  # without a context, which would take memory here
    if gpus == "all":
        numbers = list(range(count))
    elif re.fullmatch(r"\d+(,\d+)*", gpus):
        numbers = sorted({int(number) for number in gpus.split(",")})
    else:
        raise UsageError(f"--gpus {gpus} names no GPUs", hint="write all, or numbers such as 0,2")
    absent = [number for number in numbers if number >= count]
    if absent or not numbers:
        which = ", ".join(map(str, absent)) or gpus
        raise DeviceError(f"there is no GPU {which}: {count} found", hint="try --device cpu")
    return [f"cuda:{number}" for number in numbers for _ in range(each)]


def device_name(device: torch.device) -> str:
    """What a reader of a figure calls it: the GPU's name, else cpu or mps."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def wake(device: torch.device) -> None:
    """Have a GPU's libraries loaded, which its first matrix product and convolution wait for."""
    if device.type == "cuda":
        x = torch.ones(1, 1, 8, 8, device=device)
        torch.conv2d(x @ x, x)


@contextmanager
def usable(
    device: torch.device,
    less_memory: str = "close other programs on it, or use --device cpu",
    uncompiled: str = "leave --compile out",
) -> Iterator[None]:
    """Out of memory, and what torch.compile cannot make, as errors a user can act on.

    A process that is killed while it compiles may leave half a kernel, over which all later ones
    stumble. The texts are hints. Raises DeviceError.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"{device} is out of memory: {reason}", hint=less_memory) from error
    except RuntimeError as error:
        compiler = sys.modules.get("torch._dynamo.exc")  # loaded where something is compiled
        if compiler is None or not isinstance(error, compiler.BackendCompilerFailed):
            raise
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        reason = str(error.inner_exception).strip().splitlines()[0]
        hint = f"{uncompiled}, or remove what a killed run may have half made: {cache_dir()}"
        raise DeviceError(f"torch cannot compile the networks: {reason}", hint=hint) from error


def usable_cores() -> int:
    """Cores that this process may run on, where the system says so."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """CPU threads that each of several processes should use; 0 for one alone, which takes all."""
    return 0 if processes == 1 else max(1, usable_cores() // processes)


def use_threads(count: int) -> None:
    """Let torch and OpenCV take this many threads of the CPU in this process."""
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


@contextmanager
def one_thread(*, opencv: bool) -> Iterator[None]:
    """Sums of floats depend on the number of threads, and results of a data set must not.

    opencv: its own threads too, where its networks' sums are among the results.
    """
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    if opencv:
        cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        if opencv:
            cv2.setNumThreads(before[1])


def keep_compiled(folder: Path) -> None:
    """Have torch.compile and Triton keep what they make: only the first process waits for it."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder))


Item = TypeVar("Item")


def on_stream(items: Iterator[Item], stream: torch.cuda.Stream) -> Iterator[Item]:
    """The same items, which hold nothing on the GPU, each made on this stream.

    What was launched elsewhere before the first is waited for.
    """
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    while True:
        with torch.cuda.stream(stream):
            item = next(items, None)
        if item is None:
            return
        yield item
