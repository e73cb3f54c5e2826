"""Weights of tests, installed as `moda download` leaves them."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from moda_cli.files import sha256_of
from moda_cli.weights import store
from moda_cli.weights.store import Installed

Configs = Mapping[str, Mapping[str, object]]


def install_weights(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    files: Mapping[str, Path],
    names: Iterable[str],
    profile: str,
    configs: Configs,
) -> None:
    """A weights.toml of a profile's components and a cache in which these files are recorded.

    configs: of components whose networks are of another size than the released ones.
    """
    lines = []
    for name in names:
        lines += [f"[{name}]", f'what = "{name}"', 'licence = "MIT"', "commercial = true"]
        lines += [f'profiles = ["{profile}"]']
        if name in configs:
            pairs = (f"{key} = {json.dumps(value)}" for key, value in configs[name].items())
            lines += [f"config = {{ {', '.join(pairs)} }}"]
        lines += [f"[[{name}.source]]", 'repo = "a/b"', f'file = "{name}"']
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.toml").write_text("\n".join(lines))
    monkeypatch.setenv("MODA_WEIGHTS", str(folder / "weights.toml"))
    monkeypatch.setenv("MODA_CACHE", str(folder / "cache"))
    for name, path in files.items():
        record_file(name, f"a/b@main/{name}", path)


def record_file(name: str, source: str, path: Path) -> None:
    """A file as fetched for a component from one of its sources, by the cache's own record."""
    digest, size = sha256_of(path), path.stat().st_size
    store.record(name, Installed(source, name, "", digest, size, str(path), digest, size))
