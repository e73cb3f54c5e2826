"""`moda generate`."""

import gc
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from moda_cli.cli.app import AsJson, Quiet, Verbose, app, start_logging
from moda_cli.cli.bar import progress_bar
from moda_cli.cli.batch import Machines, run_batch
from moda_cli.cli.download import download_bars
from moda_cli.config import LIMITS, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import UsageError

if TYPE_CHECKING:
    from moda_cli.pipeline import OnFrame


@contextmanager
def _frame_bar(fps: float, shown: bool) -> "Iterator[OnFrame | None]":
    """A callback (done, total) that draws frames of `fps`, their rate, RTF and time to go."""
    with progress_bar("rendering", "rate", shown=shown) as draw:
        started = time.perf_counter()

        def on_frame(done: int, total: int | None) -> None:
            assert draw is not None
            seconds = time.perf_counter() - started
            draw(done, total, rate=f"{done / seconds:.0f} frames/s, RTF {seconds * fps / done:.2f}")

        yield on_frame if draw else None


def _limited(name: str, help: str) -> Any:
    low, high = LIMITS[name]
    return typer.Option(min=low, max=high, help=help)


CLIP = ClipConfig(Path(), Path(), Path())  # a default has one home
SAMPLER, RENDER = CLIP.sampler, CLIP.render


