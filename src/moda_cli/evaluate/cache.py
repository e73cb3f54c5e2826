"""What was computed once, by content: a second or interrupted run costs nothing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from moda_cli.errors import InputError
from moda_cli.files import atomic_write, sha256_of_json

Arrays = dict[str, NDArray[Any]]


def content_key(**parts: Any) -> str:
    """The sha256 of named values: file hashes, versions, settings."""
    return sha256_of_json(parts)


class Cache:
    """A folder of results by key. A clip that cannot be measured is a result, too."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str, suffix: str = ".safetensors") -> Path:
        return self.folder / key[:2] / f"{key}{suffix}"

    def has(self, key: str) -> bool:
        return self.path(key).is_file()

    def get(self, key: str) -> Arrays | None:
        """What was stored, None if nothing was. Raises the InputError that was stored."""
        try:
            with safe_open(self.path(key), framework="numpy") as file:
                metadata: Mapping[str, str] = file.metadata() or {}
                if "reason" in metadata:
                    raise InputError(metadata["reason"], hint=metadata["hint"])
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None

    def keep(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        """The stored result, or else a computed one that is then stored.

        Raises the InputError of `compute`, again without computing the next time.
        """
        stored = self.get(key)
        if stored is not None:
            return stored
        try:
            arrays = {name: np.asarray(array, order="C") for name, array in compute().items()}
        except InputError as error:
            self._write(key, {}, {"reason": str(error), "hint": error.hint})
            raise
        self._write(key, arrays, {})
        return arrays

    def keep_file(self, key: str, suffix: str, make: Callable[[Path], object]) -> Path:
        """The stored file, or else the one that `make` writes whole or not at all."""
        path = self.path(key, suffix)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path)
        return path

    def _write(self, key: str, arrays: Arrays, metadata: dict[str, str]) -> None:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            # a file without a tensor cannot be read back
            save_file(arrays or {"nothing": np.zeros(1)}, temporary, metadata=metadata)


class KeptOnly(Cache):
    """What is stored, and nothing new. Raises LookupError for what is not."""

    def keep(self, key: str, compute: Callable[[], Arrays]) -> Arrays:
        stored = self.get(key)
        if stored is None:
            raise LookupError(key)
        return stored

    def keep_file(self, key: str, suffix: str, make: Callable[[Path], object]) -> Path:
        path = self.path(key, suffix)
        if not path.is_file():
            raise LookupError(key)
        return path
