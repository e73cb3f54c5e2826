"""Frames and sound to a video file."""

import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from moda_cli.errors import UsageError
from moda_cli.files import atomic_write, held_beside, remove_abandoned
from moda_cli.media.credentials import Credentials, sign
from moda_cli.media.ffmpeg import ffmpeg, first_error, read_log
from moda_cli.media.formats import (
    ALPHA_PIXELS,
    CODECS,
    CONTAINERS,
    HEVC,
    PIXELS,
    TRACKS,
    check_encoder,
    check_output,
    is_stdout,
    suffix_of,
    usual_codec,
)
from moda_cli.media.pictures import Picture, encode_image
from moda_cli.media.provenance import NOTICE, comment
from moda_cli.media.sound_input import sound_input
from moda_cli.media.subtitles import Cue, srt_text
from moda_cli.media.tracks import Block
from moda_cli.media.waves import Wave
from moda_cli.stopwatch import Watch, unwatched

OnFrame = Callable[[int], None]  # frames done

# MP4 in fragments that are written while it is made; the header waits for the first one, because it
# says how much of the sound's first packet is heard
STREAM = ["mp4", "-movflags", "+frag_keyframe+delay_moov+default_base_moof",
          "-frag_duration", "200000", "-flush_packets", "1"]  # fmt: skip
AT_ONCE = {
    "h264": ["-tune", "zerolatency"],
    "hevc": ["-tune", "zerolatency"],
    **{codec: ["-tune", "ll", "-zerolatency", "1", "-delay", "0", "-bf", "0"]
       for codec in CODECS if codec.endswith("_nvenc")},
}  # fmt: skip
KEYFRAMES_S = 2  # where a player can join
# RGB frames as the BT.709 that players assume or read from the tags
BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv,format={},"
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
)
POSTERS = ("mp4",)  # muxers that keep a cover, which folders and media libraries show
GIF_PALETTE_FRAMES = 50  # the palette is made from these, so that a GIF streams too
QUEUE_FRAMES = 4


