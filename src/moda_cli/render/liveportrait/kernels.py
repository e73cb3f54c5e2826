"""What stands between the engine's convolutions, as Triton kernels; `fused` says what each is.

Maps are channels last: a row of channels for each pixel. A kernel reads and writes every value
once, computes in float32 and rounds at the end. This module is imported where Triton is.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from moda_cli.render.liveportrait.warp import PRECISION

TILE = 4096  # values that a program works on at once
CHUNK = 1024  # pixels of which a program sums the statistics


def last(x: Tensor) -> Tensor:
    """The map as convolutions leave it, some channels of one, or else a copy in that order."""
    form = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return x if x.stride(1) == 1 else x.contiguous(memory_format=form)


def tiles(pixels: int, channels: int) -> tuple[int, int, int]:
    """Programs for a map, and the pixels and channels of each."""
    wide = min(64, triton.next_power_of_2(channels))
    tall = TILE // wide
    return triton.cdiv(pixels, tall) * triton.cdiv(channels, wide), tall, wide


@triton.jit
def tile(pixels, channels, P: tl.constexpr, C: tl.constexpr):
    """This program's rows (P, 1) and columns (1, C), and which of them are there."""
    blocks = tl.cdiv(channels, C)
    row = (tl.program_id(0) // blocks * P + tl.arange(0, P))[:, None]
    column = (tl.program_id(0) % blocks * C + tl.arange(0, C))[None, :]
    return row, column, (row < pixels) & (column < channels)


@triton.jit
def leaky(x, slope):
    return tl.where(x >= 0, x, x * slope)


@triton.jit
def activate_kernel(
    x, bias, one, two, pixels, channels, one_row, two_row, slope, P: tl.constexpr, C: tl.constexpr
):
    row, column, there = tile(pixels, channels, P, C)
    row = row.to(tl.int64)
    at = x + row * channels + column
    value = tl.load(at, there, other=0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + column, column < channels, other=0).to(tl.float32)
    if one is not None:
        value += tl.load(one + row * one_row + column, there, other=0).to(tl.float32)
    if two is not None:
        value += tl.load(two + row * two_row + column, there, other=0).to(tl.float32)
    tl.store(at, leaky(value, slope), there)


def activate(
    x: Tensor, bias: Tensor | None, *, slope: float, plus: Sequence[Tensor] = ()
) -> Tensor:
    """`fused.activate` in place, of up to two further maps."""
    x = last(x)
    one, two = (*map(last, plus), None, None)[:2]
    pixels, channels = x.numel() // x.shape[1], x.shape[1]
    programs, tall, wide = tiles(pixels, channels)
    rows = [0 if other is None else other.stride(-1) for other in (one, two)]
    activate_kernel[(programs,)](
        x, bias, one, two, pixels, channels, *rows, slope, P=tall, C=wide, num_warps=8
    )
    return x


@triton.jit
def copied_kernel(
    cells, bias, out, pixels, channels, part, height, width,
    F: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    row, column, there = tile(pixels, channels, P, C)
    source = row
    if F > 1:
        kinds: tl.constexpr = 2 if F == 2 else 3
        x, y = row % (F * width), row // (F * width)
        image, y = y // (F * height), y % (F * height)
        down = (y % F + F // 2 - 1) // (F // 2)
        right = (x % F + F // 2 - 1) // (F // 2)
        y, x = y // F + y % F // (F - 1), x // F + x % F // (F - 1)
        cell = (image * (height + 1) + y) * (width + 1) + x
        source = (cell * kinds + down) * kinds + right
    row, source = row.to(tl.int64), source.to(tl.int64)
    value = tl.load(cells + source * channels + column, there, other=0).to(tl.float32)
    if bias is not None:
        value += tl.load(bias + column, column < channels, other=0).to(tl.float32)
    to = out + (column // part * pixels + row) * part + column % part
    tl.store(to, tl.maximum(value, 0), there)


def copied(cells: Tensor, bias: Tensor | None, *, factor: int = 1, parts: int = 1) -> list[Tensor]:
    """`fused.copied`; each part is dense."""
    cells = last(cells)
    batch, kinds, *lead, height, width = cells.shape
    channels = kinds
    if factor > 1:
        channels //= 4 if factor == 2 else 9
        height, width = height - 1, width - 1
    shape = (batch, *lead, factor * height, factor * width, channels // parts)
    out = cells.new_empty((parts, *shape))
    pixels = out.numel() // channels
    programs, tall, wide = tiles(pixels, channels)
    copied_kernel[(programs,)](
        cells, bias, out, pixels, channels, channels // parts, height, width,
        F=factor, P=tall, C=wide, num_warps=8,
    )  # fmt: skip
    return [part.movedim(-1, 1) for part in out]


@triton.jit
def sums_kernel(x, sums, pixels, channels, CHUNK: tl.constexpr, P: tl.constexpr, C: tl.constexpr):
    image, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1)
    column = (tl.program_id(0) * C + tl.arange(0, C))[None, :]
    x += image * pixels * channels + column
    first = tl.load(x, column < channels, other=0).to(tl.float32)
    total = tl.zeros((P, C), tl.float32)
    squares = tl.zeros((P, C), tl.float32)
    for start in range(0, CHUNK, P):
        row = (chunk * CHUNK + start + tl.arange(0, P))[:, None]
        there = (row < pixels) & (column < channels)
        value = tl.load(x + row.to(tl.int64) * channels, there, other=0).to(tl.float32)
        value = tl.where(there, value - first, 0)
        total += value
        squares += value * value
    sums += (image * tl.num_programs(1) + chunk) * 2 * channels + column
    tl.store(sums, tl.sum(total, 0)[None, :], column < channels)
    tl.store(sums + channels, tl.sum(squares, 0)[None, :], column < channels)


@triton.jit
def statistics_kernel(
    x, sums, out, pixels, channels, chunks, eps, S: tl.constexpr, C: tl.constexpr
):
    image = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * C + tl.arange(0, C)
    chunk = tl.arange(0, S)[:, None]
    at = sums + (image * chunks + chunk) * 2 * channels + column[None, :]
    there = (chunk < chunks) & (column < channels)[None, :]
    away = tl.sum(tl.load(at, there, other=0), 0) / pixels
    square = tl.sum(tl.load(at + channels, there, other=0), 0) / pixels
    first = tl.load(x + image * pixels * channels + column, column < channels, other=0)
    out += image * channels + column
    tl.store(out, first.to(tl.float32) + away, column < channels)
    rsqrt = 1 / tl.sqrt(tl.maximum(square - away * away, 0) + eps)
    tl.store(out + tl.num_programs(1) * channels, rsqrt, column < channels)


def statistics(x: Tensor, eps: float) -> Tensor:
    """`fused.statistics`. Values are taken from the first pixel's, so that squares stay small."""
    x = last(x)
    batch, channels, height, width = x.shape
    pixels = height * width
    chunks = triton.cdiv(pixels, CHUNK)
    wide = min(64, triton.next_power_of_2(channels))
    blocks = triton.cdiv(channels, wide)
    sums = x.new_empty((batch, chunks, 2, channels), dtype=torch.float32)
    out = x.new_empty((2, batch, channels), dtype=torch.float32)
    sums_kernel[(blocks, chunks, batch)](
        x, sums, pixels, channels, CHUNK=CHUNK, P=min(CHUNK, TILE // wide), C=wide, num_warps=8
    )
    most = triton.next_power_of_2(chunks)
    statistics_kernel[(blocks, batch)](x, sums, out, pixels, channels, chunks, eps, S=most, C=wide)
    return out


@triton.jit
def modulate_kernel(
    x, statistics, scale, shift, bias, out, pixels, channels, row_scale, width, factor, slope,
    P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    row, column, there = tile(pixels, channels, P, C)
    image, known = tl.program_id(1).to(tl.int64), column < channels
    at = statistics + image * channels + column
    mean = tl.load(at, known, other=0)
    rsqrt = tl.load(at + tl.num_programs(1) * channels, known, other=0)
    source = row // width // factor * (width // factor) + row % width // factor
    source = source.to(tl.int64) + image * (pixels // factor // factor)
    value = tl.load(x + source * channels + column, there, other=0).to(tl.float32)
    row = row.to(tl.int64) + image * pixels
    by = tl.load(scale + row * row_scale + column, there, other=0).to(tl.float32)
    if bias is not None:
        by += tl.load(bias + column, known, other=0).to(tl.float32)
    value = (value - mean) * rsqrt * by
    if shift is not None:
        value += tl.load(shift + row * row_scale + column, there, other=0).to(tl.float32)
        if bias is not None:
            value += tl.load(bias + channels + column, known, other=0).to(tl.float32)
    tl.store(out + row * channels + column, leaky(value, slope), there)


def modulate(
    x: Tensor,
    statistics: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    bias: Tensor | None,
    slope: float,
) -> Tensor:
    """`fused.modulate`. Scale and shift are channels of one map."""
    x, scale = last(x), last(scale)
    shift = None if shift is None else last(shift)
    batch, channels, height, width = scale.shape
    out = x.new_empty((batch, height, width, channels))
    programs, tall, wide = tiles(height * width, channels)
    modulate_kernel[(programs, batch)](
        x, statistics, scale, shift, bias, out, height * width, channels, scale.stride(-1),
        width, width // x.shape[-1], slope, P=tall, C=wide, num_warps=8,
    )  # fmt: skip
    return out.movedim(-1, 1)


@triton.jit
def line(cell, size):
    """Where `torch.linspace(-1, 1, size)` has this cell."""
    return 2 * cell.to(tl.float32) / tl.maximum(size - 1, 1) - 1


@triton.jit
def corner(volume, x, y, z, X, Y, Z, stride, dx: tl.constexpr, dy: tl.constexpr, dz: tl.constexpr):
    """Weight and place of one of the eight cells around a position, and whether it exists."""
    left, top, front = tl.floor(x), tl.floor(y), tl.floor(z)
    share = (1 - tl.abs(x - left - dx)) * (1 - tl.abs(y - top - dy)) * (1 - tl.abs(z - front - dz))
    left, top, front = left + dx, top + dy, front + dz
    there = (left >= 0) & (left < X) & (top >= 0) & (top < Y) & (front >= 0) & (front < Z)
    cell = (front.to(tl.int32) * Y + top.to(tl.int32)) * X + left.to(tl.int32)
    return share, volume + tl.where(there, cell, 0) * stride, there


@triton.jit
def motion_map_kernel(
    compressed, kp_source, kp_driving, out, X, Y, Z, volume_step, kp_step, channels, precision,
    K: tl.constexpr, V: tl.constexpr, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    z, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = (tl.program_id(0) * P + tl.arange(0, P))[:, None]
    column = tl.arange(0, C)[None, :]
    inside = row < X * Y
    grid_x, grid_y, grid_z = line(row % X, X), line(row // X, Y), line(z, Z)
    # first the moved volumes field by field, then the heatmaps
    moved = column < (K + 1) * V
    heat = (column >= (K + 1) * V) & (column < (K + 1) * V + K)
    point = tl.where(moved, column // V - 1, column - (K + 1) * V)
    known = (moved | heat) & (point >= 0)  # the background stays
    old, new = kp_source + image * kp_step + 3 * point, kp_driving + image * 3 * K + 3 * point
    old_x, new_x = tl.load(old, known, other=0), tl.load(new, known, other=0)
    old_y, new_y = tl.load(old + 1, known, other=0), tl.load(new + 1, known, other=0)
    old_z, new_z = tl.load(old + 2, known, other=0), tl.load(new + 2, known, other=0)

    x, y, z_old = grid_x - old_x, grid_y - old_y, grid_z - old_z
    value = -tl.exp(-precision * (x * x + y * y + z_old * z_old))
    x, y, z_new = grid_x - new_x, grid_y - new_y, grid_z - new_z
    value += tl.exp(-precision * (x * x + y * y + z_new * z_new))
    value = tl.where(heat, value, 0)

    x = ((grid_x + old_x - new_x + 1) * X - 1) / 2
    y = ((grid_y + old_y - new_y + 1) * Y - 1) / 2
    z_at = ((grid_z + old_z - new_z + 1) * Z - 1) / 2
    volume = compressed + image * volume_step + column % V
    for dz in tl.static_range(2):
        for dy in tl.static_range(2):
            for dx in tl.static_range(2):
                share, at, there = corner(volume, x, y, z_at, X, Y, Z, V, dx, dy, dz)
                value += share * tl.load(at, there & moved & inside, other=0)
    to = out + ((image * Z + z) * X * Y + row) * channels + column
    tl.store(to, value, inside & (column < channels))


def motion_map(
    compressed: Tensor, kp_source: Tensor, kp_driving: Tensor, channels: int, dtype: torch.dtype
) -> Tensor:
    """`fused.motion_map`."""
    compressed = compressed.contiguous(memory_format=torch.channels_last_3d)
    kp_source, kp_driving = kp_source.contiguous(), kp_driving.contiguous()
    batch, num_kp = kp_driving.shape[:2]
    sources, parts, depth, height, width = compressed.shape
    step, kp_step = (0, 0) if sources == 1 else (compressed.stride(0), kp_source.stride(0))
    out = compressed.new_empty((batch, depth, height, width, channels), dtype=dtype)
    tall = 8
    motion_map_kernel[(triton.cdiv(height * width, tall), depth, batch)](
        compressed, kp_source, kp_driving, out, width, height, depth, step, kp_step, channels,
        PRECISION, K=num_kp, V=parts, P=tall, C=triton.next_power_of_2(channels), num_warps=8,
    )  # fmt: skip
    return out.movedim(-1, 1)


@triton.jit
def deformation_kernel(
    taps, bias, shift, out, X, Y, Z, stride,
    FIELDS: tl.constexpr, TAPS: tl.constexpr, P: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    z, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = (tl.program_id(0) * P + tl.arange(0, P))[:, None]
    field = tl.arange(0, K)[None, :]
    inside, known = row < X * Y, field < FIELDS
    bias_of = tl.load(bias + field, known, other=float("-inf"))
    logit = tl.broadcast_to(bias_of.to(tl.float32), (P, K))
    for tap in tl.static_range(TAPS):
        z_of = z + tap - TAPS // 2
        if (z_of >= 0) & (z_of < Z):  # nothing from beyond the ends
            at = taps + ((image * Z + z_of) * X * Y + row) * stride + tap * FIELDS + field
            logit += tl.load(at, inside & known, other=0).to(tl.float32)
    share = tl.exp(logit - tl.max(logit, 1)[:, None])
    share /= tl.sum(share, 1)[:, None]
    shift += (image * FIELDS + field) * 3
    out += ((image * Z + z) * X * Y + row) * 3
    x = line(row % X, X) + tl.sum(share * tl.load(shift, known, other=0), 1)[:, None]
    y = line(row // X, Y) + tl.sum(share * tl.load(shift + 1, known, other=0), 1)[:, None]
    depth = line(z, Z) + tl.sum(share * tl.load(shift + 2, known, other=0), 1)[:, None]
    tl.store(out, x, inside)
    tl.store(out + 1, y, inside)
    tl.store(out + 2, depth, inside)


def deformation(taps: Tensor, bias: Tensor, shift: Tensor, num_taps: int) -> Tensor:
    """`fused.deformation`."""
    taps, shift = last(taps), shift.contiguous()
    (batch, fields), (slices, _, height, width) = shift.shape[:2], taps.shape
    depth = slices // batch
    out = shift.new_empty((batch, depth, height, width, 3))
    tall = 64
    deformation_kernel[(triton.cdiv(height * width, tall), depth, batch)](
        taps, bias, shift, out, width, height, depth, taps.stride(-1),
        FIELDS=fields, TAPS=num_taps, P=tall, K=triton.next_power_of_2(fields), num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def sampled_kernel(
    volume, deformation, out, X, Y, Z, volume_step, channels, P: tl.constexpr, C: tl.constexpr
):
    z, image = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = (tl.program_id(0) * P + tl.arange(0, P))[:, None]
    column = tl.arange(0, C)[None, :]
    inside = row < X * Y
    where = deformation + ((image * Z + z) * X * Y + row) * 3
    x = ((tl.load(where, inside, other=0) + 1) * X - 1) / 2
    y = ((tl.load(where + 1, inside, other=0) + 1) * Y - 1) / 2
    z_at = ((tl.load(where + 2, inside, other=0) + 1) * Z - 1) / 2
    volume += image * volume_step
    value = tl.zeros((P, C), tl.float32)
    for dz in tl.static_range(2):
        for dy in tl.static_range(2):
            for dx in tl.static_range(2):
                share, at, there = corner(volume, x, y, z_at, X, Y, Z, channels, dx, dy, dz)
                there = there & inside & (column < channels)
                value += share * tl.load(at + column, there, other=0).to(tl.float32)
    to = out + ((image * X * Y + row) * Z + z) * channels + column
    tl.store(to, value, inside & (column < channels))


def sampled(volume: Tensor, deformation: Tensor, dtype: torch.dtype) -> Tensor:
    """`fused.sampled`."""
    volume = volume.contiguous(memory_format=torch.channels_last_3d)
    deformation = deformation.contiguous()
    sources, channels, depth, height, width = volume.shape
    batch = len(deformation)
    out = volume.new_empty((batch, height, width, depth * channels), dtype=dtype)
    tall = 64
    sampled_kernel[(triton.cdiv(height * width, tall), depth, batch)](
        volume, deformation, out, width, height, depth, 0 if sources == 1 else volume.stride(0),
        channels, P=tall, C=triton.next_power_of_2(channels), num_warps=8,
    )  # fmt: skip
    return out.movedim(-1, 1)
