"""One server for all tests of the page: each start costs seconds."""

from collections.abc import Iterator

import pytest

from page_server import Served, page_server


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page that takes 12 s of speech; at its end nothing of its files is left."""
    folder = tmp_path_factory.mktemp("served")
    with page_server(folder, "--max-duration", "12") as page:
        yield page
    assert not list(folder.glob("moda-ui-*"))
