"""The page of `moda serve` in a browser: Debian's Chromium, with a microphone that beeps."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chromium import CHROMIUM, FLAGS, MARKS
from input_cases import EXAMPLES
from live_server import live_server

playwright = pytest.importorskip("playwright.sync_api")

pytestmark = MARKS
HEARING = [
    *FLAGS,
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
]
PATIENCE_S = 60.0
SHOWN = "Number(document.querySelector('#shown').textContent)"
# Keeps the loudest sample that comes, and what the canvas shows now.
LISTEN = """() => {
  window.loudest = 0;
  const take = window.take;
  window.take = (data) => {
    const samples = new Int16Array(data, 12, new DataView(data).getUint32(8, true));
    window.loudest = Math.max(window.loudest, ...samples.map(Math.abs));
    take(data);
  };
}"""
PICTURE = "document.querySelector('#face').toDataURL()"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("page")
    with (
        live_server(folder, "--max-sessions", "4") as server,
        playwright.sync_playwright() as driver,
    ):
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=HEARING)
        opened = browser.new_page(permissions=["microphone"])
        opened.set_default_timeout(1000 * PATIENCE_S)
        opened.complaints = []
        opened.on("console", lambda said: opened.complaints.append(said.text))
        opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.on("request", lambda asked: opened.complaints.extend(elsewhere(asked.url)))
        host = server.url

        def elsewhere(url: str) -> list[str]:
            return [] if url.startswith((host, "data:", "ws" + host[4:])) else [url]

        opened.goto(server.address)
        yield opened
        assert opened.complaints == []
        browser.close()


@pytest.fixture(autouse=True)
def _begun(page: Any) -> Iterator[None]:
    """A session, ended after each test."""
    page.evaluate("window.loudest === undefined && (" + LISTEN + ")()")
    page.click("#begin")
    page.wait_for_selector("#interrupt:not([disabled])")
    page.evaluate("() => { window.loudest = 0 }")
    yield
    page.click("#begin")
    page.wait_for_selector("#interrupt[disabled]")


def until(page: Any, true: str) -> None:
    """Wait for an expression; the page's policy forbids what Playwright has for it."""
    ends = time.monotonic() + PATIENCE_S
    while not page.evaluate(true):
        assert time.monotonic() < ends, true
        page.wait_for_timeout(50)


def test_a_file_is_spoken_and_interrupted(page: Any) -> None:
    until(page, f"{SHOWN} > 3")
    before = page.evaluate(PICTURE)
    assert page.evaluate("document.querySelector('#face').width") == 64
    page.set_input_files("#file", EXAMPLES / "speech.wav")
    until(page, "window.loudest > 5000")
    until(page, f"{SHOWN} > 20")
    assert page.evaluate(PICTURE) != before
    until(page, "document.querySelector('#waiting').textContent > '1'")
    page.click("#interrupt")
    until(page, "document.querySelector('#waiting').textContent === '0.0 s'")
    page.select_option("#emotion", "happy")
    until(page, "/^\\d+ ms$/.test(document.querySelector('#delay').textContent)")
    assert page.inner_text("#told") == "It listens."


def test_a_microphone_is_heard(page: Any) -> None:
    page.click("#microphone")
    page.wait_for_selector("#microphone[aria-pressed=true]")
    until(page, "window.loudest > 1000")
    page.click("#microphone")
    page.wait_for_selector("#microphone[aria-pressed=false]")


def test_what_is_no_sound_is_told(page: Any, tmp_path: Path) -> None:
    (tmp_path / "<b>no.wav").write_bytes(b"no sound")
    page.set_input_files("#file", tmp_path / "<b>no.wav")
    page.wait_for_selector("#told.wrong")
    assert page.inner_text("#told").startswith("<b>no.wav cannot be heard")
