"""`moda generate`."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from moda_cli.cli.app import AsJson, Quiet, Verbose, app, start_logging
from moda_cli.cli.download import download_bars
from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import InputError, UsageError


@contextmanager
def _frame_bar(shown: bool) -> Iterator[Any]:
    """A callback (done, total) that draws frames, frames per second and time left on stderr."""
    if not (shown and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("rendering"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=None, rate="")
        started = time.perf_counter()

        def on_frame(done: int, total: int) -> None:
            rate = done / (time.perf_counter() - started)
            progress.update(task, completed=done, total=total, rate=f"{rate:.0f} frames/s")

        yield on_frame


CLIP = ClipConfig(Path(), Path(), Path())  # a default has one home
SAMPLER, RENDER = CLIP.sampler, CLIP.render


@app.command()
def generate(
    portrait: Annotated[Path, typer.Argument(help="Picture of a face.")],
    audio: Annotated[Path, typer.Argument(help="Speech in any format, a video's sound, or -.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Video (.mp4 .mov .webm .mkv .gif), folder/, or dir/%06d.png."
        ),
    ],
    emotion: Annotated[
        str,
        typer.Option(
            help="anger contempt disgust fear happy neutral sad surprise none,"
            " or a timeline: 0:neutral,2.5:happy."
        ),
    ] = CLIP.emotion,
    guidance: Annotated[
        float | None,
        typer.Option(min=0, max=20, help="Joint guidance; 1 is off. Default: the model's."),
    ] = SAMPLER.guidance,
    audio_scale: Annotated[
        float | None, typer.Option(min=0, max=20, help="Guidance towards the speech; 1 is off.")
    ] = SAMPLER.audio_scale,
    emotion_scale: Annotated[
        float | None, typer.Option(min=0, max=20, help="Guidance towards the emotion; 1 is off.")
    ] = SAMPLER.emotion_scale,
    steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Steps of the Euler solver.")
    ] = SAMPLER.steps,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Same seed, same video.")
    ] = SAMPLER.seed,
    head_motion: Annotated[
        float, typer.Option(min=0, max=10, help="Multiplies head movement.")
    ] = RENDER.head_motion,
    expression_scale: Annotated[
        float, typer.Option(min=0, max=10, help="Multiplies the facial expression.")
    ] = RENDER.expression_scale,
    blink: Annotated[bool, typer.Option(help="Move the eyelids.")] = RENDER.blink,
    face: Annotated[
        str, typer.Option(help="largest, left, right, or a number counted from the left.")
    ] = CLIP.face,
    face_points: Annotated[
        str | None,
        typer.Option(
            metavar="'X,Y X,Y X,Y'", help="Left pupil, right pupil, mouth centre, in pixels."
        ),
    ] = CLIP.face_points,
    show_landmarks: Annotated[
        Path | None, typer.Option(help="Write the portrait with the face points drawn in.")
    ] = CLIP.show_landmarks,
    save_crop: Annotated[
        Path | None, typer.Option(help="Write the crop of the face that the networks see.")
    ] = CLIP.save_crop,
    background: Annotated[
        str, typer.Option(help="Colour behind a transparent portrait: a name or #rrggbb.")
    ] = CLIP.background,
    full_frame: Annotated[
        bool,
        typer.Option("--full-frame/--crop", help="The whole portrait, or the crop round the face."),
    ] = RENDER.full_frame,
    fps: Annotated[float, typer.Option(min=1, max=120, help="Frames per second.")] = RENDER.fps,
    size: Annotated[
        int | None,
        typer.Option(
            min=64,
            max=4096,
            help="Longer side in pixels, even. Default: the portrait's, at most 1280.",
        ),
    ] = RENDER.size,
    codec: Annotated[
        str | None,
        typer.Option(help="An ffmpeg video encoder. Default: the container's usual one."),
    ] = CLIP.codec,
    crf: Annotated[
        int | None, typer.Option(min=0, max=63, help="Quality; smaller is better.")
    ] = CLIP.crf,
    sound: Annotated[
        bool, typer.Option("--audio/--no-audio", help="Put the sound in the video.")
    ] = (CLIP.sound),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", "-y", help="Replace files that are there.")
    ] = CLIP.overwrite,
    motion: Annotated[
        Path | None, typer.Option(help="Render this motion file instead of sampling one.")
    ] = CLIP.motion,
    save_motion: Annotated[
        Path | None, typer.Option(help="Write the motion as safetensors.")
    ] = CLIP.save_motion,
    plot: Annotated[
        Path | None, typer.Option(help="Write the motion's curves under the waveform, as PNG.")
    ] = CLIP.plot,
    preview: Annotated[
        Path | None, typer.Option(help="Write a contact sheet, as PNG.")
    ] = CLIP.preview,
    model: Annotated[
        str,
        typer.Option(help="auto, mini (bundled), moda (official), or a directory of a training."),
    ] = "auto",
    renderer: Annotated[
        Literal["auto", "rig", "liveportrait"],
        typer.Option(help="Who draws the frames. Default: the one that belongs to the model."),
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"],
        typer.Option(help="Precision of LivePortrait's networks. auto: float16 on CUDA."),
    ] = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Animate PORTRAIT so that it speaks AUDIO."""
    start_logging(quiet, verbose)
    if guidance is not None and (audio_scale is not None or emotion_scale is not None):
        raise UsageError(
            "--guidance cannot be combined with --audio-scale or --emotion-scale",
            hint="--guidance scales both together; give either it or the per-condition scales",
        )
    if size is not None and size % 2:
        raise UsageError(f"--size {size} is odd", hint=f"use {size - 1} or {size + 1}")
    if str(output) == "-":
        raise UsageError("streaming to stdout is not there yet", hint="give a file to --output")
    for path, what in ((portrait, "PORTRAIT"), (audio, "AUDIO")):
        if path.is_dir():
            raise InputError(
                f"{what} {path} is a folder", hint="this version makes one clip at a time"
            )

    clip = ClipConfig(
        portrait=portrait,
        audio=audio,
        output=_clip_path(output, portrait, audio),
        emotion=emotion,
        face=face,
        face_points=face_points,
        background=background,
        motion=motion,
        save_motion=save_motion,
        plot=plot,
        preview=preview,
        show_landmarks=show_landmarks,
        save_crop=save_crop,
        codec=codec,
        crf=crf,
        sound=sound,
        overwrite=overwrite,
        sampler=SamplerConfig(steps, guidance, audio_scale, emotion_scale, seed),
        render=RenderConfig(head_motion, expression_scale, blink, full_frame, size, fps),
    )
    from moda_cli.pipeline import Pipeline  # torch loads here: `moda --help` stays instant

    with download_bars(shown=not quiet) as on_progress:
        pipeline = Pipeline.load(model, device, renderer, dtype, on_progress)
    with _frame_bar(not quiet) as on_frame:
        result = pipeline.generate(clip, on_frame)
    if as_json:
        report = {**asdict(result), "model": pipeline.name, "seed": seed, "emotion": emotion}
        typer.echo(json.dumps(report, default=str))
    elif not quiet:
        typer.echo(result.output)


def _clip_path(output: Path, portrait: Path, audio: Path) -> Path:
    """The file to write; a folder gets `portrait_audio.mp4`."""
    if output.is_dir() or not output.suffix:
        sound = "stdin" if str(audio) == "-" else audio.stem
        return output / f"{portrait.stem}_{sound}.mp4"
    return output