@app.command()
def generate(
    portrait: Annotated[
        Path | None, typer.Argument(help="Picture of a face, or a folder of them.")
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Argument(
            help="Speech in any format, a video's sound, or a folder; - takes WAV, or raw 16-bit"
            " 16 kHz mono PCM, as it arrives."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Video (.mp4 .mov .webm .mkv .gif), folder/, dir/%06d.png, or - to stream MP4."
            " A batch's may be named like out/{portrait}_{seed}.mp4.",
        ),
    ] = None,
    emotion: Annotated[
        str,
        typer.Option(
            help="anger contempt disgust fear happy neutral sad surprise none,"
            " or a timeline: 0:neutral,2.5:happy."
        ),
    ] = CLIP.emotion,
    guidance: Annotated[
        float | None,
        _limited("guidance", help="Joint guidance; 1 is off. Default: the model's."),
    ] = SAMPLER.guidance,
    audio_scale: Annotated[
        float | None,
        _limited("audio_scale", help="Guidance towards the speech; 1 is off."),
    ] = SAMPLER.audio_scale,
    emotion_scale: Annotated[
        float | None,
        _limited("emotion_scale", help="Guidance towards the emotion; 1 is off."),
    ] = SAMPLER.emotion_scale,
    steps: Annotated[int, _limited("steps", help="Steps of the Euler solver.")] = SAMPLER.steps,
    seed: Annotated[int, _limited("seed", help="Same seed, same video.")] = SAMPLER.seed,
    head_motion: Annotated[
        float, _limited("head_motion", help="Multiplies head movement.")
    ] = RENDER.head_motion,
    expression_scale: Annotated[
        float, _limited("expression_scale", help="Multiplies the facial expression.")
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
    fps: Annotated[float, _limited("fps", help="Frames per second.")] = RENDER.fps,
    size: Annotated[
        int | None,
        _limited(
            "size",
            help="Longer side in pixels, even. Default: the portrait's, at most 1280.",
        ),
    ] = RENDER.size,
    codec: Annotated[
        str | None,
        typer.Option(
            help="h264 hevc vp9 av1, or h264_nvenc hevc_nvenc av1_nvenc on an NVIDIA GPU."
            " Default: the container's usual one."
        ),
    ] = CLIP.codec,
    crf: Annotated[int | None, _limited("crf", help="Quality; smaller is better.")] = CLIP.crf,
    sound: Annotated[
        bool, typer.Option("--audio/--no-audio", help="Put the sound in the video.")
    ] = CLIP.sound,
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
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile", help="Compile the networks: a slow first run, faster ones after it."
        ),
    ] = False,
    check: Annotated[
        bool,
        typer.Option("--check", help="Decode and judge the finished file; exit 1 if it fails."),
    ] = False,
    min_sync: Annotated[
        float, typer.Option(min=-1, max=1, help="Least correlation of mouth and sound for --check.")
    ] = 0.3,
    jobs: Annotated[
        Path | None,
        typer.Option(help="Batch: a .csv or .jsonl of jobs, a column an option; - is stdin."),
    ] = None,
    product: Annotated[
        bool, typer.Option("--product", help="Batch: every portrait with every speech.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Batch: processes, on each GPU or in all. Default: 1."),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=64,
            help="Batch: clips whose motion a process samples side by side."
            " Default: 8 on a GPU, 1 on a CPU.",
        ),
    ] = None,
    gpus: Annotated[str | None, typer.Option(help="Batch: all, or numbers such as 0,2.")] = None,
    ray: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Batch: run on this Ray cluster.")
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Batch: every N-th job, I from 0.")
    ] = "0/1",
    force: Annotated[
        bool,
        typer.Option("--force", help="Animate a doubtful face too. Batch: finished jobs again."),
    ] = CLIP.force,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Batch: failed jobs again.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Batch: do not start if an input is unusable.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Animate PORTRAIT so that it speaks AUDIO.

    Folders, or --jobs, make a batch: the same command again goes on where it stopped.
    """
    start_logging(quiet, verbose)
    streaming = str(output) == "-"
    if streaming and as_json:
        raise UsageError("--json and -o - both write to stdout", hint="give a file to --output")
    pictures = output is not None and output.suffix.lower() == ".png"
    if check and (streaming or pictures or str(audio) == "-"):
        raise UsageError("--check reads video and sound again", hint="give it files of both")
    clip = ClipConfig(
        portrait=portrait or Path(),
        audio=audio or Path(),
        output=output or Path(),
        emotion=emotion,
        face=face,
        face_points=face_points,
        force=force,
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
    if jobs or (portrait and audio and (portrait.is_dir() or audio.is_dir())):
        if streaming or check:
            raise UsageError("a batch writes files, unchecked", hint="give -o a folder, no --check")
        made_by = Machines(model, renderer, device, dtype, compiled, workers or 1, batch, gpus, ray)
        run_batch(
            clip,
            (portrait, audio, output, jobs),
            made_by,
            product=product,
            shard=shard,
            force=force,
            retry_failed=retry_failed,
            strict=strict,
            as_json=as_json,
            quiet=quiet,
        )
        return
    if portrait is None or audio is None or output is None:
        absent = "PORTRAIT" if portrait is None else "AUDIO" if audio is None else "--output"
        raise UsageError(f"{absent} is missing", hint="see `moda generate --help`")
    alone = (product, workers, batch, gpus, ray, shard != "0/1", retry_failed, strict)
    if any(alone):
        raise UsageError(
            "a batch's option was given for a single clip", hint="give folders, or --jobs"
        )
    if not streaming:
        clip = replace(clip, output=_clip_path(output, portrait, audio))
    gc.disable()  # or it walks all of torch while that loads, and once more at the end
    from moda_cli.checks import resolve  # torch loads here: `--help` stays instant
    from moda_cli.pipeline import Pipeline

    gc.freeze()
    gc.enable()

    with _folder_made(output):
        resolved = resolve(clip, _flag)  # weights may take an hour to come
        with download_bars(shown=not quiet) as on_progress:
            pipeline = Pipeline.load(model, device, renderer, dtype, compiled, on_progress)
        with _frame_bar(fps, not quiet) as on_frame:
            result = pipeline.generate(resolved, on_frame)
    report = {**asdict(result), "model": pipeline.name, "seed": seed, "emotion": emotion}
    failed = False
    if check:
        from moda_cli.evaluate.check import check_clip
        from moda_cli.media import CONTAINERS, read_audio

        sounds = sound and bool(CONTAINERS[result.output.suffix.lower()][2])
        made = result.output, read_audio(audio), result.frames, result.fps
        checked = check_clip(*made, min_sync, sounds=sounds)
        failed = checked.verdict == "failed"
        measures = asdict(checked.measures) if checked.measures else {}
        report["check"] = {"verdict": checked.verdict, "reason": checked.reason, **measures}
        typer.echo(f"check: {checked.verdict}: {checked.reason}", err=True)
    if as_json:
        typer.echo(json.dumps(report, default=str))
    elif not (quiet or streaming):
        typer.echo(result.output)
    if failed:
        raise typer.Exit(1)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@contextmanager
def _folder_made(output: Path) -> Iterator[None]:
    """An output that is a folder is made where only it is missing; it stays if a clip comes in."""
    made = not (output.suffix or output.exists() or str(output) == "-")
    if made:
        with suppress(OSError):  # the checks of the clip say it better
            output.mkdir()
    try:
        yield
    finally:
        if made:
            with suppress(OSError):
                output.rmdir()


def _clip_path(output: Path, portrait: Path, audio: Path) -> Path:
    """The file to write; a folder gets `portrait_audio.mp4`."""
    if output.is_dir() or not output.suffix:
        sound = "stdin" if str(audio) == "-" else audio.stem
        return output / f"{portrait.stem}_{sound}.mp4"
    return output
