"""ONNX networks with YuNet's and landmark.onnx's inputs and outputs, and faces that they see.

A face is three blurred discs, red and green pupils and a blue mouth. Its mark, a yellow square of
one of YuNet's 8 px cells, is what the detector fires on, in proportion to its brightness; the
landmark network finds the discs' centres and spans the face's 203 points over them, right only in
a crop like those it was trained on.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from moda_cli.face.crops import portrait_crop
from moda_cli.face.landmarks import Points

CELL = 8
BOX = 100.0  # pixels of every box that the detector returns
MOUTH_DROP = 1.05  # IOD
MARK = np.array([0.0, 0.5])  # where the mark is in the face frame


def template() -> Points:
    """The 203 points (203, 2) of the face, in IOD with its pupils at x = -0.5 and 0.5."""

    def ring(count: int, centre: ArrayLike, half: ArrayLike) -> Points:
        turn = np.linspace(0, 2 * np.pi, count, endpoint=False)  # from the left over the top
        return np.asarray(centre) + np.asarray(half) * np.column_stack(
            (-np.cos(turn), -np.sin(turn))
        )

    mouth = (0, MOUTH_DROP)
    return np.vstack(
        (
            ring(24, (-0.5, 0), (0.22, 0.08)),
            ring(24, (0.5, 0), (0.22, 0.08)),
            ring(36, mouth, (0.4, 0.16)),
            ring(24, mouth, (0.34, 0.06)),
            ring(89, (0, 0.6), (1.0, 1.1)),
            [(-0.5, 0), (0.5, 0)],
            [(0, 0.2), (0, 0.4), (0, 0.65), (0, 0.7)],
        )
    )


def draw_face(
    picture: NDArray[np.uint8], points: Points, mark: float = 1.0, cell: int = CELL
) -> None:
    """Paint a face with pupils and mouth (3, 2) and, in grid cells of `cell` pixels, its mark."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    sigma = 0.07 * np.linalg.norm(points[1] - points[0])
    for channel, (px, py) in enumerate(points):
        disc = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
        picture[..., channel] = np.maximum(picture[..., channel], np.rint(255 * disc))
    if mark:
        column, row = marked_cell(points, cell)
        inside = np.s_[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        picture[inside] = np.rint(255 * mark * np.array([1, 1, 0]))


def marked_cell(points: Points, cell: int = CELL) -> tuple[int, int]:
    """Column and row of the cell in which the mark of a face (3, 2) is painted."""
    x, y = (points[:2].mean(axis=0) + points[2]) / 2
    return int(x // cell), int(y // cell)


def save_yunet(path: Path) -> None:
    """input (1, 3, 640, 640) BGR 0..255 to cls, obj, bbox and kps at strides 8, 16 and 32."""
    nodes, constants, shapes = [], {}, {}
    cell_in_the_dark = np.full((24, 24), -4.0)  # less 1: 1 for one full cell, 0 for parts of it
    cell_in_the_dark[8:16, 8:16] += 6
    yellow = np.array([0, 0.5, 0.5])[:, None, None] / 255 / CELL**2
    for stride in (8, 16, 32):
        size = np.log(BOX / stride)
        nothing = np.zeros((3, 1, 1))
        outputs = {  # what counts from the picture in an output's cells, and what is always there
            "cls": (nothing, [0.0]),
            "obj": (nothing, [1.0]),
            "bbox": (nothing, [0.5, 0.5, size, size]),
            "kps": (nothing, np.zeros(10)),
        }
        if stride == CELL:
            outputs["cls"] = yellow * cell_in_the_dark, [-1.0]
        for kind, (kernel, bias) in outputs.items():
            name, width, side = f"{kind}_{stride}", len(bias), kernel.shape[-1]
            weight = np.broadcast_to(kernel, (width, *kernel.shape))
            constants |= {f"{name}_w": weight, f"{name}_b": bias, f"{name}_s": [1, -1, width]}
            how = {
                "kernel_shape": [side, side],
                "strides": [stride, stride],
                "pads": [side // 3] * 4,
            }
            nodes += [
                helper.make_node("Conv", ["input", f"{name}_w", f"{name}_b"], [f"{name}_c"], **how),
                helper.make_node("Relu", [f"{name}_c"], [f"{name}_r"]),
                helper.make_node("Transpose", [f"{name}_r"], [f"{name}_t"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_t", f"{name}_s"], [name]),
            ]
            shapes[name] = (1, (640 // stride) ** 2, width)
    save(path, nodes, (1, 3, 640, 640), shapes, constants)


def save_landmarks(path: Path) -> None:
    """input (1, 3, 224, 224) RGB 0..1 to output, 853 and, as (1, 406) shares of the crop, 856."""
    y, x = np.mgrid[:224, :224].reshape(2, -1)
    feet = np.array([[-0.5, 0, 1], [0.5, 0, 1], [0, MOUTH_DROP, 1]])
    span = np.column_stack((template(), np.ones(203))) @ np.linalg.inv(feet)  # of the three discs
    # Pupils and nose stray by a fifth of what the eyes are off their place in a section-4 crop.
    crop, _ = portrait_crop(1000 * template(), 224, 1.5, -0.1)
    span[197:, :2] += 0.2 / 2
    stray = np.zeros((203, 2))
    stray[197:] = -0.2 * crop[:2, 2] / 224
    constants = {
        "pure": (2 * np.eye(3) - 1).reshape(3, 3, 1, 1),  # a channel less the others: not the mark
        "flat": [1, 3, 224 * 224],
        "ramps": np.column_stack((x, y, np.ones(len(x))))[None],
        "xy": np.eye(3)[None, :, :2],
        "mass": np.tile(np.eye(3)[2][:, None], (1, 2))[None],
        "span": span[None] / 224,
        "stray": stray[None],
        "wide": [1, 406],
        "few": np.eye(406)[None, :, :214],
        "more": np.eye(406)[None, :, :262],
        "row": [1, 1, 406],
        "214": [1, 214],
        "262": [1, 262],
    }
    nodes = [
        helper.make_node("Conv", ["input", "pure"], ["signed"], kernel_shape=[1, 1]),
        helper.make_node("Relu", ["signed"], ["discs"]),
        helper.make_node("Reshape", ["discs", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "ramps"], ["moments"]),  # (1, 3, 3)
        helper.make_node("MatMul", ["moments", "xy"], ["sums"]),
        helper.make_node("MatMul", ["moments", "mass"], ["masses"]),
        helper.make_node("Div", ["sums", "masses"], ["centres"]),  # (1, 3, 2)
        helper.make_node("MatMul", ["span", "centres"], ["spanned"]),
        helper.make_node("Add", ["spanned", "stray"], ["points"]),
        helper.make_node("Reshape", ["points", "wide"], ["856"]),
        helper.make_node("Reshape", ["points", "row"], ["again"]),
        helper.make_node("MatMul", ["again", "few"], ["first"]),
        helper.make_node("Reshape", ["first", "214"], ["output"]),
        helper.make_node("MatMul", ["again", "more"], ["second"]),
        helper.make_node("Reshape", ["second", "262"], ["853"]),
    ]
    shapes = {"output": (1, 214), "853": (1, 262), "856": (1, 406)}
    save(path, nodes, (1, 3, 224, 224), shapes, constants)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    shape: tuple[int, ...],
    outputs: dict[str, tuple[int, ...]],
    constants: dict[str, ArrayLike],
) -> None:
    def value(name: str, dims: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)

    def tensor(name: str, data: ArrayLike) -> onnx.TensorProto:
        whole = isinstance(data, list) and isinstance(data[0], int)
        return numpy_helper.from_array(np.array(data, np.int64 if whole else np.float32), name)

    graph = helper.make_graph(
        nodes,
        "by_rule",
        [value("input", shape)],
        [value(name, dims) for name, dims in outputs.items()],
        [tensor(name, data) for name, data in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    onnx.save(model, path)
