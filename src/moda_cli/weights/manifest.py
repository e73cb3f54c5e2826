"""weights.toml as data: which files there are, where they live and what may be done with them."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moda_cli.errors import UsageError, WeightsError, did_you_mean
from moda_cli.files import parse_toml, shipped

PROFILES = ("moda", "eval", "train")


@dataclass(frozen=True, slots=True)
class Source:
    """One place a component can come from: a file of a Hub repository, or a URL."""

    repo: str = ""
    revision: str = "main"
    file: str = ""  # path in the repository, where public evidence establishes it
    find: tuple[
        str, ...
    ] = ()  # else: ends of its path, most likely first; the repository is listed
    url: str = ""
    size: int | None = None  # bytes; None: not known
    sha256: str | None = None  # of the file as served; None: not known

    def __str__(self) -> str:
        return self.url or f"{self.repo}@{self.revision}/{self.file or '**/' + self.find[0]}"

    @property
    def checkable(self) -> bool:
        """Is there a sum to check: ours, or the Hub's own?"""
        return self.sha256 is not None or bool(self.repo)


@dataclass(frozen=True, slots=True)
class Component:
    """One network: the first source that resolves and verifies is used."""

    name: str
    what: str
    profiles: tuple[str, ...]
    licence: str
    commercial: bool
    sources: tuple[Source, ...]
    convert: bool = False  # a pickled state dict: converted to safetensors once
    groups: tuple[str, ...] = ()  # state dicts nested under these names; tensor x becomes group.x
    config: dict[str, Any] = field(default_factory=dict)  # of the network, where not as released

    @property
    def size(self) -> int | None:
        return self.sources[0].size


@dataclass(frozen=True, slots=True)
class Manifest:
    path: Path
    components: dict[str, Component]

    def component(self, name: str) -> Component:
        """Raises WeightsError for one that this list does not have."""
        if name not in self.components:
            raise WeightsError(f"{self.path} has no {name}", hint="unset MODA_WEIGHTS")
        return self.components[name]

    def select(self, names: Sequence[str]) -> list[Component]:
        """Components of these profiles or of these names, each once, in the manifest's order.

        Raises UsageError for a name that is neither.
        """
        for name in names:
            if name not in (*PROFILES, "all", *self.components):
                known = f"profiles: {', '.join((*PROFILES, 'all'))};"
                known += f" components: {', '.join(self.components)}"
                hint = did_you_mean(name, (*PROFILES, "all", *self.components), known)
                raise UsageError(f"no profile or component is called {name}", hint=hint)
        return [
            component
            for component in self.components.values()
            if {"all", component.name, *component.profiles} & set(names)
        ]


def manifest_path() -> Path:
    """MODA_WEIGHTS (another weights.toml, say of an in-house mirror), else the one shipped."""
    if given := os.environ.get("MODA_WEIGHTS"):
        return Path(given)
    return shipped("weights.toml", "weights.toml")


def load_manifest() -> Manifest:
    """Raises WeightsError for a file that cannot be read or says something it must not."""
    path = manifest_path()
    try:
        return _read(path, path.stat().st_mtime_ns)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsError(
            f"{path} is not a list of weights: {reason}",
            hint="unset MODA_WEIGHTS" if "MODA_WEIGHTS" in os.environ else "reinstall moda-cli",
        ) from error


@lru_cache(maxsize=1)
def _read(path: Path, changed: int) -> Manifest:
    """The file as it is since `changed`: a run asks for it dozens of times."""
    tables = parse_toml(path.read_text(encoding="utf-8"))
    tables.pop("bundled", None)  # said for the record: nothing is fetched
    return Manifest(path, {name: _component(name, table) for name, table in tables.items()})


def _component(name: str, table: dict[str, Any]) -> Component:
    lists = {key: tuple(table.get(key, ())) for key in ("profiles", "groups")}
    if unknown := set(lists["profiles"]) - set(PROFILES):
        raise ValueError(f"{name}: unknown profiles {sorted(unknown)}")
    sources = tuple(_source(name, row) for row in table.pop("source"))
    return Component(name=name, sources=sources, **{**table, **lists})


def _source(name: str, row: dict[str, Any]) -> Source:
    source = Source(**{**row, "find": tuple(row.get("find", ()))})
    if bool(source.url) == bool(source.repo):
        raise ValueError(f"{name}: a source has either a repo or a url")
    if source.repo and bool(source.file) == bool(source.find):
        raise ValueError(f"{name}: a file of {source.repo} is given by either file or find")
    where = urlsplit(source.url)
    if source.url and where.scheme != "https" and where.hostname not in ("127.0.0.1", "localhost"):
        raise ValueError(f"{name}: {source.url} is not https")
    if source.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", source.sha256):
        raise ValueError(f"{name}: {source.sha256} is not a sha256")
    return source
