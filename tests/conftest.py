"""Settings every test shares."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("moda", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("moda")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first, so that at the end no worker waits long for another (pytest -n)."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that this machine's user has downloaded do not change what is tested."""
    if not request.node.get_closest_marker("weights"):
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        monkeypatch.setenv("MODA_CACHE", str(factory.getbasetemp() / "cache"))


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
