"""Frames and sound to a video file."""

import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext, suppress
from fractions import Fraction
from functools import lru_cache
from io import BytesIO
from itertools import chain, islice
from pathlib import Path

import numpy as np

from moda_cli.errors import DeviceError, UsageError
from moda_cli.files import atomic_write, temporary_beside
from moda_cli.media.ffmpeg import ffmpeg, first_error
from moda_cli.media.pictures import Picture, encode_image
from moda_cli.media.provenance import NOTICE
from moda_cli.media.sound_input import sound_input
from moda_cli.media.tracks import Block
from moda_cli.media.waves import Wave

OnFrame = Callable[[int], None]  # frames done

# codec -> encoder, its settings and last the one that takes the crf; default and allowed crf
NVENC = ["-rc", "vbr", "-b:v", "0", "-cq"]  # at constant quality; a cq of 0 would be any
CODECS: dict[str, tuple[list[str], int, range]] = {
    "h264": (["libx264", "-preset", "veryfast", "-crf"], 20, range(52)),
    "hevc": (["libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-crf"],
             24, range(52)),
    "vp9": (["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1", "-b:v", "0",
             "-crf"], 31, range(64)),
    "av1": (["libsvtav1", "-preset", "10", "-crf"], 32, range(64)),
    "h264_nvenc": (["h264_nvenc", *NVENC], 20, range(1, 52)),
    "hevc_nvenc": (["hevc_nvenc", *NVENC], 24, range(1, 52)),
    "av1_nvenc": (["av1_nvenc", *NVENC], 32, range(1, 64)),
}  # fmt: skip
H264, HEVC, AV1 = ((codec, f"{codec}_nvenc") for codec in ("h264", "hevc", "av1"))
# suffix -> ffmpeg's muxer and its settings, codecs it takes (the first is the default), sound
CONTAINERS: dict[str, tuple[list[str], tuple[str, ...], list[str]]] = {
    ".mp4": (["mp4", "-movflags", "+faststart"], (*H264, *HEVC, *AV1), ["aac", "-b:a", "192k"]),
    ".mov": (["mov", "-movflags", "+faststart"], (*H264, *HEVC), ["aac", "-b:a", "192k"]),
    ".mkv": (["matroska"], (*H264, *HEVC, "vp9", *AV1), ["aac", "-b:a", "192k"]),
    ".webm": (["webm"], ("vp9", *AV1), ["libopus", "-b:a", "128k"]),
    ".gif": (["gif"], (), []),
    ".png": ([], (), []),
}
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
BT709 = [
    "scale=out_color_matrix=bt709:out_range=tv",
    "format=yuv420p",
    "setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709",
]
GIF_PALETTE_FRAMES = 50  # the palette is made from these, so that a GIF streams too
QUEUE_FRAMES = 4


def is_stdout(path: Path) -> bool:
    """Whether a video goes to standard output."""
    return str(path) == "-"


def final_path(path: Path) -> Path:
    """The one thing an output puts in place: numbered pictures are their folder."""
    is_pictures = path.suffix.lower() == ".png" and "%" in path.name
    return path.parent if is_pictures else path


def _suffix(path: Path) -> str:
    return ".mp4" if is_stdout(path) else path.suffix.lower()


def check_output(path: Path, codec: str | None = None, crf: int | None = None) -> None:
    """Refuse what `write_video` could not write, before any work. Raises UsageError."""
    suffix = _suffix(path)
    if suffix not in CONTAINERS:
        hint = f"end its name in one of {' '.join(CONTAINERS)}"
        raise UsageError(
            f"cannot write {path}: no video format {suffix or 'without suffix'}", hint=hint
        )
    if suffix == ".png" and not re.fullmatch(r"[^%]*%0?\d*d[^%]*", path.name):
        hint = "name the frames like %06d.png"
        raise UsageError(f"cannot write a video to the single picture {path}", hint=hint)
    _, codecs, _ = CONTAINERS[suffix]
    if not codecs and (codec or crf is not None):
        raise UsageError(f"{suffix} takes neither a codec nor a crf")
    if codec is not None and codec not in codecs:
        hint = f"{suffix} takes {', '.join(codecs)}"
        raise UsageError(f"cannot write {codec} video to {path}", hint=hint)
    if codecs and crf is not None:
        name = codec or codecs[0]
        allowed = CODECS[name][2]
        if crf not in allowed:
            reason = f"crf {crf} is not in {allowed[0]}-{allowed[-1]}"
            raise UsageError(reason, hint=f"the codec is {name}")
    if is_stdout(path):
        return
    folder = path.parent.parent if suffix == ".png" and not path.parent.exists() else path.parent
    reason = (
        f"there is no folder {folder}" if not folder.exists()
        else f"{folder} is no folder" if not folder.is_dir()
        else f"{folder} may not be written" if not os.access(folder, os.W_OK)
        else "it is a folder" if path.is_dir()
        else ""
    )  # fmt: skip
    if reason:
        hint = "choose a folder that exists and is yours to write"
        raise UsageError(f"cannot write {path}: {reason}", hint=hint)


@lru_cache
def check_encoder(codec: str) -> None:
    """Try an encoder that needs a GPU. Raises DeviceError where it cannot start."""
    if not codec.endswith("_nvenc"):
        return
    command = [*ffmpeg(), "-f", "lavfi", "-i", "color=s=256x256:d=0.1", "-pix_fmt", "yuv420p",
               "-c:v", *CODECS[codec][0], "20", "-f", "null", "-"]  # fmt: skip
    tried = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if tried.returncode != 0:
        raise DeviceError(
            f"the encoder {codec} cannot start: {first_error(BytesIO(tried.stderr))}",
            hint=f"it needs an NVIDIA GPU with its driver; --codec {codec[:-6]} needs none",
        )


