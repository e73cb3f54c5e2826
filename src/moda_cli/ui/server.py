"""The server: a temporary folder, a warm machine and the page, until it is told to end."""

import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from moda_cli.errors import ModaError, UsageError
from moda_cli.files import example
from moda_cli.ui.heap import few_arenas

if TYPE_CHECKING:
    from moda_cli.ui.limits import Limits
    from moda_cli.ui.machine import Machine

INSTALL = "pip install 'moda-cli[ui]'"
OFFLINE = {  # of what Gradio reads when it is imported
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the page is reached."""

    host: str = "127.0.0.1"
    port: int | None = None  # None: the first free one from 7860
    share: bool = False  # through Gradio's tunnel, for everybody who knows the address


def check_extra() -> None:
    """Raises UsageError where Gradio is not installed."""
    if find_spec("gradio") is None:
        raise UsageError("the page needs Gradio, which is not here", hint=INSTALL)


def check_port(place: Place) -> None:
    """Raises UsageError where nobody may listen: at once, not after seconds of loading."""
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    with socket.socket(family) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((place.host, place.port or 0))
        except OSError as error:
            where = f"{place.host}, port {place.port}"
            hint = "give another --port, or none"
            raise UsageError(f"cannot serve on {where}: {error.strerror}", hint=hint) from None


@contextmanager
def serving(
    place: Place, limits: "Limits", model: str, renderer: str, device: str, dtype: str
) -> Iterator[str]:
    """The page's address, for as long as the block lasts; then its files are gone.

    Raises WeightsError and DeviceError for a model that cannot be had.
    """
    with tempfile.TemporaryDirectory(prefix="moda-ui-") as name:
        root = Path(name).resolve()
        os.environ.update(OFFLINE)
        os.environ["GRADIO_TEMP_DIR"] = str(root)
        os.environ["GRADIO_EXAMPLES_CACHE"] = str(root / "examples")
        few_arenas()
        import gradio as gr

        from moda_cli.ui.actions import Actions
        from moda_cli.ui.machine import Machine
        from moda_cli.ui.page import STYLE, build_page, theme
        from moda_cli.ui.sessions import Sessions

        machine = Machine(model, renderer, device, dtype, limits.waiting)
        sessions = Sessions(root / "clips", limits)
        (root / "examples").mkdir()
        portrait, speech = (
            Path(shutil.copy(example(name), root / "examples"))
            for name in ("portrait.png", "speech.wav")
        )
        actions = Actions(machine, sessions, limits)
        page = build_page(actions, (portrait, speech), machine.models(), secrets.token_hex(8))
        page.queue(default_concurrency_limit=4)
        loading = threading.Thread(target=_warm, args=(machine,), daemon=True)
        loading.start()
        _, local, shared = page.launch(
            server_name=place.host,
            server_port=place.port,
            share=place.share,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            max_file_size=f"{limits.upload_mb:g}mb",
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            theme=theme(),
            css=STYLE,
        )
        try:
            yield shared or local
        finally:
            machine.close()
            with suppress(Exception):  # whatever is still asking
                page.close(verbose=False)
            gr.close_all(verbose=False)


def _warm(machine: "Machine") -> None:
    """Load the model before the first clip; what is wrong is said with that one."""
    with suppress(ModaError):
        machine.load("auto")
