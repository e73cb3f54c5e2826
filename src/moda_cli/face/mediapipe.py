"""The face networks of the package, made from MediaPipe's files.

python -m moda_cli.face.mediapipe DETECTOR.tflite MESH.tflite [MESHES.safetensors]

The two .tflite files are those weights.toml names. MESHES, `*.pass2.mesh` (478, 3) of any number
of frontal faces, gives the mean mesh that head poses are measured against.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moda_cli.errors import WeightsError
from moda_cli.face.attention_mesh import LEFT_IRIS, REGIONS, RIGHT_IRIS, AttentionMesh
from moda_cli.face.blazeface import BlazeFace, Floats
from moda_cli.face.mesh import FOLDER, RIGID, similarity
from moda_cli.weights.state import load_strict
from moda_cli.weights.tflite import Graph


def named(network: nn.Module, way: Sequence[str], layers: list[Tensor]) -> dict[str, Tensor]:
    """Layers in order under the names of the network's modules on the same way.

    Raises WeightsError where their numbers differ.
    """
    names = [f"{part}.{name}" for part in way for name in network.get_submodule(part).state_dict()]
    if len(names) != len(layers):
        raise WeightsError(f"{way[-1]}: {len(layers)} tensors do not fit {len(names)}")
    return dict(zip(names, layers, strict=True))


def detector_state(graph: Graph) -> dict[str, Tensor]:
    """BlazeFace's tensors of its file."""
    with torch.device("meta"):
        network = BlazeFace()
    state: dict[str, Tensor] = {}
    for kind, output in (("scores", "classificators"), ("boxes", "regressors")):
        joined = graph.inputs(graph.outputs[output])
        for size, tensor, way in (
            ("fine", joined[0], ("first", "fine")),
            ("coarse", joined[1], ("first", "fine", "coarse")),
        ):
            state |= named(network, (*way, f"{size}_{kind}"), graph.layers(tensor))
    load_strict(network, state, "the detector's file")
    return state


def mesh_state(graph: Graph) -> dict[str, Tensor]:
    """AttentionMesh's tensors of its file."""
    with torch.device("meta"):
        network = AttentionMesh()
    ways: dict[str, tuple[str, ...]] = {
        "output_mesh_identity": ("first", "early", "late", "mesh"),
        "conv_faceflag": ("first", "early", "late", "flag"),
    }
    for region, (_, _, heads) in REGIONS.items():
        ways |= {f"output_{head}": (f"regions.{region}", f"heads.{head}") for head in heads}
    state: dict[str, Tensor] = {}
    for output, way in ways.items():
        state |= named(network, way, graph.layers(graph.outputs[output]))
    load_strict(network, state, "the mesh's file")
    return state


def mean_mesh(meshes: Sequence[Floats]) -> Floats:
    """The mean (478, 3) of faces (478, 3) and their mirror images, looking straight ahead.

    In units of the distance between the irises' centres, whose middle is the origin. Every face
    is turned onto the mean of all, so that their own turns do not flatten it; what is straight
    ahead up and down is their mean.
    """
    from scipy.optimize import linear_sum_assignment

    faces = [rescaled(mesh) for mesh in meshes]
    mirrored = [face * (-1, 1, 1) for face in faces]
    upright = np.mean(faces, axis=0)
    apart = np.linalg.norm(upright[:, None] * (-1, 1, 1) - upright, axis=-1)
    _, partner = linear_sum_assignment((apart + apart.T) ** 2)
    assert np.array_equal(partner[partner], np.arange(len(partner)))
    both = faces + [face[partner] for face in mirrored]
    mean: Floats = np.mean(both, axis=0)
    for _ in range(10):
        mean = rescaled(np.mean([turned_onto(mean, face) for face in both], axis=0))
    return mean


def rescaled(mesh: Floats) -> Floats:
    """A mesh with its eyes level, their distance 1 and their middle the origin."""
    eyes = mesh[[LEFT_IRIS[0], RIGHT_IRIS[0]]]
    across, down = (eyes[1] - eyes[0])[:2] / np.linalg.norm((eyes[1] - eyes[0])[:2])
    turn = np.array([[across, -down, 0], [down, across, 0], [0, 0, 1]])
    return np.asarray((mesh - eyes.mean(axis=0)) @ turn / np.linalg.norm(eyes[1] - eyes[0]))


def turned_onto(mean: Floats, face: Floats) -> Floats:
    """A face under the similarity that brings its rigid points closest to the mean's."""
    scale, turn, shift = similarity(face[RIGID], mean[RIGID])
    return np.asarray(scale * face @ turn.T + shift)


def main(detector: str, mesh: str, meshes: str = "") -> None:
    """Write the package's files; see the module."""
    states = {
        "detector": detector_state(Graph(Path(detector))),
        "mesh": mesh_state(Graph(Path(mesh))),
    }
    if meshes:
        faces = [
            face.double().numpy()
            for name, face in load_file(meshes).items()
            if name.endswith("pass2.mesh")
        ]
        states["mean"] = {"mean": torch.from_numpy(mean_mesh(faces)).float()}
    for name, state in states.items():
        tensors = {key: tensor.contiguous() for key, tensor in state.items()}
        save_file(tensors, FOLDER / f"{name}.safetensors", {"format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:])
