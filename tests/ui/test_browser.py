"""The page in a browser: Debian's Chromium, driven as a visitor would."""

import base64
import os
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from chromium import CHROMIUM, FLAGS, MARKS
from input_cases import EXAMPLES
from page_server import Served, short_speech

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

pytestmark = MARKS
MAKING = "#stage img:not([hidden])"
MADE = "#stage video:not([hidden])"
# Keeps what the stage says and shows, however short.
HEAR = """() => {
  [window.heard, window.pictures] = [[], new Set()];
  const stage = document.querySelector('#stage'), image = stage.querySelector('img');
  new MutationObserver(() => {
    window.heard.push(stage.querySelector('figcaption').textContent);
    if (image.src) window.pictures.add(image.src);
  }).observe(stage, { subtree: true, childList: true, attributes: true, characterData: true });
}"""
READY = "#make:not([disabled])"
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def visit(served: Served, browser: Any) -> Iterator[Any]:
    """Opens the page for a new visitor."""
    contexts = []

    def visitor() -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.goto(served.address)
        page.wait_for_selector("#face-view img")
        return page

    yield visitor
    for context in contexts:
        context.close()


def quick(page: Any, folder: Path, seconds: float = 1.2) -> None:
    """Small frames and a short speech."""
    page.click("text=More")
    page.fill("#size input", "128")
    give(page, "#speech", short_speech(folder / "speech.wav", seconds))
    page.wait_for_function(
        f"document.querySelector('#speech').innerText.includes('0:0{seconds:.0f}')"
    )


def give(page: Any, field: str, path: Path) -> None:
    """Put a file in the place of the one that is there."""
    page.click(f"{field} button[aria-label='Remove Image'], {field} button[aria-label='Clear']")
    page.wait_for_timeout(400)  # an input that is still being put there loses its file
    page.set_input_files(f"{field} input[type=file]", path)


def complaint(page: Any) -> list[str]:
    """The lines of what the page complains of, once it does."""
    lines = page.wait_for_selector(".toast-body").inner_text().splitlines()
    return [line.strip() for line in lines if line.strip(" ×") and line != "Error"]


def clips(page: Any) -> list[str]:
    return [label.inner_text() for label in page.query_selector_all("#clips label")]


def video(page: Any, what: str) -> Any:
    return page.evaluate(f"() => document.querySelector('#stage video').{what}")


def test_the_example_is_made_played_to_its_end_and_a_second_clip_is_warm(
    served: Served, browser: Any
) -> None:
    context = browser.new_context()
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(served.address)
    page.wait_for_selector("#stage figcaption")
    page.evaluate(HEAR)
    page.click(READY)
    page.wait_for_selector(MADE)
    cold = time.monotonic() - served.began
    page.wait_for_function("document.querySelector('#stage video').readyState >= 2")
    assert video(page, "error") is None
    assert abs(video(page, "duration") - 10) < 0.1
    assert (video(page, "videoWidth"), video(page, "videoHeight")) == (512, 512)
    assert "AI-generated" in page.inner_text("#stage figcaption")
    heard = page.evaluate("window.heard")
    assert any(re.search(r"Drawing frame \d+ of 250, [1-9]\d* frames/s", said) for said in heard)
    assert page.evaluate("window.pictures.size") > 3  # of the clip in the making

    page.evaluate("() => { document.querySelector('#stage video').playbackRate = 8 }")
    first = frame(page)
    page.wait_for_function("document.querySelector('#stage video').ended")
    assert 2 < np.abs(first.astype(float) - frame(page)).mean() < 60  # another moment, same face
    portrait = cv2.imread(str(EXAMPLES / "portrait.png"))
    assert np.abs(portrait.astype(float) - frame(page)).mean() < 30

    began = time.monotonic()
    page.click("#again")
    page.wait_for_function("document.querySelectorAll('#clips label').length == 2")
    assert time.monotonic() - began < cold
    seeds = {title.split("seed ")[1].split(",")[0] for title in clips(page)}
    assert len(seeds) == 2
    assert "42" in seeds
    host = served.address.rstrip("/")
    assert [url for url in asked if not url.startswith((host, "data:", "blob:"))] == []
    context.close()