def write_video(
    frames: Iterable[Picture],
    path: Path,
    fps: float,
    *,
    audio: Path | Wave | Iterable[Block] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    subtitles: Sequence[Cue] = (),
    said: Mapping[str, Any] | None = None,
    credentials: Credentials | None = None,
    on_frame: OnFrame | None = None,
    overwrite: bool = True,
    watch: Watch = unwatched,
) -> int:
    """Encode frames, uint8 (H, W, 3) RGB or (H, W, 4) RGBA, as they come; returns their number.

    The suffix names the container: .mp4 .mov .mkv .webm .gif, or numbered pictures `dir/%06d.png`
    from 0; `-` is fragmented MP4 on standard output, which ends well when its reader has gone.
    `audio`, a sound file, a 16 kHz wave or the blocks of `played`, perhaps still arriving, starts
    with frame 0 and keeps its length, channels and rate; a rate that players may not take becomes
    48 kHz. subtitles: go in as a track. said: goes into the comment beside the notice that it is
    AI-generated; None, of what is not, leaves both out. credentials: sign the file. An MP4's cover
    is frame 0. A file appears whole or not at all. watch(stage) is entered while the encoder takes
    frames (`encoding`) and is waited for.

    Raises UsageError where that cannot be done, or without `overwrite` where the file has come to
    be there meanwhile; DeviceError where the codec needs a GPU that is not
    there, ValueError for frames of odd or differing size.
    """
    track = bool(subtitles)
    check_output(path, codec, crf, track=track)
    if codec:
        check_encoder(codec)
    checked = _checked(frames)
    first = next(checked, None)
    if first is None:
        raise ValueError("a video needs a frame")
    height, width, channels = first.shape
    if alpha := channels == 4:
        check_output(path, codec, crf, alpha=True, track=track)
    text = "" if said is None else comment(said)
    stream: Iterable[Picture] = chain([first], checked)
    if suffix_of(path) == ".png":
        return _write_pictures(stream, path, text, on_frame, overwrite)

    muxer, _, sound = CONTAINERS[suffix_of(path)]
    pixels = "rgba" if alpha else "rgb24"
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", f"{width}x{height}",
              "-r", str(frame_rate(fps)), "-i", "pipe:0"]  # fmt: skip
    name = usual_codec(path, codec, alpha=alpha)
    if not is_stdout(path):
        remove_abandoned(path)
    whole = nullcontext() if is_stdout(path) else atomic_write(path, overwrite=overwrite)
    with (
        tempfile.TemporaryDirectory() as folder,
        sound_input(audio, sound, Path(folder)) as (sound_source, sound_output, pipe, failed),
        whole as temporary,
    ):
        command = [*ffmpeg(), *source]
        if name:
            if width % 2 or height % 2:
                raise ValueError(f"frames of odd size {width}x{height}")
            cover = first if temporary and muxer[0] in POSTERS else None
            more = _more_inputs(subtitles, cover, suffix_of(path), 1 + bool(sound_source), folder)
            command += [*sound_source, *more[0], "-map", "0:v", *sound_output, *more[1]]
            encoder, default_crf, _ = CODECS[name]
            quality = str(default_crf if crf is None else crf)
            form = ALPHA_PIXELS[name] if alpha else PIXELS.get(name, "yuv420p")
            command += ["-c:v:0", *encoder, quality, "-filter:v:0", BT709.format(form)]
            if alpha and name == "vp9":
                command += ["-auto-alt-ref", "0"]  # libvpx keeps no alpha beside it
            if name in HEVC and muxer[0] != "matroska":
                command += ["-tag:v:0", "hvc1"]  # the one Apple's players know
            if temporary is None:
                command += [*AT_ONCE.get(name, []), "-g", str(round(KEYFRAMES_S * fps))]
        else:
            head = list(islice(stream, GIF_PALETTE_FRAMES))
            stream = chain(head, stream)
            command += _palette_arguments(head, source, Path(folder) / "palette.png", path)
        command += ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact",
                    "-flags:v", "+bitexact", "-flags:a", "+bitexact"]  # fmt: skip
        if text:
            command += ["-metadata", f"title={NOTICE}", "-metadata", f"comment={text}"]
        target = [*STREAM, "pipe:1"] if temporary is None else [*muxer, f"file:{temporary}"]
        count = _run([*command, "-f", *target], stream, path, on_frame, pipe, watch)
        if failed:
            raise failed[0]
        if temporary and text and muxer[0] == "gif":
            _comment_gif(temporary, text)
        if temporary and credentials:
            sign(temporary, path, said or {}, credentials)
    return count


def _more_inputs(
    subtitles: Sequence[Cue], cover: Picture | None, suffix: str, number: int, folder: str
) -> tuple[list[str], list[str]]:
    """Inputs from `number` on beside picture and sound, and what becomes of them."""
    inputs, outputs = list[str](), list[str]()
    if subtitles:
        file = Path(folder) / "subtitles.srt"
        file.write_text(srt_text(subtitles), "utf-8")
        inputs += ["-f", "srt", "-i", str(file)]
        outputs += ["-map", f"{number}:s", "-c:s", TRACKS[suffix], "-disposition:s:0", "default"]
        number += 1
    if cover is not None:
        file = Path(folder) / "cover.jpg"
        file.write_bytes(encode_image(file, cover))
        inputs += ["-i", str(file)]
        outputs += ["-map", f"{number}:v", "-c:v:1", "copy", "-disposition:v:1", "attached_pic"]
    return inputs, outputs