def write_video(
    frames: Iterable[Picture],
    path: Path,
    fps: float,
    *,
    audio: Path | Wave | Iterable[Block] | None = None,
    codec: str | None = None,
    crf: int | None = None,
    metadata: Mapping[str, str] | None = None,
    on_frame: OnFrame | None = None,
) -> int:
    """Encode frames, uint8 (H, W, 3) RGB, as they come; returns how many there were.

    The suffix names the container: .mp4 .mov .mkv .webm .gif, or numbered pictures `dir/%06d.png`
    from 0; `-` is fragmented MP4 on standard output, which ends well when its reader has gone.
    `audio`, a sound file, a 16 kHz wave or the blocks of `played`, perhaps still arriving, starts
    with frame 0 and keeps its length, channels and rate; a rate that players may not take becomes
    48 kHz. A file appears whole or not at all. The comment says that it is AI-generated.

    Raises UsageError where that cannot be done, DeviceError where the codec needs a GPU that is not
    there, ValueError for frames of odd or differing size.
    """
    check_output(path, codec, crf)
    if codec:
        check_encoder(codec)
    remarks = [f"{name} {value}" for name, value in (metadata or {}).items()]
    comment = "; ".join([NOTICE, *remarks])
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError("a video needs a frame")
    stream = _checked(chain([first], iterator), first.shape)
    if _suffix(path) == ".png":
        return _write_pictures(stream, path, comment, on_frame)

    muxer, codecs, sound = CONTAINERS[_suffix(path)]
    height, width = first.shape[:2]
    rate = str(frame_rate(fps))
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate,
              "-i", "pipe:0"]  # fmt: skip
    whole = nullcontext() if is_stdout(path) else atomic_write(path)
    with (
        tempfile.TemporaryDirectory() as folder,
        sound_input(audio, sound, Path(folder)) as (sound_arguments, sound_pipe, failed),
        whole as temporary,
    ):
        command = [*ffmpeg(), *source]
        if codecs:
            if width % 2 or height % 2:
                raise ValueError(f"frames of odd size {width}x{height}")
            command += sound_arguments
            name = codec or codecs[0]
            encoder, default_crf, _ = CODECS[name]
            quality = str(default_crf if crf is None else crf)
            command += ["-c:v", *encoder, quality, "-vf", ",".join(BT709)]
            if name in HEVC and muxer[0] != "matroska":
                command += ["-tag:v", "hvc1"]  # the one Apple's players know
            if temporary is None:
                command += [*AT_ONCE.get(name, []), "-g", str(round(KEYFRAMES_S * fps))]
        else:
            head = list(islice(stream, GIF_PALETTE_FRAMES))
            stream = chain(head, stream)
            command += _palette_arguments(head, source, Path(folder) / "palette.png", path)
        command += ["-map_metadata", "-1", "-map_chapters", "-1", "-fflags", "+bitexact",
                    "-flags:v", "+bitexact", "-flags:a", "+bitexact",
                    "-metadata", f"title={NOTICE}", "-metadata", f"comment={comment}"]  # fmt: skip
        target = [*STREAM, "pipe:1"] if temporary is None else [*muxer, f"file:{temporary}"]
        count = _run([*command, "-f", *target], stream, path, on_frame, sound_pipe)
        if failed:
            raise failed[0]
        if temporary and muxer[0] == "gif":
            _comment_gif(temporary, comment)
    return count


def frame_rate(fps: float) -> Fraction:
    """The exact rate of a video: 29.97 is 30000/1001, as are 23.976, 59.94 and 119.88 alike."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return (
        ntsc if 0 < abs(fps - ntsc) < 0.005 and fps % 1 else Fraction(fps).limit_denominator(1001)
    )


def _checked(frames: Iterable[Picture], shape: tuple[int, ...]) -> Iterator[Picture]:
    for frame in frames:
        if (
            frame.shape != shape
            or frame.ndim != 3
            or frame.shape[2] != 3
            or frame.dtype != np.uint8
        ):
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
        if process.wait() != 0 and not failed:
            raise UsageError(f"cannot write {path}: {first_error(log)}")
    return count


def _comment_gif(path: Path, comment: str) -> None:
    """Put a comment before the trailer of a GIF."""
    text = comment.encode("ascii", "replace")
    blocks = [text[i : i + 255] for i in range(0, len(text), 255)]
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x21\xfe" + b"".join(bytes([len(b)]) + b for b in blocks) + b"\0\x3b")


def _write_pictures(
    frames: Iterable[Picture], path: Path, comment: str, on_frame: OnFrame | None
) -> int:
    """Numbered pictures, made in a folder of their own; frames of a longer, older run go."""
    folder, count = path.parent, 0
    beside = folder if folder.exists() else folder.parent
    temporary = temporary_beside(beside / folder.name)
    try:
        temporary.mkdir()
        for count, frame in enumerate(frames, start=1):
            (temporary / (path.name % (count - 1))).write_bytes(encode_image(path, frame, comment))
            if on_frame:
                on_frame(count)
        if not folder.exists():
            temporary.replace(folder)
        for picture in temporary.glob("*"):
            picture.replace(folder / picture.name)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    index = count
    while (old := folder / (path.name % index)).exists():
        old.unlink()
        index += 1
    return count