def frame(page: Any) -> Any:
    """What the video element shows, (512, 512, 3) BGR."""
    script = """() => {
      const video = document.querySelector('#stage video');
      const canvas = document.createElement('canvas');
      [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
      canvas.getContext('2d').drawImage(video, 0, 0);
      return canvas.toDataURL('image/png').split(',')[1];
    }"""
    data = np.frombuffer(base64.b64decode(page.evaluate(script)), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def test_cancel_gives_the_machine_back_within_a_second(visit: Any) -> None:
    page = visit()
    page.click(READY)
    page.wait_for_selector(MAKING)
    began = time.monotonic()
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled.")
    page.click(READY)
    page.wait_for_selector("#stage b:has-text('Drawing')")
    assert time.monotonic() - began < 5  # two clicks and the first frames of another clip
    page.click("#cancel")
    page.wait_for_selector("text=Cancelled.")
    assert clips(page) == []


@pytest.mark.parametrize(
    ("name", "told", "remedy"),
    [
        ("text.png", "cannot read text.png as a picture", "portraits are PNG, JPEG"),
        ("noise.png", "noise.png: no face found", "use another portrait, or give the pupils"),
    ],
)
def test_what_is_no_portrait_is_refused_in_two_lines(
    visit: Any, tmp_path: Path, name: str, told: str, remedy: str
) -> None:
    page = visit()
    (tmp_path / name).write_bytes(b"Dear reader,\n" if name == "text.png" else noise())
    give(page, "#portrait", tmp_path / name)
    page.wait_for_selector(".toast-body")  # of looking at it
    page.click(READY)
    page.wait_for_selector("#stage b:has-text('Not made.')")
    page.wait_for_selector(READY)
    lines = [line for line in complaint(page) if not line.startswith("(")]
    assert lines[0] == told
    assert lines[1].startswith(remedy)
    assert set(lines) == set(lines[:2])  # told again of the clip, and nothing else
    give(page, "#portrait", EXAMPLES / "portrait.png")
    page.wait_for_selector("#face-view img")


def noise() -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    return cv2.imencode(".png", picture)[1].tobytes()


def test_two_visitors_at_once_get_a_clip_each_and_see_only_their_own(
    visit: Any, tmp_path: Path
) -> None:
    pages = [visit(), visit()]
    for page, words in zip(pages, ("happy", "sad"), strict=True):
        quick(page, tmp_path)
        page.fill("#seed input", {"happy": "7", "sad": "8"}[words])
    for page in pages:
        page.click(READY)
    for page, seed in zip(pages, (7, 8), strict=True):
        page.wait_for_selector(MADE)
        page.wait_for_function("document.querySelectorAll('#clips label').length == 1")
        assert clips(page) == [f"1: none, seed {seed}, 1.2 s"]
    assert video(pages[0], "src") != video(pages[1], "src")


def test_a_reload_in_the_middle_keeps_earlier_clips_and_frees_the_machine(
    visit: Any, tmp_path: Path
) -> None:
    page = visit()
    quick(page, tmp_path)
    page.fill("#seed input", "9")
    page.click(READY)
    page.wait_for_selector(MADE)
    page.wait_for_function("document.querySelectorAll('#clips label').length == 1")
    page.fill("#size input", "")
    give(page, "#speech", EXAMPLES / "speech.wav")
    page.wait_for_function("document.querySelector('#speech').innerText.includes('0:10')")
    page.click(READY)
    page.wait_for_selector(MAKING)
    page.reload()
    page.wait_for_function("document.querySelectorAll('#clips label').length == 1")
    began = time.monotonic()
    page.click(READY)
    page.wait_for_selector("#stage b:has-text('Drawing')")
    assert time.monotonic() - began < 5
    page.click("#cancel")
    page.click("#reuse")
    page.wait_for_function("document.querySelector('#seed input').value == '9'")


def test_an_upload_of_30_mb_is_refused(visit: Any, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "long.wav").write_bytes(b"RIFF" + os.urandom(30_000_000))
    give(page, "#speech", tmp_path / "long.wav")
    (said,) = complaint(page)
    assert "exceed the maximum allowed size of 25" in said
    assert "long.wav" in said


def test_the_keyboard_is_enough(visit: Any, tmp_path: Path) -> None:
    page = visit()
    quick(page, tmp_path)
    page.focus("#emotion input")
    page.wait_for_selector("#emotion [role=option]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#emotion input').value == 'anger'")
    tab_to(page, "#make")
    page.keyboard.press("Enter")
    page.wait_for_selector(MADE)
    page.wait_for_function("document.querySelectorAll('#clips label').length == 1")
    assert clips(page) == ["1: anger, seed 42, 1.2 s"]
    tab_to(page, "#stage video")
    tab_to(page, "#again")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelectorAll('#clips label').length == 2")


def tab_to(page: Any, target: str) -> None:
    """Press Tab until this element, or one in it, has the focus."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found = f"() => !!document.activeElement.closest({target!r})"
        if page.evaluate(found):
            return
    raise AssertionError(f"no Tab leads to {target}")


def test_a_timeline_is_edited_and_followed_and_two_clips_compared(
    visit: Any, tmp_path: Path
) -> None:
    page = visit()
    quick(page, tmp_path, 2.2)
    page.click(READY)
    page.wait_for_selector(MADE)
    page.click("role=tab[name=Timeline]")
    page.click("#timeline-drawing svg", position={"x": 300, "y": 40})
    page.wait_for_function("Number(document.querySelector('#at input').value) > 0.1")
    page.click("#add-entry")
    page.wait_for_selector("#timeline-drawing text:has-text('happy')")
    page.click("#use-timeline")
    page.click("text=The next clip follows this timeline.")
    page.click("role=tab[name=Make]")
    page.click(READY)
    page.wait_for_function("document.querySelectorAll('#clips label').length == 2")
    titles = clips(page)
    assert titles == ["2: none, timeline, seed 42, 2.2 s", "1: none, seed 42, 2.2 s"]

    page.click("role=tab[name=Compare]")
    page.wait_for_selector("#compare polyline >> nth=1")
    page.wait_for_function(
        "[...document.querySelectorAll('#compare video')].every(v => v.duration)"
    )
    page.click("#compare .play")
    page.wait_for_function("document.querySelector('#compare video').currentTime > 1")
    page.click("#compare .play")
    first, second = page.evaluate(
        "() => [...document.querySelectorAll('#compare video')].map(v => v.currentTime)"
    )
    assert abs(first - second) < 0.1

    narrow(page)
    page.set_viewport_size({"width": 1280, "height": 900})
    page.click("role=tab[name=Timeline]")
    narrow(page)
    page.fill("#at input", "7")
    page.click("#add-entry")
    page.wait_for_selector("text=timeline.csv, line 3: an entry at 7 s is past the end, 2.20 s")


def narrow(page: Any) -> None:
    """Make the window as narrow as a telephone, and wait until nothing scrolls sideways."""
    page.set_viewport_size({"width": 390, "height": 800})
    page.wait_for_function("document.documentElement.scrollWidth <= 390")


def test_a_batch_makes_what_it_can(visit: Any, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "me.png").write_bytes((EXAMPLES / "portrait.png").read_bytes())
    short_speech(tmp_path / "speech.wav")
    rows = ["portrait,audio,size,seed", "me.png,speech.wav,64,1", "you.png,speech.wav,64,2"]
    (tmp_path / "jobs.csv").write_text("\n".join([*rows, "me.png,speech.wav,64,3"]))
    page.click("role=tab[name=Batch]")
    files = [tmp_path / name for name in ("jobs.csv", "me.png", "speech.wav")]
    page.set_input_files("#batch-files input[type=file]", files)
    page.wait_for_function("document.querySelector('#batch-files').innerText.includes('speech')")
    page.click("#make-batch")
    page.wait_for_selector("#batch-stage >> text=2 of 3 clips made")
    states = page.inner_text("#jobs")
    assert states.count("made") == 2
    assert "you.png is missing; drop it beside the list" in states
    with page.expect_download() as saved:
        page.click("#save-batch:not([disabled])")
    with zipfile.ZipFile(saved.value.path()) as archive:
        assert archive.namelist() == ["01_me_speech.mp4", "03_me_speech.mp4"]
