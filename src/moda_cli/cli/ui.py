"""`moda ui`."""

from typing import Annotated

from moda_cli.cli import clip_options as o
from moda_cli.cli.app import app, let_threads_sleep, start_logging
from moda_cli.cli.opening import stay
from moda_cli.cli.options import Device, Panel, Quiet, Verbose

SERVER = Panel("Server")

Host = Annotated[
    str, SERVER.text("--host", "ADDRESS", "Who may come: 0.0.0.0 lets the whole network in.")
]
Port = Annotated[
    int | None,
    SERVER.number("--port", "Default: the first free one from 7860.", 1, 65535, whole=True),
]
Share = Annotated[
    bool, SERVER.switch("--share", "Through Gradio's tunnel, for all who know the address.")
]
Open = Annotated[bool, SERVER.switch("--open", "Show the page in the system's browser.")]
MaxUpload = Annotated[
    float, SERVER.number("--max-upload", "Megabytes of a file that is taken.", 0.1, 10_000)
]
MaxDuration = Annotated[
    float, SERVER.number("--max-duration", "Seconds of speech that are taken.", 1, 36_000)
]


@app.command()
def ui(
    host: Host = "127.0.0.1",
    port: Port = None,
    share: Share = False,
    opened: Open = False,
    max_upload: MaxUpload = 25,
    max_duration: MaxDuration = 300,
    model: o.Model = "auto",
    renderer: o.Renderer = "auto",
    device: Device = "auto",
    dtype: o.Dtype = "auto",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Serve a page on which clips are made, until Ctrl-C.

    Prints its address. Nobody but this machine reaches it unless --host or --share says so.
    """
    start_logging(quiet, verbose)
    let_threads_sleep()
    from moda_cli.ui.server import Place, check_extra, check_port, serving

    place = Place(host, port, share)
    check_extra()
    check_port(place)
    from moda_cli.ui.limits import Limits

    limits = Limits(max_upload, max_duration)
    with serving(place, limits, model, renderer, device, dtype) as address:
        stay(address, opened, "" if quiet else "stopped; its files are gone")
