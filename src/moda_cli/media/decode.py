"""Frames of a video file as a player shows them, and its sound on their clock.

The clock of a video begins with its first picture, whatever its container counts from.
"""

import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moda_cli.config import FPS, LIMITS, SAMPLE_RATE
from moda_cli.errors import InputError
from moda_cli.media.encode import frame_rate
from moda_cli.media.ffmpeg import (
    BOTH_TRACKS,
    Reading,
    check_is_media,
    file_input,
    first_error,
    promised_s,
)
from moda_cli.media.pictures import MAX_PIXELS, Picture
from moda_cli.media.sound import read_audio
from moda_cli.media.waves import Wave

VIDEO_HINT = "use a video that ffmpeg reads: MP4, MOV, MKV, WebM, AVI"

HD_LINES = 576  # above them players take a picture that does not say so for BT.709, else BT.601
HDR = ("smpte2084", "arib-std-b67")  # PQ and HLG
WIDE = ("bt2020", "smpte431", "smpte432")  # gamuts beyond BT.709: Rec. 2020, DCI-P3, Display P3
WHITE_NITS, PEAK_NITS = 203, 1000  # ITU-R BT.2408: graphics white of HDR; the usual highlight
LINEAR_UP_TO = 0.5  # of white: faces keep their level, brighter light is compressed
UNINDEXED = ("mpegts", "mpeg")  # formats in which a jump does not land on a key frame,
AHEAD_S = 12.0  # which may be this far back: x264's are 250 pictures apart at most
# Frames nearer to the last one that is taken are left out where stamps matter more than number.
LEAST_APART_S = 1 / 31
HELD_BYTES = 40_000_000  # of frames that are read to be shown backwards
EXACT = "flags=bicubic+accurate_rnd+full_chroma_int"  # without them colours are 4 levels off


@dataclass(frozen=True, slots=True)
class Colour:
    """What a picture says of its samples; `unknown` where it does not."""

    pixels: str = ""  # ffmpeg's name of the sample format
    lines: int = 0
    range: str = "unknown"
    matrix: str = "unknown"
    primaries: str = "unknown"
    transfer: str = "unknown"

    def to_rgb(self) -> str:
        """The filters that make 8-bit RGB for a screen (BT.709) of it, square pixels."""
        # whichever side is too short for the shown shape is stretched: no detail is lost
        size = "w='round(iw*max(1,sar))':h='round(ih*max(1,1/sar))'"
        last = f"{EXACT},setsar=1,format=rgb24"
        is_hdr = self.transfer in HDR
        if not is_hdr and self.primaries not in WIDE:
            is_yuv = self.pixels.startswith(("yuv", "nv", "p0", "p2", "p4", "uyvy"))
            is_hd = is_yuv and self.matrix == "unknown" and self.lines > HD_LINES
            return f"scale={size}{':in_color_matrix=bt709' if is_hd else ''}:{last}"
        tags = {
            "rin": "full" if self.range == "pc" else "limited",
            "min": "bt2020nc" if self.matrix == "unknown" else self.matrix,
            "pin": "bt2020" if self.primaries == "unknown" else self.primaries,
            "tin": "bt709" if self.transfer == "unknown" else self.transfer,
        }
        if self.matrix == "gbr":
            del tags["min"], tags["rin"]
        given = ":".join(f"{name}={value}" for name, value in tags.items())
        peak = PEAK_NITS / WHITE_NITS
        curve = f"tonemap=mobius:param={LINEAR_UP_TO}:desat=0:peak={peak:.4f}," if is_hdr else ""
        return (
            f"zscale={given}:t=linear:npl={WHITE_NITS if is_hdr else 100},format=gbrpf32le,"
            f"zscale=p=bt709,{curve}zscale=t=bt709,format=gbrp,scale={size}:{last}"
        )


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video's header and its first picture say."""

    fps: float
    duration_s: float
    has_sound: bool
    start_s: float = 0.0  # of its first picture, after the file's first stamp
    colour: Colour = Colour()
    format: str = ""  # ffmpeg's name of it


