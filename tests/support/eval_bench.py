"""Clips, and weights small enough to measure them in no time, for the tests of `moda eval`.

The networks are of the published ones' inputs and outputs, installed as `moda download` does.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from by_rule import key_table, state_by_rule
from installed import install_weights
from iresnet import IResNet50
from metric_networks import by_rule, red_detector, to_onnx
from moda_cli.media import read_image, write_video
from moda_cli.metrics.networks.i3d import I3D

RATE = 16_000
PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"


class TinyI3D(nn.Module):
    """Called like StyleGAN-V's TorchScript: (B, 3, T, 224, 224) -> (B, 400)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 2 * 4 * 4, 400)

    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        return self.layer(nn.functional.adaptive_avg_pool3d(x, (2, 4, 4)).flatten(1))


class TinyArcface(nn.Module):
    """(B, 3, 112, 112) -> (B, 512)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 7 * 7, 512)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(nn.functional.avg_pool2d(x, 16).flatten(1))


def tiny_weights(folder: Path, seed: int = 4) -> dict[str, Path]:
    """Files of the components that FVD and F-SIM need."""
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        i3d, arcface = TinyI3D().eval(), TinyArcface().eval()
    torch.jit.script(i3d).save(str(folder / "i3d.pt"))
    return {
        "i3d_torchscript": folder / "i3d.pt",
        "arcface": to_onnx(arcface, torch.zeros(1, 3, 112, 112), folder / "arcface.onnx"),
    }


class LogitsOnly(nn.Module):
    """I3D behind the published TorchScript's arguments."""

    def __init__(self, network: torch.jit.ScriptModule) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
    ) -> Tensor:
        return self.network(x)


def full_weights(folder: Path) -> dict[str, Path]:
    """All networks at their full size with weights by rule; only the detector knows faces."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {**tiny_weights(folder)}
    tables = {
        "inception_fid": ("inception_fid.json", math.sqrt(2)),
        "amt_s": ("amt_s.json", 0.6),
        "syncnet": ("syncnet.json", 1.0),
    }
    for name, (table, gain) in tables.items():
        files[name] = folder / f"{name}.safetensors"
        save_file(state_by_rule(key_table(table), gain=gain), files[name])
    files["s3fd"] = folder / "s3fd.safetensors"
    save_file(red_detector(), files["s3fd"])
    arcface = by_rule(IResNet50, "arcface_iresnet50.json", 0.7)
    files["arcface"] = to_onnx(arcface, torch.zeros(1, 3, 112, 112), folder / "w600k.onnx")
    i3d = by_rule(I3D, "i3d.json", math.sqrt(2))
    traced = torch.jit.trace(i3d, torch.zeros(1, 3, 9, 224, 224), check_trace=False)
    files["i3d_torchscript"] = folder / "i3d_full.pt"
    torch.jit.script(LogitsOnly(traced)).save(str(files["i3d_torchscript"]))
    return files


ALL = (
    "inception_fid",
    "i3d_torchscript",
    "i3d",
    "amt_s",
    "arcface",
    "s3fd",
    "syncnet",
)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, files: Mapping[str, Path]) -> None:
    """A weights.toml of what `moda eval` loads and a cache in which these files are recorded."""
    install_weights(monkeypatch, folder, files, ALL, "eval", {})


def picture(seed: int, side: int = 96) -> NDArray[np.uint8]:
    """The example's face, in a light of its own."""
    light = np.random.default_rng(seed).uniform(0.6, 1.0, 3)
    face = read_image(PORTRAIT)[90:440, 80:430]
    small = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(np.rint(small * light), np.uint8)


def write_clip(
    path: Path,
    frames: int = 20,
    seed: int = 0,
    fps: float = 25,
    sound: bool = True,
    dark: Iterable[int] = (),
) -> Path:
    """A moving picture with noise for sound; no face is to be seen in the dark frames."""
    still, dark = picture(seed), set(dark)
    moving = (
        np.zeros_like(still) if k in dark else np.roll(still, k % 4, axis=seed % 2)
        for k in range(frames)
    )
    count = math.ceil(RATE * frames / fps)
    wave = np.random.default_rng(seed).uniform(-0.3, 0.3, count).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(moving, path, fps, audio=wave if sound else None)
    return path


def violations(
    value: Any, schema: dict[str, Any], root: dict[str, Any], at: str = "$"
) -> list[str]:
    """Where JSON data breaks a JSON schema, of the keywords ours uses."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        return violations(value, root["$defs"][name], root, at)
    known = {"type", "const", "enum", "properties", "required", "additionalProperties", "items"}
    known |= {"description", "title", "$schema", "$id", "$defs", "pattern", "minimum", "anyOf"}
    assert set(schema) <= known, f"{at}: {set(schema) - known} is not checked"
    if "anyOf" in schema:
        tried = [violations(value, option, root, at) for option in schema["anyOf"]]
        return [] if [] in tried else [fault for faults in tried for fault in faults]
    found = []
    types = schema.get("type", [])
    if types and not any(
        _is(value, kind) for kind in ([types] if isinstance(types, str) else types)
    ):
        return [f"{at}: {json.dumps(value)[:60]} is not {types}"]
    if "const" in schema and value != schema["const"]:
        found.append(f"{at}: {value!r} is not {schema['const']!r}")
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not one of {schema['enum']}")
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        found += [
            f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value
        ]
        for name, item in value.items():
            if name in properties:
                found += violations(item, properties[name], root, f"{at}.{name}")
            elif rest is False:
                found.append(f"{at}: {name} is unknown")
            elif isinstance(rest, dict):
                found += violations(item, rest, root, f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for k, item in enumerate(value):
            found += violations(item, schema["items"], root, f"{at}[{k}]")
    return found


def _is(value: Any, kind: str) -> bool:
    if kind in ("number", "integer") and isinstance(value, bool):
        return False
    types = {
        "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
        "number": (int, float), "integer": int,
    }  # fmt: skip
    return isinstance(value, types[kind])
