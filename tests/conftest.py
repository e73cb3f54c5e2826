"""Settings every test shares."""

import logging
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import torch
from hypothesis import settings

settings.register_profile("moda", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("moda")

if "PYTEST_XDIST_WORKER" in os.environ:  # every worker would take all cores
    cv2.setNumThreads(1)
if not torch.cuda.is_available():  # Triton's kernels are interpreted, which it asks at its import
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first, so that at the end no worker waits long for another (pytest -n)."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """What this machine's user keeps, weights and portraits, does not change what is tested.

    Of the whole session, so that it holds for fixtures of modules too. Yields the user's own.
    """
    before = os.environ.get("MODA_CACHE")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield before


@pytest.fixture(autouse=True)
def _users_cache(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, _own_cache: str | None
) -> None:
    """Tests of the official weights read those that the user has downloaded."""
    if request.node.get_closest_marker("weights"):
        if _own_cache is None:
            monkeypatch.delenv("MODA_CACHE")
        else:
            monkeypatch.setenv("MODA_CACHE", _own_cache)


@pytest.fixture(autouse=True)
def _unheard_logging() -> Iterator[None]:
    """A command run in this process leaves its log's level and handler behind: --quiet would hold
    for every test after it."""
    logger = logging.getLogger("moda_cli")
    level, handlers = logger.level, logger.handlers
    yield
    logger.setLevel(level)
    logger.handlers = handlers


@pytest.fixture
def many_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads of torch and of its subprocesses, where .ci/run allows one.

    Sums of floats depend on them, so results that must not are worth something only then.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if not hasattr(os, "geteuid") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
