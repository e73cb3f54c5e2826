"""An Apple GPU as far as its limits go, without one: tensors that say they are on `mps`.

They are computed on the CPU, by a mode that refuses what Metal does: float64, operations for which
torch has no Metal kernel, and tensors of the CPU among those of the device.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

METAL = torch.device("mps", 0)
WIDE = (torch.float64, torch.complex128)
INDEXED = (Tensor.__getitem__, Tensor.__setitem__)
EVERYWHERE = ("Composite", "MPS", "Meta")  # kernels that Metal has or is given


class OnMetal(Tensor):
    """A tensor whose device is `mps` and whose numbers are in `inner`, on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnMetal":
        if inner.dtype in WIDE:
            raise TypeError(f"Metal has no {inner.dtype}")
        made: OnMetal = Tensor._make_wrapper_subclass(
            cls, inner.size(), inner.stride(), inner.storage_offset(),
            dtype=inner.dtype, device="meta", requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """What our code sees; torch itself, which lacks Metal here, takes it for `meta`."""
        return METAL

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        return run(func, args, dict(kwargs or {}))


class Metal(TorchDispatchMode):
    """Operations that make a tensor on `mps` make one of ours."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        return run(func, args, dict(kwargs or {}))


class Moves(TorchFunctionMode):
    """`Tensor.to` with the device mps, which torch refuses before any operation."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.tolist and isinstance(args[0], OnMetal):  # torch refuses any subclass
            return args[0].inner.tolist()
        if func in (torch.tensor, torch.as_tensor) and kwargs.get("device") is not None:
            if torch.device(device := kwargs.pop("device")).type == "mps":
                return _ToMetal.apply(func(*args, **kwargs), None)
            kwargs["device"] = device
        if func is Tensor.new_tensor and isinstance(args[0], OnMetal):
            return OnMetal(args[0].inner.new_tensor(*args[1:], **kwargs))
        if func in INDEXED and isinstance(args[0], OnMetal):  # lists become tensors of its device
            x, index, *rest = args
            parts = index if isinstance(index, tuple) else (index,)
            lists = tuple(OnMetal(torch.tensor(p)) if isinstance(p, list) else p for p in parts)
            return func(x, lists, *rest, **kwargs)
        if func is Tensor.to:
            x, *rest = args
            device = kwargs.pop("device", None)
            if rest and isinstance(rest[0], str | torch.device):
                device, *rest = rest
            elif rest and isinstance(rest[0], Tensor):
                device, rest = rest[0].device, [rest[0].dtype, *rest[1:]]
            if device is not None and torch.device(device).type == "mps":
                dtype = next((r for r in rest if isinstance(r, torch.dtype)), kwargs.get("dtype"))
                return _ToMetal.apply(x, dtype)
        return func(*args, **kwargs)


class _ToMetal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype | None) -> Tensor:
        ctx.from_cpu, ctx.dtype = not isinstance(x, OnMetal), x.dtype
        if isinstance(x, OnMetal):
            return x if dtype in (None, x.dtype) else OnMetal(x.inner.to(dtype))
        return OnMetal(x.to(dtype or x.dtype).clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        grad = grad.cpu() if ctx.from_cpu else grad
        return grad.to(ctx.dtype), None


@cache
def kernels() -> dict[str, set[str]]:
    """For which backends torch has a kernel of an operation, by its name and overload."""
    text = (files("torchgen") / "packaged/ATen/native/native_functions.yaml").read_text()
    rows = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    found, delegates = {}, {}
    for row in rows:
        name = row["func"].split("(")[0]
        found[name] = {key.strip() for keys in row.get("dispatch", {}) for key in keys.split(",")}
        if delegate := row.get("structured_delegate"):
            delegates[name] = delegate
    return {name: found[delegates.get(name, name)] for name in found}


def lacks(func: Any) -> bool:
    """Whether torch computes an operation on a CPU and not on Metal."""
    name = func._schema.name.removeprefix("aten::")
    overload = func._schema.overload_name
    known = kernels().get(f"{name}.{overload}" if overload else name, set())
    return bool(known) and not any(key.startswith(EVERYWHERE) for key in known)


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """An operation, on the CPU; what it makes is where its inputs, or `device`, say."""
    leaves = tree_flatten((args, kwargs))[0]
    here = [leaf for leaf in leaves if isinstance(leaf, OnMetal)]
    asked = kwargs.get("device")
    backward = torch._C._current_graph_task_id() != -1  # which makes zeros where a tensor was
    places = ("mps", "meta") if here or backward else ("mps",)
    to_metal = torch.device(asked).type in places if asked is not None else bool(here)
    moves = func._schema.name in ("aten::_to_copy", "aten::copy_", "aten::index_put_")
    if here:
        strays = [x for x in leaves if type(x) is Tensor and x.dim() and not moves]
        if strays:
            raise RuntimeError(f"{func} mixes mps and {strays[0].device}")
    if (here or to_metal) and lacks(func):
        raise NotImplementedError(f"{func} is not there on mps")
    if to_metal and kwargs.get("dtype") in WIDE:
        raise TypeError(f"{func}: Metal has no {kwargs['dtype']}")

    def plain(x: Any) -> Any:
        return x.inner if isinstance(x, OnMetal) else x

    inner = {**tree_map(plain, kwargs), **({"device": "cpu"} if asked and to_metal else {})}
    made = func(*tree_map(plain, args), **inner)
    if not to_metal:
        return made
    wrapped = tree_map(lambda x: OnMetal(x) if type(x) is Tensor else x, made)
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def _grad(enabled: bool, always: bool = False) -> bool:
    """Whether gradients were kept before; from now on as said, or if they were."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(enabled and (before or always))
    return before


@contextmanager
def metal(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """In here, threads included, `mps` is a device."""
    run_thread = threading.Thread.run

    def in_thread(self: threading.Thread) -> None:
        with Moves(), Metal():
            run_thread(self)

    patch.setattr(threading.Thread, "run", in_thread)
    mode = torch.inference_mode  # of which torch makes no views of wrapped tensors
    patch.setattr(mode, "__enter__", lambda self: setattr(self, "before", _grad(not self.mode)))
    patch.setattr(mode, "__exit__", lambda self, *_: _grad(self.before, always=True) and None)
    with Moves(), Metal():
        yield
