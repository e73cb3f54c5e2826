"""Tensors of a network in TensorFlow Lite's format, found by what they lead to.

Reading it needs the package `tflite`, for converting only: nothing at run time does.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

AXES = {"CONV_2D": (0, 3, 1, 2), "DEPTHWISE_CONV_2D": (3, 0, 1, 2)}  # as PyTorch has them


class Graph:
    """The operations of a .tflite file, by what they produce."""

    def __init__(self, path: Path) -> None:
        import tflite

        self._names = {
            value: name for name, value in vars(tflite.BuiltinOperator).items() if name.isupper()
        }
        self._model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
        self._graph = self._model.Subgraphs(0)
        operators = [self._graph.Operators(i) for i in range(self._graph.OperatorsLength())]
        self._made_by = {output: op for op in operators for output in op.OutputsAsNumpy()}
        self.outputs = {
            self._graph.Tensors(i).Name().decode(): i for i in self._graph.OutputsAsNumpy()
        }

    def kind(self, tensor: int) -> str:
        """The operation a tensor comes from; empty for an input or a constant."""
        if (op := self._made_by.get(tensor)) is None:
            return ""
        code = self._model.OperatorCodes(op.OpcodeIndex())
        if custom := code.CustomCode():
            return str(custom.decode())
        return str(self._names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())])

    def inputs(self, tensor: int) -> list[int]:
        return [int(i) for i in self._made_by[tensor].InputsAsNumpy()]

    def constant(self, tensor: int) -> Tensor:
        """A float16 or float32 constant, widened or not."""
        if self.kind(tensor) == "DEQUANTIZE":
            (tensor,) = self.inputs(tensor)
        stored = self._graph.Tensors(tensor)
        data = self._model.Buffers(stored.Buffer()).DataAsNumpy()
        kind = np.float16 if stored.Type() == 1 else np.float32
        return torch.from_numpy(data.view(kind).reshape(stored.ShapeAsNumpy()).copy())

    def layers(self, tensor: int) -> list[Tensor]:
        """Weights, biases and slopes on the way to a tensor, in order, in PyTorch's layout.

        The way begins at the input or where a region is cut out; at an addition it is the branch
        with the convolution.
        """
        kind = self.kind(tensor)
        if kind in ("", "TransformTensorBilinear"):
            return []
        first, *others = self.inputs(tensor)
        own: list[Tensor] = []
        if kind == "ADD":
            first = next(i for i in (first, *others) if self.kind(i) == "CONV_2D")
        elif kind in AXES:
            weight, bias = map(self.constant, others)
            own = [weight.permute(AXES[kind]), bias]
        elif kind == "PRELU":
            own = [self.constant(others[0]).flatten()]
        return self.layers(first) + own
