"""The official weights' files as they are published, with tensors made by rule, small or full-size.

All lie in MoDA's own repository on a Hub on localhost, in its layout and formats, so that the other
sources of weights.toml are tried first and not found.
"""

import tomllib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from by_rule import key_table, released_state, state_by_rule
from face_by_rule import draw_face, save_landmarks
from hub_server import Hub
from installed import record_file
from liveportrait_by_rule import facing_state, retargeting_file
from moda_cli.face.extractors import AppearanceExtractor, MotionExtractor
from moda_cli.render.liveportrait.spade import SpadeGenerator
from moda_cli.render.liveportrait.warp import WarpingNetwork
from moda_cli.weights import store
from moda_cli.weights.manifest import Manifest, load_manifest

MODA = "lixinyizju/moda"
MODELS = "decode/v1/first_stage"
LIVEPORTRAIT = {  # component -> network
    "appearance_extractor": AppearanceExtractor,
    "motion_extractor": MotionExtractor,
    "warping": WarpingNetwork,
    "spade": SpadeGenerator,
}
FILES = {  # component -> file of the repository
    "motion_generator": "moda/net-200.pth",
    "speech_encoder": "audio/chinese-hubert-base/pytorch_model.bin",
    "appearance_extractor": f"{MODELS}/base_models/appearance_feature_extractor.pth",
    "motion_extractor": f"{MODELS}/base_models/motion_extractor.pth",
    "warping": f"{MODELS}/base_models/warping_module.pth",
    "spade": f"{MODELS}/base_models/spade_generator.pth",
}
SMALL: dict[str, dict[str, Any]] = {
    "motion_generator": {"hidden_dim": 64, "num_heads": 4, "audio_dim": 32},
    "speech_encoder": {"conv_dim": 48, "hidden_dim": 32, "num_heads": 4, "mlp_dim": 96},
    "appearance_extractor": {"widths": [4, 8, 16], "channels": 4, "depth": 4, "num_blocks": 1},
    "motion_extractor": {"depths": [1, 1, 1, 1], "widths": [8, 16, 16, 32]},
    "warping": {"channels": 4, "depth": 4, "out_channels": 16, "compressed": 2,
                "hourglass_width": 4, "hourglass_max_width": 16, "hourglass_levels": 2},
    "spade": {"in_channels": 16, "width": 16, "out_channels": 4},
}  # fmt: skip
FULL: dict[str, dict[str, Any]] = {name: {} for name in SMALL}


def pickled(value: Any) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def states(sizes: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each component of FILES with its released tensors, for networks of these sizes."""
    small = bool(sizes["motion_generator"])
    width = sizes["motion_generator"].get("audio_dim", 768)
    generator = released_state(f"motion_generator{'_small' if small else ''}.json", width)
    del generator["null_audio_feat"]  # the checkpoint lacks it, as far as can be known
    yield "motion_generator", generator | {"scheduler.sigmas": torch.arange(1.0, 1001) / 1e3}
    yield "speech_encoder", state_by_rule(key_table(f"hubert_{'small' if small else 'base'}.json"))
    for name, network in LIVEPORTRAIT.items():
        with torch.device("meta"):
            module = network(**sizes[name])
        yield name, facing_state(module)


def published(sizes: dict[str, dict[str, Any]], folder: Path) -> Hub:
    """A Hub that serves MoDA's repository, the networks of these sizes."""
    files = {FILES[name]: pickled(state) for name, state in states(sizes)}
    nested: dict[str, dict[str, torch.Tensor]] = {"another_group": {"module.x": torch.ones(1)}}
    for key, tensor in retargeting_file().items():
        group, _, leaf = key.partition(".")
        nested.setdefault(group, {})[f"module.{leaf}"] = tensor
    files[f"{MODELS}/retargeting_models/stitching_retargeting_module.pth"] = pickled(nested)
    save_landmarks(folder / "landmark.onnx")
    files[f"{MODELS}/landmark.onnx"] = (folder / "landmark.onnx").read_bytes()
    return Hub(repos={MODA: files})


def install(sizes: dict[str, dict[str, Any]]) -> None:
    """What `moda download` leaves of these files in MODA_CACHE, by MODA_WEIGHTS' list of them."""
    folder = store.cache_dir() / "converted"
    folder.mkdir(parents=True, exist_ok=True)
    paths = {"face_landmarks": folder / "landmark.onnx"}
    save_landmarks(paths["face_landmarks"])
    for name, state in (*states(sizes), ("stitching", retargeting_file())):
        paths[name] = folder / f"{name}.safetensors"
        save_file(state, paths[name])
    for name, path in paths.items():
        record_file(name, str(load_manifest().component(name).sources[0]), path)


def manifest_of(sizes: dict[str, dict[str, Any]], path: Path) -> Manifest:
    """Write the shipped weights.toml's `moda` profile without its sums, for networks of a size."""
    lines = []
    for name, table in tomllib.loads(load_manifest().path.read_text()).items():
        if "moda" not in table.get("profiles", ()):
            continue
        sources = table.pop("source")
        lines.append(f"[{name}]")
        lines += [f"{key} = {_toml(value)}" for key, value in table.items()]
        if sizes.get(name):
            lines.append(f"config = {_toml(sizes[name])}")
        for source in sources:
            lines.append(f"[[{name}.source]]")
            kept = {key: value for key, value in source.items() if key not in ("sha256", "size")}
            lines += [f"{key} = {_toml(value)}" for key, value in kept.items()]
    path.write_text("\n".join(lines))
    return load_manifest()


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(entry)}" for key, entry in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def save_portrait(path: Path, width: int = 640, height: int = 512) -> None:
    """A face that the mesh and the by-rule landmark network see."""
    picture = np.zeros((height, width, 3), np.uint8)
    middle = np.array([width / 2, height / 2 - 30])
    draw_face(picture, middle + 90 * np.array([[-0.5, 0], [0.5, 0], [0, 1.05]]))
    cv2.imwrite(str(path), picture[..., ::-1])