def frame_rate(fps: float) -> Fraction:
    """The exact rate of a video: 29.97 is 30000/1001, as are 23.976, 59.94 and 119.88 alike."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return (
        ntsc if 0 < abs(fps - ntsc) < 0.005 and fps % 1 else Fraction(fps).limit_denominator(1001)
    )


def _checked(frames: Iterable[Picture]) -> Iterator[Picture]:
    shape: tuple[int, ...] | None = None
    for frame in frames:
        shape = shape or frame.shape
        if frame.shape != shape or frame.shape[2:] not in ((3,), (4,)) or frame.dtype != np.uint8:
            raise ValueError(f"frame of {frame.dtype} {frame.shape} in a video of {shape}")
        yield frame


def _pass_on(process: "subprocess.Popen[bytes]", failed: list[OSError]) -> None:
    """Copy what ffmpeg makes to standard output as it comes, for as long as that can be."""
    assert process.stdout is not None
    while data := os.read(process.stdout.fileno(), 1 << 16):
        try:
            while data:
                data = data[os.write(sys.stdout.fileno(), data) :]
        except OSError as error:
            failed.append(error)
            process.kill()
            return


def _palette_arguments(
    head: list[Picture], source: list[str], palette: Path, path: Path
) -> list[str]:
    """Filters that draw with one palette made from the first frames."""
    make = [*ffmpeg(), *source, "-vf", "palettegen=stats_mode=full", "-update", "1", str(palette)]
    _run(make, head, path, None)
    dither = "[0:v][1:v]paletteuse=dither=bayer:bayer_scale=4:diff_mode=rectangle"
    return ["-i", str(palette), "-filter_complex", dither]


def _run(
    command: list[str],
    frames: Iterable[Picture],
    path: Path,
    on_frame: OnFrame | None,
    pass_fds: tuple[int, ...] = (),
    watch: Watch = unwatched,
) -> int:
    """Run ffmpeg with frames on its stdin, written by a thread so that encoding overlaps."""
    # not queue.Queue, which may lose a wake-up, and hang, when Ctrl-C comes in the midst of a put
    waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    room: queue.SimpleQueue[None] = queue.SimpleQueue()
    for _ in range(QUEUE_FRAMES):
        room.put(None)
    ended, failed = threading.Event(), list[OSError]()
    count = 0
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if is_stdout(path) else log,
            stderr=log,
            pass_fds=pass_fds,
        ) as process,
    ):
        stdin = process.stdin
        assert stdin is not None

        def pump() -> None:
            while (data := waiting.get()) is not None:
                try:
                    with watch("encoding"):
                        stdin.write(data)
                except OSError:  # ffmpeg has given up; its exit status says so
                    ended.set()
                room.put(None)
            with suppress(OSError):
                stdin.close()

        thread = threading.Thread(target=pump, name="video writer")
        thread.start()
        streamer = threading.Thread(target=_pass_on, args=(process, failed), daemon=True)
        if process.stdout:
            streamer.start()
        try:
            for count, frame in enumerate(frames, start=1):
                with watch("waiting"):
                    room.get()
                waiting.put(frame.tobytes())  # a copy: the renderer may use its buffer again
                if on_frame:
                    on_frame(count)
                if ended.is_set():
                    break
        except BaseException:
            process.kill()
            raise
        finally:
            waiting.put(None)
            thread.join()
        if process.stdout:
            streamer.join()
        if failed and not isinstance(failed[0], BrokenPipeError):
            raise UsageError(f"cannot write to standard output: {failed[0].strerror}")
        with watch("waiting"):
            status = process.wait()
        if status != 0 and not failed:
            raise UsageError(f"cannot write {path}: {first_error(read_log(log))}")
    return count


def _comment_gif(path: Path, comment: str) -> None:
    """Put a comment before the trailer of a GIF."""
    text = comment.encode("ascii", "replace")
    blocks = [text[i : i + 255] for i in range(0, len(text), 255)]
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x21\xfe" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0\x3b")


def _write_pictures(
    frames: Iterable[Picture],
    path: Path,
    comment: str,
    on_frame: OnFrame | None,
    overwrite: bool,
) -> int:
    """Numbered pictures, made in a folder of their own; frames of a longer, older run go."""
    folder, count = path.parent, 0
    beside = folder if folder.exists() else folder.parent
    remove_abandoned(beside / folder.name)
    try:
        with held_beside(beside / folder.name, Path.mkdir) as temporary:
            for count, frame in enumerate(frames, start=1):
                picture = temporary / (path.name % (count - 1))
                picture.write_bytes(encode_image(path, frame, comment))
                if on_frame:
                    on_frame(count)
            if not (folder.exists() and overwrite):
                temporary.replace(folder)  # fails onto one that has come to hold something
            for picture in temporary.glob("*"):
                picture.replace(folder / picture.name)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    index = count
    while (old := folder / (path.name % index)).exists():
        old.unlink()
        index += 1
    return count
