"""A Hub on localhost, an empty cache and a weights.toml, and `moda download` run on them."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save
from typer.testing import CliRunner, Result

from by_rule import tensor_by_rule
from hub_server import Hub, serve
from moda_cli.cli import app
from moda_cli.weights import transfer

STATE = {name: tensor_by_rule(name, (4, 3)) for name in ("a.weight", "b.weight")}


def pickled(value: Any) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


SAFE = save(STATE, metadata={"format": "pt"})
PTH = pickled({f"module.{name}": tensor for name, tensor in STATE.items()})
ONNX = bytes(range(256)) * 4000  # 1 MB, kept as it is
HTTPS = pickled({"state_dict": STATE, "optimizer": {"step": 3}, "ema": torch.ones(1)})


class Bench:
    """A Hub, an empty cache and a weights.toml, and `moda download` run on them."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self.hub, self.folder = hub, folder
        self.manifest = folder / "weights.toml"

    def weights(self, **components: list[dict[str, Any]]) -> None:
        """Write weights.toml: component name -> its sources; `convert` and more in the first."""
        lines = []
        for name, sources in components.items():
            keys = {"convert": True, "licence": "MIT", "commercial": True, "profiles": ["moda"]}
            keys |= {key: sources[0].pop(key) for key in [*keys, "groups"] if key in sources[0]}
            lines += [f"[{name}]", f'what = "{name}"']
            lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
            for source in sources:
                lines.append(f"[[{name}.source]]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in source.items()]
        self.manifest.write_text("\n".join(lines))

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, ["download", *arguments])

    def incomplete(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if "incomplete" in path.name]


@contextmanager
def open_bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    repos = {
        "kijai/safe": {"net.safetensors": SAFE},
        "kling/net": {"base/net.pth": PTH, "landmark.onnx": ONNX, "README.md": b"#"},
        "moda/moda": {"moda/net-200.pth": PTH, "x/base/net.pth": PTH},
    }
    hub = Hub(repos=repos, files={"net.pth": HTTPS}, moved={"kwai/net": "kling/net"})
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with serve(hub):
        bench = Bench(hub, tmp_path)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("MODA_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("MODA_WEIGHTS", str(bench.manifest))
        # huggingface_hub reads these when it is imported
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "hf" / "token"))
        monkeypatch.setattr(transfer, "RETRY_WAITS_S", (0.0, 0.0, 0.0))
        yield bench


def same(path: Path) -> bool:
    loaded = load_file(path)
    return loaded.keys() == STATE.keys() and all(loaded[k].equal(STATE[k]) for k in STATE)


LANDMARKS = {"convert": False, "repo": "kling/net", "file": "landmark.onnx"}
