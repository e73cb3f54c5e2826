"""The renderer with LivePortrait's networks: motion to frames of one portrait."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from moda_cli.errors import DeviceError
from moda_cli.media.pictures import Picture
from moda_cli.motion import EXPRESSION, Source, encode_gaze
from moda_cli.render.liveportrait.engine import Engine
from moda_cli.render.liveportrait.keypoints import (
    Retargeting,
    drive_absolute,
    drive_relative,
    source_keypoints,
)
from moda_cli.render.liveportrait.networks import Networks
from moda_cli.render.liveportrait.paste import PasteBack, TensorPaste
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork
from moda_cli.weights import store
from moda_cli.weights.load import Network, load_network
from moda_cli.weights.renames import liveportrait

log = logging.getLogger(__name__)

RENDERER = ("warping", "spade", "stitching")  # components
FRAME_BYTES = 600e6  # of memory that a frame in flight takes in float32, half of it in 16 bits
MAX_BATCH = 16  # frames; divides the windows of the motion generator, and more are not faster


def fitting_batch(device: torch.device, dtype: torch.dtype) -> int:
    """Frames to draw at once: a power of two that fits half of a GPU's free memory; 1 on a CPU."""
    if device.type != "cuda":
        return 1  # as fast as more, and the first frame comes sooner
    free, _ = torch.cuda.mem_get_info(device)
    # what torch has taken and does not use, say for the clip before, is free too
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fit = int(free / 2 / (FRAME_BYTES * dtype.itemsize / 4))
    return max(1, min(MAX_BATCH, 1 << max(0, fit.bit_length() - 1)))


class LivePortrait:
    """Animates one portrait; every frame depends on its motion row alone.

    source, feature_volume: what face/extractors.py says of its crop. paste: puts a 512 x 512 crop
    back where it belongs. neutral: (70) motion at which a frame equals the portrait; without it
    poses and faces are taken as they are, the release's absolute mode. batch_size: frames drawn at
    once, by default what fits; halved where memory runs out.
    """

    def __init__(
        self,
        networks: Networks | Engine,
        source: Source,
        feature_volume: Tensor,
        paste: Callable[[Picture], Picture],
        neutral: Tensor | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._networks, self._source, self._neutral = networks, source, neutral
        self._batch_size = batch_size or fitting_batch(networks.device, networks.dtype)
        self._kp_source = source_keypoints(source)[None].to(networks.device)
        with torch.inference_mode():
            self._warp_source = networks.prepare(feature_volume, self._kp_source)
        self._on_gpu = networks.device.type == "cuda"
        self._leaving = torch.cuda.Stream(networks.device) if self._on_gpu else None
        self._paste: Callable[[Picture], Picture] | None = paste
        self._paste_there: Callable[[Tensor], Tensor] | None = None
        if self._on_gpu and isinstance(paste, PasteBack):
            self._paste, self._paste_there = None, TensorPaste(paste, networks.device)

    def render(self, motion: Tensor, gaze: Tensor | None = None) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), in order.

        gaze: (T, 2), see `Renderer`. On a GPU the next batch is drawn while the frames of one are
        used.
        """
        if gaze is not None:
            motion = motion.clone()
            motion[:, EXPRESSION] += encode_gaze(gaze).to(motion)
        drawn: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()
        for batch in self._batches(motion.float()):
            drawn.append(batch)
            if len(drawn) > int(self._on_gpu):
                yield from self._frames(*drawn.popleft())
        while drawn:
            yield from self._frames(*drawn.popleft())

    def _frames(self, pixels: Tensor, ready: torch.cuda.Event | None) -> Iterator[Picture]:
        if ready:
            ready.synchronize()
        for frame in pixels.numpy():
            yield self._paste(frame) if self._paste else frame

    def _batches(self, motion: Tensor) -> Iterator[tuple[Tensor, torch.cuda.Event | None]]:
        """Yield frames or crops (B, H, W, 3) uint8 on the CPU, complete after their event."""
        done = 0
        while done < len(motion):
            rows = motion[done : done + self._batch_size]
            try:
                batch = self._crops(rows)
            except torch.OutOfMemoryError:
                batch = None  # tried again outside, where nothing holds the memory of this try
            if batch is not None:
                done += len(rows)
                yield batch
            elif self._batch_size == 1:
                raise DeviceError(
                    f"{self._networks.device} has too little free memory to draw one frame",
                    hint="end other programs on it, or pass --device cpu",
                )
            else:
                self._batch_size //= 2
                log.warning("out of memory: drawing %d frames at once", self._batch_size)
                if self._on_gpu:
                    torch.cuda.empty_cache()

    @torch.inference_mode()
    def _crops(self, motion: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        count = len(motion)
        if self._networks.fixed_batch:
            motion = torch.cat((motion, motion[-1:].expand(self._batch_size - count, -1)))
        if self._neutral is None:
            kp_driving = drive_absolute(self._source, motion)
        else:
            kp_driving = drive_relative(self._source, motion, self._neutral)
        if self._on_gpu:  # from pageable memory it would wait for the batch before
            kp_driving = kp_driving.pin_memory()
        kp_driving = kp_driving.to(self._networks.device, non_blocking=self._on_gpu)
        kp_driving = self._networks.retargeting.stitch(self._kp_source, kp_driving)
        pixels = self._networks.pixels(self._warp_source, kp_driving)[:count]
        if self._paste_there:
            pixels = self._paste_there(pixels)
        if self._leaving is None:
            return pixels.cpu(), None
        # Beside the next batch: a copy in the stream that draws would hold it up.
        self._leaving.wait_stream(torch.cuda.current_stream(pixels.device))
        pixels.record_stream(self._leaving)
        with torch.cuda.stream(self._leaving):
            ready = torch.cuda.Event()
            pixels = pixels.to("cpu", non_blocking=True)  # into pinned memory, of its own
            ready.record()
        return pixels, ready


def load_renderer(device: torch.device, dtype: torch.dtype, compiled: bool) -> Engine:
    """S, W and G; compiled, what torch makes of them is kept with the weights.

    Raises WeightsError where one is missing, damaged or of another shape.
    """

    def load(name: str, build: Callable[..., Network], table: liveportrait.Table) -> Network:
        state_of = partial(liveportrait.liveportrait_state, table=table)
        return load_network(name, build, state_of, device)

    networks = Networks(
        load("stitching", Retargeting, liveportrait.RETARGETING),
        load("warping", WarpingNetwork, liveportrait.WARPING),
        load("spade", SpadeGenerator, liveportrait.GENERATOR),
        dtype,
    )
    return Engine(networks, compiled, store.cache_dir() / "inductor")
