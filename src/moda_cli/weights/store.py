"""Where the weights are: the cache folder and the record of what was fetched into it.

Nothing here uses the network. A file that is not in the record is never loaded.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from moda_cli.errors import WeightsError
from moda_cli.files import atomic_write, parse_json, sha256_of
from moda_cli.weights.manifest import load_manifest


@dataclass(frozen=True, slots=True)
class Installed:
    """What was fetched for a component, and the file that is loaded because of it."""

    source: str  # the manifest's source it came from
    file: str  # path in the repository, or the URL
    revision: str  # commit; empty for a URL
    sha256: str  # of the file as served
    size: int
    path: str  # what is loaded: a file of the Hub's cache, or a converted one
    path_sha256: str
    path_size: int


def cache_dir() -> Path:
    """MODA_CACHE, else moda under the platform's folder for caches."""
    if given := os.environ.get("MODA_CACHE"):
        return Path(given).absolute()
    home = Path.home()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or home / ".cache"
    return Path(base) / "moda"


def seen_portraits() -> Path:
    """The folder in which what networks saw of portraits is kept."""
    return cache_dir() / "portraits"


def hub_cache() -> Path:
    """Where huggingface_hub keeps what it fetches: HF_HUB_CACHE, or under HF_HOME."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def first_time(what: str) -> bool:
    """Whether this is asked for the first time with this cache; False where it cannot be kept."""
    said = cache_dir() / "said" / what
    try:
        said.parent.mkdir(parents=True, exist_ok=True)
        said.touch(exist_ok=False)
    except OSError:
        return False
    return True


def lock_path() -> Path:
    return cache_dir() / "weights.lock.json"


def read_lock() -> dict[str, Installed]:
    """What is recorded, by component."""
    try:
        rows = parse_json(lock_path().read_text(encoding="utf-8"))["components"]
        return {name: Installed(**row) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise WeightsError(
            f"cannot read {lock_path()}: {error.strerror}",
            hint="set MODA_CACHE to a folder of yours",
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{lock_path()} is damaged: {error}", hint="delete it and run `moda download` again"
        ) from error


def record(name: str, entry: Installed | None) -> None:
    """Write (or with None remove) one entry; other processes may be writing theirs."""
    from filelock import FileLock

    path = lock_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".guard")):
        entries = read_lock()
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry
        rows = {key: asdict(value) for key, value in sorted(entries.items())}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"version": 1, "components": rows}, indent=1) + "\n")


def installed(name: str) -> Path | None:
    """The file to load for a component, or None if it is not there whole."""
    entry = read_lock().get(name)
    component = load_manifest().components.get(name)
    if entry is None or component is None or entry.source not in map(str, component.sources):
        return None  # never fetched, or weights.toml names other sources now
    path = Path(entry.path)
    whole = path.is_file() and path.stat().st_size == entry.path_size
    return path if whole else None


def require(*names: str) -> dict[str, Path]:
    """The files of all these components. Raises WeightsError with the command to run."""
    found = {name: installed(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise WeightsError(
            f"weights are missing: {', '.join(missing)}", hint=f"run `{command_for(missing)}`"
        )
    return {name: path for name, path in found.items() if path is not None}


def command_for(names: Sequence[str]) -> str:
    """The shortest `moda download` that fetches these components."""
    manifest = load_manifest()
    wanted = set(names)
    for profile in ("moda", "eval", "train"):
        if wanted <= {component.name for component in manifest.select([profile])}:
            untrusted = [
                name
                for name in names
                if not any(source.checkable for source in manifest.component(name).sources)
            ]
            trust = "".join(f" --trust {name}" for name in untrusted)
            return f"moda download {profile}{trust}"
    return f"moda download {' '.join(names)}"


def corrupt(names: Sequence[str]) -> dict[str, Path]:
    """Re-hash what is recorded of these; what changed or is gone is forgotten, never loaded."""
    faults = {}
    for name, entry in read_lock().items():
        path = Path(entry.path)
        if name in names and not (path.is_file() and sha256_of(path) == entry.path_sha256):
            record(name, None)
            faults[name] = path
    return faults
