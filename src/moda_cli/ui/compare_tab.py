"""Two of the visitor's clips in step, with their lip curves under them."""

from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import UsageError
from moda_cli.motion import lips_asked, load_motion
from moda_cli.ui.actions import Actions
from moda_cli.ui.drawings import curves_drawing
from moda_cli.ui.make_tab import PRIVATE
from moda_cli.ui.sessions import Made
from moda_cli.ui.stage import SERVED

HELP = "How far each clip wants the lips apart, in distances between the pupils, by the second."
TEMPLATE = """
<div class="moda-compare" hidden>
  <div class="pair">
    <figure><video playsinline></video><figcaption></figcaption></figure>
    <figure><video playsinline muted></video><figcaption></figcaption></figure>
  </div>
  <div class="controls">
    <button type="button" class="play">Play both</button>
    <input type="range" min="0" max="1" step="0.001" value="0" aria-label="Moment of both clips">
  </div>
  <div class="curves"></div>
</div>
"""
STYLE = """
.moda-compare[hidden] { display: none; }
.moda-compare .pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr));
  gap: 12px; }
.moda-compare { contain: inline-size; }
.moda-compare figure { margin: 0; min-width: 0; }
.moda-compare video { display: block; width: 100%; max-height: 55vh; border-radius: 8px; }
.moda-compare figcaption, .moda-compare .curves { color: var(--body-text-color); }
.moda-compare .controls { display: flex; gap: 12px; align-items: center; margin: 10px 0; }
.moda-compare .controls input { flex: 1; min-width: 0; accent-color: var(--color-accent); }
.moda-compare .play { padding: 6px 14px; border-radius: 6px; color: var(--body-text-color);
  background: var(--button-secondary-background-fill); cursor: pointer;
  border: 1px solid var(--border-color-primary); }
.moda-compare .curves { overflow-x: auto; contain: inline-size; }
.moda-compare .now { stroke: var(--color-accent); }
"""
# The second clip follows the first: it is put right where they are a frame apart.
SCRIPT = """
const box = element.querySelector('.moda-compare');
const [first, second] = box.querySelectorAll('video');
const button = box.querySelector('.play'), range = box.querySelector('input');
const lasts = () => Math.max(first.duration || 0, second.duration || 0);
const follow = () => {
  const time = first.currentTime;
  const apart = Math.abs(second.currentTime - time);
  if (apart > 0.04 && time < second.duration) second.currentTime = time;
  const share = lasts() ? time / lasts() : 0;
  range.value = share;
  const line = box.querySelector('.now');
  if (line) line.setAttribute('transform', `translate(${share * 1000} 0)`);
  if (!first.paused) requestAnimationFrame(follow);
};
button.addEventListener('click', () => {
  if (!first.paused) { first.pause(); return; }
  if (first.ended) first.currentTime = 0;
  second.currentTime = first.currentTime;
  first.play();
  second.play();
});
first.addEventListener('play', () => { button.textContent = 'Pause'; follow(); });
first.addEventListener('pause', () => { button.textContent = 'Play both'; second.pause(); });
first.addEventListener('seeked', follow);
range.addEventListener('input', () => {
  first.pause();
  first.currentTime = second.currentTime = range.value * lasts();
});
const show = () => {
  const now = props.value;
  box.hidden = !(now && now.videos);
  if (box.hidden) { first.pause(); return; }
  now.videos.forEach((name, index) => {
    const video = [first, second][index], url = new URL(name, document.baseURI).href;
    if (video.src !== url) video.src = url;
    box.querySelectorAll('figcaption')[index].textContent = now.titles[index];
    video.setAttribute('aria-label', now.titles[index]);
  });
  box.querySelector('.curves').innerHTML = now.curves;
};
watch('value', show);
show();
"""


class CompareActions:
    """What the choices of the tab do."""

    def __init__(self, actions: Actions) -> None:
        self.actions = actions

    def listed(self, token: str, request: gr.Request) -> tuple[Any, Any]:
        """The visitor's clips to choose from: the last two."""
        clips = self.actions.session(token, request).clips
        titles = [(made.title, number) for number, made in clips.items()]
        last = list(clips)[-2:] if len(clips) > 1 else [None, None]
        return tuple(gr.Dropdown(choices=titles, value=value) for value in last)

    def compared(
        self, token: str, request: gr.Request, first: int | None, second: int | None
    ) -> dict[str, Any]:
        """Both clips and their curves; nothing while one is not chosen."""
        if first is None or second is None:
            return {}
        clips = self.actions.session(token, request).clips
        with self.actions.errors():
            if not {first, second} <= clips.keys():
                raise UsageError("one of these clips is gone", hint="choose another")
            pair = clips[first], clips[second]
            titles = [made.title for made in pair]
            return {
                "videos": [f"{SERVED}{made.result.output}" for made in pair],
                "titles": titles,
                "curves": curves_drawing([openings(made) for made in pair], titles),
            }


def openings(made: Made) -> NDArray[np.float64]:
    """How far a clip's motion wants the lips apart, (T,) at 25 fps, in distances of the pupils."""
    recording = load_motion(made.motion)
    return np.asarray(lips_asked(recording.motion.double(), recording.neutral.double()).numpy())


def compare_tab(actions: Actions, token: gr.State) -> None:
    """Lay the tab out and wire it."""
    comparing = CompareActions(actions)
    with gr.Tab("Compare") as tab:
        with gr.Row():
            first = gr.Dropdown([], label="A clip", elem_id="compare-first")
            second = gr.Dropdown([], label="beside another", elem_id="compare-second")
        view = gr.HTML(
            {}, html_template=TEMPLATE, css_template=STYLE, js_on_load=SCRIPT, elem_id="compare"
        )
        gr.Markdown(HELP)
    shows: dict[str, Any] = {
        "fn": comparing.compared, "inputs": [token, first, second], "outputs": view, **PRIVATE
    }  # fmt: skip
    tab.select(comparing.listed, token, [first, second], **PRIVATE).then(**shows)
    first.input(**shows)
    second.input(**shows)
