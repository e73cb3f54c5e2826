"""An ONNX network with landmark.onnx's inputs and outputs, and faces that it sees.

Of a face it sees three blurred discs, red and green pupils and a blue mouth: it finds their centres
and spans the face's 203 points over them, right only in a crop like those it was trained on. A face
that the mesh is to see as well is the example portrait's, in grey, with the discs on it.
"""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import TensorProto, helper, numpy_helper

from moda_cli.face.crops import portrait_crop
from moda_cli.face.landmarks import Points

EXAMPLES = Path(__file__).parents[2] / "examples"
MOUTH_DROP = 1.05  # IOD


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


def draw_discs(picture: NDArray[np.uint8], points: Points, size: float = 0.07) -> None:
    """Paint pupils and mouth (3, 2) that the landmark network sees, of `size` pupil distances."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    sigma = size * np.linalg.norm(points[1] - points[0])
    for colour, (px, py) in zip(255 * np.eye(3), points, strict=True):
        disc = np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))[..., None]
        picture[:] = np.rint(picture + disc * (colour - picture))


def draw_face(picture: NDArray[np.uint8], points: Points) -> None:
    """Lay the example's face, in grey, with its pupils and mouth (3, 2) there, under such discs."""
    own = json.loads((EXAMPLES / "portrait.json").read_text())
    drawn = cv2.imread(str(EXAMPLES / "portrait.png"), cv2.IMREAD_GRAYSCALE)
    feet = np.float32([*own["pupils"], own["mouth"]])
    affine = cv2.getAffineTransform(feet, np.float32(points))
    size = picture.shape[1::-1]
    kept = cv2.warpAffine(np.full_like(drawn, 255), affine, size)
    laid = cv2.warpAffine(drawn, affine, size)
    picture[kept > 0] = np.repeat(laid[..., None], 3, axis=2)[kept > 0]
    draw_discs(picture, points, 0.035)


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
