"""Work recorded once on a GPU and replayed: one launch where there were hundreds from Python."""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Function = Callable[..., Tensor]
Shapes = tuple[tuple[torch.Size, torch.dtype], ...]


def recorded(function: Function, device: torch.device) -> Function:
    """`function`, which works on `device`, as `Recorded` where that is a GPU, else itself."""
    return Recorded(function, device) if device.type == "cuda" else function


class Recorded:
    """A function of tensors, recorded as a CUDA graph for each shape of its inputs that it meets.

    Inputs are tensors on that device, or dataclasses whose fields are all such. They are copied
    into the graph's own, and its output is copied out. Threads and streams take turns. Where
    recording fails, the function is called as it is from then on, and the log says so; out of
    memory is the caller's to handle. Whatever else the function reads, weights or tables that are
    kept, must stay where it was at its first call.
    """

    def __init__(self, function: Function, device: torch.device) -> None:
        self._function, self._device = function, device
        self._graphs: dict[Shapes, Graph] | None = {}  # None: it cannot be recorded
        # one of each for all shapes: graphs that never run at once share their memory
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        self._turn, self._last = threading.Lock(), torch.cuda.Event()

    @torch.inference_mode()
    def __call__(self, *inputs: Any) -> Tensor:
        shapes = tuple((x.shape, x.dtype) for given in inputs for x in tensors_of(given))
        with self._turn:
            if self._graphs is not None and shapes not in self._graphs:
                self._record(shapes, inputs)
            if self._graphs is None:
                return self._function(*inputs)
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(self._last)  # the call before may have been on another
            made = self._graphs[shapes](*inputs)
            self._last.record(stream)
            return made

    def _record(self, shapes: Shapes, inputs: Sequence[Any]) -> None:
        assert self._graphs is not None
        try:
            with torch.cuda.device(self._device):
                self._graphs[shapes] = Graph(self._function, inputs, self._stream, self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            log.warning("%s launches one kernel at a time, which is slow: %s", self._device, reason)
            self._graphs = None


class Graph:
    """One recorded run of a function on `stream`. The example's values are not kept."""

    _recording = threading.Lock()  # a second recording would break the first, on any stream

    def __init__(
        self, function: Function, example: Sequence[Any], stream: torch.cuda.Stream, pool: Any
    ) -> None:
        self._inputs = [
            given.clone() if isinstance(given, Tensor) else replace(given, **_clones(given))
            for given in example
        ]
        self._graph = torch.cuda.CUDAGraph()
        with self._recording:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                function(*self._inputs)  # loads kernels and fills caches, which cannot be recorded
            # other threads go on launching while this one records
            with torch.cuda.graph(
                self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"
            ):
                self._output = function(*self._inputs)

    def __call__(self, *inputs: Any) -> Tensor:
        for own, given in zip(self._inputs, inputs, strict=True):
            for buffer, x in zip(tensors_of(own), tensors_of(given), strict=True):
                buffer.copy_(x)
        self._graph.replay()
        return self._output.clone()


def tensors_of(given: Any) -> list[Tensor]:
    """A tensor, or those of a dataclass in the order of its fields."""
    if isinstance(given, Tensor):
        return [given]
    return [getattr(given, field.name) for field in fields(given)]


def _clones(given: Any) -> dict[str, Tensor]:
    return {field.name: getattr(given, field.name).clone() for field in fields(given)}
