"""Where a clip is seen: its frames while they are made, then the video, in one element."""

from pathlib import Path
from typing import Any

from moda_cli.ui.machine import Progress, data_url

SERVED = "gradio_api/file="  # under which Gradio serves its temporary folder

TEMPLATE = """
<figure class="moda-stage">
  <div class="screen">
    <p class="empty">Your clip appears here.</p>
    <img alt="The latest frame of the clip in the making" hidden>
    <video controls playsinline hidden aria-label="The finished clip"></video>
  </div>
  <progress max="1" hidden aria-label="Share of the clip that is made"></progress>
  <figcaption><b role="status" aria-live="polite"></b> <span></span></figcaption>
</figure>
"""
STYLE = """
.moda-stage { margin: 0; }
.moda-stage .screen { display: grid; place-items: center; min-height: 300px; overflow: hidden;
  border-radius: 8px; background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); }
.moda-stage img, .moda-stage video { display: block; max-width: 100%; max-height: 70vh; }
.moda-stage [hidden] { display: none; }
.moda-stage progress { width: 100%; height: 6px; margin-top: 6px; appearance: none; border: 0;
  background: var(--border-color-primary); }
.moda-stage progress::-webkit-progress-bar { background: var(--border-color-primary); }
.moda-stage progress::-webkit-progress-value { background: var(--color-accent); }
.moda-stage progress::-moz-progress-bar { background: var(--color-accent); }
.moda-stage figcaption { min-height: 1.6em; margin-top: 4px; color: var(--body-text-color);
  font-size: var(--text-md); }
.moda-stage .empty { color: var(--body-text-color-subdued); }
"""
# Only what changed is touched: a video that plays goes on while other parts of the page change.
SCRIPT = """
const find = (name) => element.querySelector(name);
const show = () => {
  const now = props.value || {};
  const [image, video, bar] = [find('img'), find('video'), find('progress')];
  find('b').textContent = now.phase || '';
  find('span').textContent = now.detail || '';
  bar.hidden = now.share == null;
  if (now.share != null) bar.value = now.share;
  if (now.video) {
    const url = new URL(now.video, document.baseURI).href;
    if (video.src !== url) { video.src = url; video.play().catch(() => {}); }
  } else if (video.src) { video.pause(); video.removeAttribute('src'); video.load(); }
  if (now.picture) image.src = now.picture;
  video.hidden = !now.video;
  image.hidden = !!now.video || !now.picture;
  find('.empty').hidden = !video.hidden || !image.hidden;
};
watch('value', show);
show();
"""


VIEW = {"html_template": TEMPLATE, "css_template": STYLE, "js_on_load": SCRIPT}


def making(progress: Progress) -> dict[str, Any]:
    """What the stage shows of a clip in the making."""
    share = progress.done / progress.total if progress.total else 0.0
    picture = data_url(progress.picture) if progress.picture is not None else ""
    return {
        "phase": progress.phase_words,
        "detail": progress.detail,
        "share": share if progress.phase == "drawing" else 0.0,
        "picture": picture,
    }


def finished(video: Path, detail: str) -> dict[str, Any]:
    """What the stage shows of a finished clip."""
    return {"phase": "AI-generated clip.", "detail": detail, "video": f"{SERVED}{video}"}


def nothing(why: str = "") -> dict[str, Any]:
    """An empty stage."""
    return {"phase": why}
