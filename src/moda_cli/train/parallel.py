"""One process or many: the same steps on each process's share of the batch."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from moda_cli.device import forbid_tf32, resolve_device
from moda_cli.errors import UsageError

PATIENCE = timedelta(hours=2)  # the others wait while one process reads statistics or validates


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that torchrun started."""

    rank: int
    size: int
    device: torch.device
    control: Any = None  # the group in which numbers of the CPU are exchanged, if not the default

    @property
    def main(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            distributed.barrier()

    def agree(self, wish: int) -> int:
        """The largest wish of all processes; the device is not waited for."""
        if self.size == 1:
            return wish
        largest = torch.tensor(wish)
        distributed.all_reduce(largest, distributed.ReduceOp.MAX, group=self.control)
        return int(largest)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over processes, on the CPU."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values.cpu() / self.size


_until_exit: list[Any] = []  # process groups


@contextmanager
def join_ranks(device: str, fsdp: bool) -> Iterator[Ranks]:
    """The process group of torchrun, or just this process without it. Raises UsageError."""
    where = resolve_device(device)
    forbid_tf32()
    if "LOCAL_RANK" not in os.environ:
        if fsdp:
            raise UsageError("--fsdp needs torchrun", hint="torchrun -m moda_cli train ...")
        yield Ranks(0, 1, where)
        return
    if where.type == "cuda":
        where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(where)
    backend = "nccl" if where.type == "cuda" else "gloo"
    distributed.init_process_group(backend, timeout=PATIENCE)
    control = distributed.new_group(timeout=PATIENCE, backend="gloo") if backend == "nccl" else None
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), where, control)
    finally:
        # The last reference would go with DDP's own, under Python's lock, for which Gloo's thread
        # may be waiting while it is itself waited for: seen once, for ever.
        _until_exit.extend((distributed.group.WORLD, control))
        distributed.destroy_process_group()


def blocks_of(network: nn.Module) -> list[nn.Module]:
    """The transformer blocks of a network, which has few kinds of them; a sync expert has none."""
    lists = [child for child in network.children() if isinstance(child, nn.ModuleList)]
    return [block for blocks in lists for block in blocks]


def spread(objective: nn.Module, network: nn.Module, ranks: Ranks, fsdp: bool) -> nn.Module:
    """The objective, a module that owns `network`, over all processes: DDP, or FSDP by block."""
    if fsdp:
        mesh = init_device_mesh(ranks.device.type, (ranks.size,))
        for block in blocks_of(network):
            fully_shard(block, mesh=mesh)
        fully_shard(objective, mesh=mesh)
        return objective
    if ranks.size > 1:
        return DistributedDataParallel(objective)
    return objective


def reducing(module: Any, last: bool) -> AbstractContextManager[None]:
    """The context of a backward pass: gradients are exchanged after a step's last part only."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    if hasattr(module, "set_requires_gradient_sync"):
        module.set_requires_gradient_sync(last)
    return nullcontext()


def whole(tensor: Tensor) -> Tensor:
    """The tensor, gathered where FSDP has spread it; every process must take part."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of the tensor, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, placed as the parameter is."""
    tensor = tensor.to(parameter.device)
    if isinstance(parameter, DTensor):
        return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
    return tensor