def probe_video(path: Path) -> VideoInfo:
    """The header of a video. Raises InputError for a file without moving pictures."""
    check_is_media(path)
    # not imageio_ffmpeg.read_frames: it forks through Python, where Ctrl-C may get lost
    seen = ["-map", "0:V:0", "-frames:v", "1", "-vf", "showinfo", "-f", "framecrc", "pipe:1"]
    command = ["-loglevel", "info", *file_input(path), *seen, *BOTH_TRACKS]
    with Reading(command, str(path)) as run:
        while (line := run.line()).startswith(b"#"):
            pass
        if not line:
            run.end()
        header = run.log()
    video = re.search(r"^ *Stream #0.*: Video: (?!.*\(attached pic\)).*", header, re.MULTILINE)
    first = re.search(r"showinfo.* pts: *(\S+) .* fmt:(\S+) .* s:\d+x(\d+) ", header)
    tick = re.search(r"showinfo.* config in time_base: (\d+)/(\d+)", header)
    if not (video and first and tick):
        raise InputError(f"cannot read {path} as a video", hint=VIDEO_HINT)
    said = defaultdict(lambda: "unknown", re.findall(r"color_(\w+):(\S+)", header))
    rate = re.search(r" ([\d.]+) fps", video[0])
    duration_s = promised_s(header, path, str(path))
    container = re.search(r"^Input #0, (.*), from ", header, re.MULTILINE)
    return VideoInfo(
        fps=float(rate[1]) if rate else 0.0,
        duration_s=duration_s,
        has_sound=re.search(r"^ *Stream #0.*: Audio: ", header, re.MULTILINE) is not None,
        start_s=0.0 if first[1] == "NOPTS" else int(first[1]) * int(tick[1]) / int(tick[2]),
        colour=Colour(
            first[2], int(first[3]), said["range"], said["space"], said["primaries"], said["trc"]
        ),
        format=container[1] if container else "",
    )


def read_video(
    path: Path, fps: float = FPS, *, start_s: float = 0.0, duration_s: float | None = None
) -> Iterator[Picture]:
    """Yield frames, uint8 (H, W, 3) RGB, resampled to a constant rate, as a player shows them.

    They are upright, of the displayed shape and in a screen's colours, HDR and wide gamuts too.
    start_s: counted from the first picture. Raises InputError for a file that cannot be decoded to
    its end or that stalls.
    """
    info = probe_video(path)
    ahead_s = min(start_s, AHEAD_S if info.format in UNINDEXED else 0.0)
    # from the key frame before: the picture shown at start_s may have begun earlier
    at_s = info.start_s + start_s - ahead_s
    seek = ["-noaccurate_seek", "-ss", f"{at_s:.6f}"] if start_s > ahead_s else []
    rate = "setpts=PTS-STARTPTS," if not seek else ""
    rate += f"fps={fps}:start_time={ahead_s if seek else start_s:.6f}"
    output = ["-map", "0:V:0", "-vf", f"{rate},{info.colour.to_rgb()}", "-fps_mode", "passthrough"]
    output += ["-f", "image2pipe", "-c:v", "ppm", "pipe:1", *BOTH_TRACKS]
    limit = sys.maxsize if duration_s is None else max(1, round(duration_s * fps))
    with Reading([*seek, *file_input(path), *output], str(path)) as run:
        count = 0
        while count < limit and (frame := _read_ppm(run, path)) is not None:
            count += 1
            yield frame
        if count < limit and (run.end() != 0 or count == 0):
            reason = first_error(run.log())
            raise InputError(f"cannot read {path} as a video: {reason}", hint=VIDEO_HINT)


