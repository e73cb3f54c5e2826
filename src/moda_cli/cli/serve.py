"""`moda serve`."""

from pathlib import Path
from typing import Annotated

from moda_cli.cli import clip_options as o
from moda_cli.cli.app import app, start_logging
from moda_cli.cli.opening import stay
from moda_cli.cli.options import FILES, Device, Quiet, Verbose
from moda_cli.cli.ui import SERVER, Host, Open, Port
from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig

CLIP = ClipConfig(Path(), Path("-"), Path("-"))  # a default has one home

Portrait = Annotated[Path, FILES.argument("PORTRAIT", "Picture of a face.")]
Token = Annotated[
    str | None,
    SERVER.text(
        "--token", "TEXT", "What clients must have. Default: made where --host lets others in."
    ),
]
MaxSessions = Annotated[
    int | None,
    SERVER.number(
        "--max-sessions", "Faces that speak at once. Default: one a core.", 1, 1000, whole=True
    ),
]
MaxDuration = Annotated[
    float, SERVER.number("--max-duration", "Seconds that a session lasts at most.", 1, 100_000)
]
EXAMPLES = """
Examples:
  moda serve me.png --open                    speak with the microphone, on a page
  moda serve me.png --host 0.0.0.0 --port 80  others may come, with the token that is printed
"""


@app.command(epilog=EXAMPLES)
def serve(
    portrait: Portrait,
    host: Host = "127.0.0.1",
    port: Port = None,
    token: Token = None,
    opened: Open = False,
    max_sessions: MaxSessions = None,
    max_duration: MaxDuration = 3600,
    face: o.Face = CLIP.face,
    face_points: o.FacePoints = CLIP.face_points,
    force: o.Force = CLIP.force,
    emotion: o.Emotion = CLIP.emotion,
    seed: o.Seed = CLIP.sampler.seed,
    full_frame: o.FullFrame = CLIP.render.full_frame,
    size: o.Size = CLIP.render.size,
    model: o.Model = "auto",
    renderer: o.Renderer = "auto",
    device: Device = "auto",
    dtype: o.Dtype = "auto",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Serve a face that speaks the sound it is sent, live, until Ctrl-C.

    A WebSocket takes sound and gives frames with their sound, in real time; a page speaks through
    it. Prints the page's address. Nobody but this machine reaches it unless --host says so.
    """
    start_logging(quiet, verbose)
    from moda_cli.live.address import address, check_extra, listen, needed_token

    check_extra()
    token = needed_token(host, token)
    with listen(host, port) as listening:
        from moda_cli.device import usable_cores, use_threads
        from moda_cli.live.service import Limits, Service, serving
        from moda_cli.live.speaker import Speaker
        from moda_cli.pipeline import Pipeline

        clip = ClipConfig(
            *(portrait, CLIP.audio, CLIP.output),
            emotion=emotion,
            face=face,
            face_points=face_points,
            force=force,
            sampler=SamplerConfig(seed=seed),
            render=RenderConfig(full_frame=full_frame, size=size),
        )
        speaker = Speaker(Pipeline.load(model, device, renderer, dtype), clip)
        limits = Limits(max_sessions or usable_cores(), max_duration)
        service = Service(speaker, limits, host, token)
        use_threads(1)  # each session has one of its own
        with serving(service, listening):
            stay(address(listening, host, token), opened, "" if quiet else "stopped")
