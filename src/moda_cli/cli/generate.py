"""`moda generate`."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import typer

from moda_cli.cli import clip_options as o
from moda_cli.cli.app import app, let_threads_sleep, start_logging
from moda_cli.cli.bar import phases
from moda_cli.cli.batch import Machines, run_batch
from moda_cli.cli.download import download_bars
from moda_cli.cli.opening import open_file
from moda_cli.cli.options import AsJson, Device, PrintConfig, Quiet, Verbose
from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import UsageError

EXAMPLE_MADE = (
    "the example: a drawn portrait says a sentence, both from the package;"
    " your own: moda generate PORTRAIT AUDIO"
)
CLIP = ClipConfig(Path(), Path(), Path())  # a default has one home
SAMPLER, RENDER = CLIP.sampler, CLIP.render

EXAMPLES = """
Examples:
  moda generate --open                                    the example that comes with moda
  moda generate me.png speech.wav --emotion happy --open  makes me_speech.mp4 and plays it
  moda generate portraits/ speeches/ -o out/ --workers 2  every pair of the same name

What an option is: given here, else MODA_OPTION (such as MODA_DEVICE) in the environment, else in
moda.toml in the working folder, else built in. --print-config shows which.
"""


@app.command(epilog=EXAMPLES)
def generate(
    portrait: o.Portrait = None,
    audio: o.Audio = None,
    output: o.Output = None,
    overwrite: o.Overwrite = CLIP.overwrite,
    opened: o.Open = False,
    face: o.Face = CLIP.face,
    face_points: o.FacePoints = CLIP.face_points,
    background: o.Background = CLIP.background,
    motion: o.Motion = CLIP.motion,
    take: o.Take = None,
    force: o.Force = CLIP.force,
    emotion: o.Emotion = CLIP.emotion,
    timeline: o.Timeline = CLIP.timeline,
    emotion_scale: o.EmotionScale = SAMPLER.emotion_scale,
    audio_scale: o.AudioScale = SAMPLER.audio_scale,
    guidance: o.Guidance = SAMPLER.guidance,
    head_motion: o.HeadMotion = RENDER.head_motion,
    expression_scale: o.ExpressionScale = RENDER.expression_scale,
    blink: o.Blink = RENDER.blink,
    blink_rate: o.BlinkRate = RENDER.blink_rate,
    silence_gate: o.SilenceGate = RENDER.silence_gate,
    redrive: o.Redrive = RENDER.redrive,
    seed: o.Seed = SAMPLER.seed,
    steps: o.Steps = SAMPLER.steps,
    full_frame: o.FullFrame = RENDER.full_frame,
    size: o.Size = RENDER.size,
    aspect: o.Aspect = RENDER.aspect,
    fps: o.Fps = RENDER.fps,
    codec: o.Codec = CLIP.codec,
    crf: o.Crf = CLIP.crf,
    sound: o.Sound = CLIP.sound,
    subtitles: o.Subtitles = CLIP.subtitles,
    subtitles_as: o.SubtitlesAs = CLIP.subtitles_as,
    label: o.Label = CLIP.label,
    font: o.Font = CLIP.font,
    provenance: o.Provenance = CLIP.provenance,
    c2pa: o.C2pa = CLIP.c2pa,
    save_motion: o.SaveMotion = CLIP.save_motion,
    save_timeline: o.SaveTimeline = CLIP.save_timeline,
    plot: o.Plot = CLIP.plot,
    preview: o.Preview = CLIP.preview,
    show_landmarks: o.ShowLandmarks = CLIP.show_landmarks,
    save_crop: o.SaveCrop = CLIP.save_crop,
    check: o.Check = False,
    min_sync: o.MinSync = 0.2,
    model: o.Model = "auto",
    renderer: o.Renderer = "auto",
    device: Device = "auto",
    dtype: o.Dtype = "auto",
    compiled: o.Compile = False,
    jobs: o.Jobs = None,
    product: o.Product = False,
    workers: o.Workers = None,
    batch: o.Batch = None,
    gpus: o.Gpus = None,
    ray: o.Ray = None,
    shard: o.Shard = "0/1",
    retry_failed: o.RetryFailed = False,
    strict: o.Strict = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    print_config: PrintConfig = False,
) -> None:
    """Animate PORTRAIT so that it speaks AUDIO.

    Folders, or --jobs, make a batch: the same command again goes on where it stopped.
    """
    start_logging(quiet, verbose)
    let_threads_sleep()
    from moda_cli.files import check_inputs, example, free_name

    streaming = str(output) == "-"
    if streaming and sys.stdout.isatty():
        hint = "pipe it, as in `moda generate PORTRAIT AUDIO -o - | ffplay -`, or name a file"
        raise UsageError("a terminal cannot show the video that -o - writes", hint=hint)
    if streaming and (as_json or opened):
        other = "--json" if as_json else "--open"
        raise UsageError(f"{other} and -o - cannot be combined", hint="give a file to --output")
    pictures = output is not None and output.suffix.lower() == ".png"
    if check and (streaming or pictures or str(audio) == "-"):
        raise UsageError("--check reads video and sound again", hint="give it files of both")
    alone = not (portrait or audio or jobs)
    if alone:
        portrait, audio = example("portrait.png"), example("speech.wav")
    clip = ClipConfig(
        portrait=portrait or Path(),
        audio=audio or Path(),
        output=output or Path(),
        emotion=emotion,
        timeline=timeline,
        face=face,
        face_points=face_points,
        force=force,
        background=background,
        motion=motion,
        take=",".join(take or ()) or None,
        save_motion=save_motion,
        save_timeline=save_timeline,
        plot=plot,
        preview=preview,
        show_landmarks=show_landmarks,
        save_crop=save_crop,
        codec=codec,
        crf=crf,
        sound=sound,
        subtitles=subtitles,
        subtitles_as=subtitles_as,
        label=label,
        font=font,
        provenance=provenance,
        c2pa=c2pa,
        overwrite=overwrite,
        sampler=SamplerConfig(steps, guidance, audio_scale, emotion_scale, seed),
        render=RenderConfig(
            head_motion,
            expression_scale,
            blink,
            full_frame,
            size,
            fps,
            blink_rate,
            silence_gate,
            aspect,
            redrive,
        ),
    )
    if jobs or (portrait and audio and (portrait.is_dir() or audio.is_dir())):
        if streaming or check or opened:
            what = "-o -" if streaming else "--check" if check else "--open"
            raise UsageError(f"{what} is for a single clip", hint="give -o a folder")
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
    if portrait is None or audio is None:
        absent = "PORTRAIT" if portrait is None else "AUDIO"
        hint = "`moda generate` alone makes an example"
        raise UsageError(f"{absent} is missing", hint=f"{hint}; see `moda generate --help`")
    if any((product, workers, batch, gpus, ray, shard != "0/1", retry_failed, strict)):
        raise UsageError(
            "a batch's option was given for a single clip", hint="give folders, or --jobs"
        )
    check_inputs(portrait, audio)
    if not streaming:
        place = _clip_path(output or Path(), portrait, audio)
        clip = replace(clip, output=place if output or overwrite else free_name(place))
    gc.disable()  # or it walks all of torch while that loads, and once more at the end
    from moda_cli.checks import resolve  # torch loads here: `--help` stays instant
    from moda_cli.pipeline import Pipeline

    gc.freeze()
    gc.enable()

    with _folder_made(output or clip.output):
        resolved = resolve(clip, _flag)  # weights may take an hour to come
        with phases(resolved.fps, shown=not quiet) as show:
            show("loading")
            with download_bars(shown=not quiet) as on_progress:
                pipeline = Pipeline.load(
                    model, device, renderer, dtype, compiled, on_progress, resolved.config
                )
            result = pipeline.generate(resolved, on_phase=show)
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
    if alone and not quiet:
        typer.echo(EXAMPLE_MADE, err=True)
    if as_json:
        typer.echo(json.dumps(report, default=str))
    elif not (quiet or streaming):
        typer.echo(result.output)
    if opened:
        open_file(result.output)
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
