"""Containers and codecs: what each can hold, and what is refused before any work."""

import os
import re
import subprocess
from functools import lru_cache
from pathlib import Path

from moda_cli.errors import DeviceError, UsageError, did_you_mean
from moda_cli.media.ffmpeg import ffmpeg, first_error

# codec -> encoder, its settings and last the one that takes the crf; default and allowed crf
NVENC = ["-rc", "vbr", "-b:v", "0", "-cq"]  # at constant quality; a cq of 0 would be any
CODECS: dict[str, tuple[list[str], int, range]] = {
    "h264": (["libx264", "-preset", "veryfast", "-crf"], 20, range(52)),
    "hevc": (["libx265", "-preset", "ultrafast", "-x265-params", "log-level=error", "-crf"],
             24, range(52)),
    "vp9": (["libvpx-vp9", "-deadline", "realtime", "-cpu-used", "6", "-row-mt", "1", "-b:v", "0",
             "-crf"], 31, range(64)),
    "av1": (["libsvtav1", "-preset", "10", "-crf"], 32, range(64)),
    "prores": (["prores_ks", "-profile:v", "4444", "-vendor", "apl0", "-qscale:v"],
               9, range(1, 32)),
    "h264_nvenc": (["h264_nvenc", *NVENC], 20, range(1, 52)),
    "hevc_nvenc": (["hevc_nvenc", *NVENC], 24, range(1, 52)),
    "av1_nvenc": (["av1_nvenc", *NVENC], 32, range(1, 64)),
}  # fmt: skip
# codec -> sample format, where it is not the 4:2:0 that every player knows; with and without alpha
PIXELS = {"prores": "yuv444p10le"}
ALPHA_PIXELS = {"prores": "yuva444p10le", "vp9": "yuva420p"}
H264, HEVC, AV1 = ((codec, f"{codec}_nvenc") for codec in ("h264", "hevc", "av1"))
# suffix -> ffmpeg's muxer and its settings, codecs it takes (the first is the default), sound
CONTAINERS: dict[str, tuple[list[str], tuple[str, ...], list[str]]] = {
    ".mp4": (["mp4", "-movflags", "+faststart"], (*H264, *HEVC, *AV1), ["aac", "-b:a", "192k"]),
    ".mov": (["mov", "-movflags", "+faststart"], (*H264, *HEVC, "prores"), ["aac", "-b:a", "192k"]),
    ".mkv": (["matroska"], (*H264, *HEVC, "vp9", *AV1, "prores"), ["aac", "-b:a", "192k"]),
    ".webm": (["webm"], ("vp9", *AV1), ["libopus", "-b:a", "128k"]),
    ".gif": (["gif"], (), []),
    ".png": ([], (), []),
}
TRACKS = {".mp4": "mov_text", ".mov": "mov_text", ".mkv": "srt", ".webm": "webvtt"}  # of subtitles
PLAIN_ALPHA = (".gif", ".png")  # without a codec; a GIF's is on or off


def is_stdout(path: Path) -> bool:
    """Whether a video goes to standard output."""
    return str(path) == "-"


def final_path(path: Path) -> Path:
    """The one thing an output puts in place: numbered pictures are their folder."""
    is_pictures = path.suffix.lower() == ".png" and "%" in path.name
    return path.parent if is_pictures else path


def suffix_of(path: Path) -> str:
    """What names its format."""
    return ".mp4" if is_stdout(path) else path.suffix.lower()


def usual_codec(path: Path, codec: str | None = None, *, alpha: bool = False) -> str | None:
    """The codec that writes a video where none is asked for, None where its format has none."""
    able = [name for name in CONTAINERS[suffix_of(path)][1] if name in ALPHA_PIXELS or not alpha]
    return codec or next(iter(able), None)


def check_output(
    path: Path,
    codec: str | None = None,
    crf: int | None = None,
    *,
    alpha: bool = False,
    track: bool = False,
) -> None:
    """Refuse what `write_video` could not write, before any work. Raises UsageError.

    alpha: it is to be transparent. track: subtitles go into it as a track.
    """
    suffix = suffix_of(path)
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
        hint = did_you_mean(codec, codecs, f"{suffix} takes {', '.join(codecs)}")
        raise UsageError(f"cannot write {codec} video to {path}", hint=hint)
    name = usual_codec(path, codec, alpha=alpha)
    if alpha and suffix not in PLAIN_ALPHA and name not in ALPHA_PIXELS:
        holder = f"{codec} video" if codec else "a stream" if is_stdout(path) else suffix
        hint = "name a .mov (ProRes 4444), .webm (VP9) or .gif file, or pictures like dir/%06d.png"
        raise UsageError(f"{holder} cannot be transparent", hint=hint)
    if track and (is_stdout(path) or suffix not in TRACKS):
        holder = "a stream" if is_stdout(path) else suffix
        hint = "--subtitles-as burn draws them into the picture"
        raise UsageError(f"{holder} cannot hold subtitles as a track", hint=hint)
    if name and crf is not None:
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
    tried = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, check=False, errors="replace"
    )
    if tried.returncode != 0:
        raise DeviceError(
            f"the encoder {codec} cannot start: {first_error(tried.stderr)}",
            hint=f"it needs an NVIDIA GPU with its driver; --codec {codec[:-6]} needs none",
        )
