"""Errors as the page says them: what is wrong, what helps, and never a traceback."""

import html
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moda_cli.errors import ModaError

log = logging.getLogger(__name__)

SHOWN_S = 20.0
FIELDS = {  # how the page names what the command line does
    "--face-points": "Face points",
    "--force": "Animate a doubtful face",
    "--emotion": "Emotion",
    "--size": "Longer side",
    "--timeline": "Timeline",
}
FLAG = re.compile(r"--[a-z][a-z-]+")
UNSAID = re.compile(r"(?:, or )?--show-landmarks \S+ draws it(?:; )?|(?:^|; )pass -y[^;]*")


@contextmanager
def page_errors(root: Path) -> Iterator[None]:
    """What leaves this block is an error of Gradio's, in two lines.

    root: the server's folder, of which nobody hears.
    """
    import gradio as gr

    try:
        yield
    except ModaError as error:
        lines = [told(str(error), root), told(error.hint, root)]
        said = "<br>".join(html.escape(line).replace("\n", "<br>") for line in lines if line)
        raise gr.Error(said, duration=SHOWN_S, print_exception=False) from None
    except gr.Error:
        raise
    except Exception:
        log.exception("a fault of the page")
        said = "this is a fault of moda's own<br>its terminal says more; please report it"
        raise gr.Error(said, duration=SHOWN_S, print_exception=False) from None


def told(text: str, root: Path) -> str:
    """A message without the server's folders, its options named as the fields are."""
    text = re.sub(re.escape(str(root)) + r"(?:/[^/\s:]+)*/", "", text)
    text = UNSAID.sub("", text)
    return FLAG.sub(lambda match: FIELDS.get(match[0], match[0]), text).strip("; ")