def read_stamped(path: Path) -> Iterator[tuple[Picture, float]]:
    """Yield frames as in `read_video` but as the file has them, and when each is shown.

    Seconds ascend from 0, the first picture's. Of a video above 31 frames a second some are left
    out. Raises InputError as `read_video`.
    """
    info = probe_video(path)
    with tempfile.TemporaryDirectory() as folder:
        stamps = Path(folder) / "stamps"
        stamps.touch()
        chosen = f"select='isnan(prev_selected_t)+gte(t-prev_selected_t,{LEAST_APART_S:.6f})'"
        told = f"metadata=add:key=shown:value=1,metadata=print:direct=1:file={_escaped(stamps)}"
        graph = f"setpts=PTS-STARTPTS,{chosen},{told},{info.colour.to_rgb()}"
        output = ["-map", "0:V:0", "-vf", graph, "-fps_mode", "passthrough"]
        output += ["-f", "image2pipe", "-c:v", "ppm", "pipe:1", *BOTH_TRACKS]
        with Reading([*file_input(path), *output], str(path)) as run, stamps.open() as lines:
            at_s = -1.0
            while (frame := _read_ppm(run, path)) is not None:
                said = re.search(r"pts_time:([\d.]+)", lines.readline() + lines.readline())
                last_s, at_s = at_s, float(said[1]) if said else at_s + 1 / FPS
                if at_s > last_s:
                    yield frame, at_s
            if run.end() != 0 or at_s < 0:
                reason = first_error(run.log())
                raise InputError(f"cannot read {path} as a video: {reason}", hint=VIDEO_HINT)


def _escaped(path: Path) -> str:
    """A path as a filter's option takes it in a graph: once for the option, once for the graph."""
    return re.sub(r"([\\'\[\],;])", r"\\\1", re.sub(r"([\\':])", r"\\\1", str(path)))


def read_to_and_fro(path: Path, fps: float = FPS) -> Iterator[tuple[int, Picture]]:
    """Yield the frames of `read_video` with their numbers: to the end, back, and so on for ever.

    Backwards a few are held at a time. Raises InputError as `read_video`.
    """
    last, frame = -1, None
    for last, frame in enumerate(read_video(path, fps)):
        yield last, frame
    assert frame is not None  # or reading had failed
    held = int(np.clip(HELD_BYTES // frame.nbytes, 4, 64))
    while True:
        for stop in range(last, 0, -held):
            start = max(0, stop - held)
            part = {"start_s": start / fps, "duration_s": (stop - start) / fps}
            frames = list(read_video(path, fps, **part))
            yield from zip(range(stop - 1, start - 1, -1), reversed(frames), strict=True)
        if not last:
            yield 0, frame
            continue
        yield from enumerate(read_video(path, fps, start_s=1 / fps), start=1)


def usual_fps(path: Path) -> float:
    """The rate a video is shown at, as far as one is written here. Raises InputError."""
    fps, (least, most) = probe_video(path).fps, LIMITS["fps"]
    return float(frame_rate(min(max(fps, least), most))) if fps else FPS


def _read_ppm(run: Reading, path: Path) -> Picture | None:
    """The next picture of a stream of binary PPM files, None at its end."""
    if run.line() != b"P6":
        return None
    width, height = map(int, run.line().split())
    if run.line() != b"255" or width * height > MAX_PIXELS:
        raise InputError(f"{path} has pictures of {width}x{height}", hint="scale it down")
    data = run.read(width * height * 3)
    if len(data) < width * height * 3:
        return None
    return np.frombuffer(data, np.uint8).reshape(height, width, 3)


def read_video_sound(path: Path) -> Wave:
    """The sound (N,) of a video at 16 kHz on the clock of its pictures.

    Sample 640 k is heard when frame k of `read_video` begins: sound that starts later follows
    silence, what is heard before the first picture is left out. Raises InputError as `read_audio`.
    """
    return read_audio(path)[round(probe_video(path).start_s * SAMPLE_RATE) :]
