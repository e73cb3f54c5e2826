"""The page: its words, its tabs and what happens when it is opened and left."""

from pathlib import Path
from typing import Any

import gradio as gr

from moda_cli import __version__
from moda_cli.ui.actions import Actions
from moda_cli.ui.batch_tab import batch_tab
from moda_cli.ui.compare_tab import compare_tab
from moda_cli.ui.make_tab import PRIVATE, make_tab
from moda_cli.ui.timeline_tab import timeline_tab

CONSENT = (
    "Animate a face only with the consent of whoever it shows, or where it shows nobody, and tell"
    " those who watch that a machine made what they see."
)
FILES = (
    "What you give and what is made stays on the machine that serves this page, in a temporary"
    " folder that is removed when it ends. Every video says in its metadata that it is"
    " AI-generated, and how it was made."
)
STYLE = """
.gradio-container { max-width: 1280px !important; margin: 0 auto !important; }
#entries, #jobs { overflow-x: auto; contain: inline-size; }
#consent p { border-left: 4px solid var(--color-accent); padding-left: 10px; }
"""


def build_page(
    actions: Actions, examples: tuple[Path, Path], models: list[str], secret: str
) -> gr.Blocks:
    """The whole page. secret: what the token in the visitor's browser is encrypted with."""
    with gr.Blocks(title="moda", analytics_enabled=False, delete_cache=(3600, 86400)) as page:
        gr.Markdown(
            f"# moda\nOne portrait and one speech recording in, an **AI-generated** talking-head"
            f" video out. *{__version__}*"
        )
        gr.Markdown(CONSENT, elem_id="consent")
        kept = gr.BrowserState("", storage_key="moda", secret=secret)
        token = gr.State("")
        with gr.Tab("Make"):
            parts = make_tab(actions, token, examples, models)
        timeline_tab(actions, token, parts["speech"], parts["timeline"])
        batch_tab(actions, token)
        compare_tab(actions, token)
        gr.Markdown(FILES, elem_id="files")
        entered = page.load(actions.enter, kept, [kept, token], **PRIVATE)
        entered.then(actions.listed, token, parts["clips"], **PRIVATE)
        page.load(**parts["looks"], api_visibility="private")
        page.unload(actions.leave)
    return page


def theme() -> Any:
    """Gradio's own, with fonts that the machine has: nothing is fetched from elsewhere."""
    fonts = ["system-ui", "sans-serif"]
    return gr.themes.Default(font=fonts, font_mono=["ui-monospace", "monospace"])
