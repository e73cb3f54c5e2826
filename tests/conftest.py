"""Settings every test shares."""

import pytest
from hypothesis import settings

settings.register_profile("moda", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("moda")


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that this machine's user has downloaded do not change what is tested."""
    if not request.node.get_closest_marker("weights"):
        factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
        monkeypatch.setenv("MODA_CACHE", str(factory.getbasetemp() / "cache"))
