"""What a client of `moda serve` and the server say to each other, in bytes and in JSON.

docs/live.md describes it. Whatever a client sends is read or refused with a Fault, whose words are
those of the protocol.
"""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from moda_cli.config import EMOTIONS, FPS, SAMPLE_RATE
from moda_cli.errors import UsageError, did_you_mean
from moda_cli.live.face import LiveFrame
from moda_cli.live.session import RATES, Pace, checked_tracks
from moda_cli.media.waves import Wave

VERSION = 1
FORMATS = {"int16": "<i2", "float32": "<f4"}
MAX_CHANNELS = 8
MAX_EASE_S = 10.0
MAX_NAME = 60  # characters of a client's that are said back to it
HEADER = struct.Struct("<III")  # frame's number, its time in ms, samples; then these, then a JPEG
QUALITY = 85  # of the JPEG

Fault = UsageError


@dataclass(frozen=True, slots=True)
class Format:
    """How the sound in a client's binary messages is written."""

    rate: int  # Hz
    channels: int
    format: str  # of FORMATS

    def wave(self, data: bytes) -> Wave:
        """Samples (n, channels) in [-1, 1]. Raises Fault for part of a sample."""
        kind = np.dtype(FORMATS[self.format])
        if len(data) % (kind.itemsize * self.channels):
            whole = f"{kind.itemsize} bytes for each of {self.channels} channels"
            raise Fault(f"{len(data)} bytes of sound end within a sample", hint=whole)
        samples = np.frombuffer(data, kind).reshape(-1, self.channels)
        scale = np.float32(1 / 32768 if kind.kind == "i" else 1)
        return samples.astype(np.float32) * scale


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Stop speaking."""


@dataclass(frozen=True, slots=True)
class Ask:
    """From now on: an emotion, tracks of a timeline, or both."""

    emotion: str | None = None
    tracks: dict[str, float] = field(default_factory=dict)
    ease: float | None = None  # seconds


Message = Format | Interrupt | Ask


def parse(text: str) -> Message:
    """What a client's text message says. Raises Fault."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Fault("a text message is no JSON", hint='such as {"type": "interrupt"}') from None
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise Fault("a message has no type", hint='such as {"type": "interrupt"}')
    kind = given.pop("type")
    if kind not in READERS:
        hint = did_you_mean(kind[:MAX_NAME], READERS, f"it is one of {', '.join(READERS)}")
        raise Fault(f"there is no message of type {kind[:MAX_NAME]!r}", hint=hint)
    known, read = READERS[kind]
    for name in given:
        if name not in known:
            allowed = f"it takes {', '.join(known)}" if known else "it takes nothing"
            hint = did_you_mean(name[:MAX_NAME], known, allowed)
            raise Fault(f"{kind} takes no {name[:MAX_NAME]!r}", hint=hint)
    return read(given)


def _read_format(given: dict[str, Any]) -> Format:
    rate, channels = given.get("rate", 0), given.get("channels", 1)
    kind = given.get("format")
    if not _is_whole(rate, *RATES):
        raise Fault("sound needs a rate", hint=f"a whole number, {RATES[0]} to {RATES[1]} Hz")
    if not _is_whole(channels, 1, MAX_CHANNELS):
        raise Fault("channels of sound cannot be so many", hint=f"1 to {MAX_CHANNELS}")
    if not isinstance(kind, str) or kind not in FORMATS:
        raise Fault("sound needs a format", hint=f"one of {', '.join(FORMATS)}")
    return Format(int(rate), int(channels), kind)


def _read_ask(given: dict[str, Any]) -> Ask:
    emotion, tracks, ease = given.get("emotion"), given.get("tracks", {}), given.get("ease")
    if not (emotion is None or isinstance(emotion, str)):
        raise Fault("an emotion is a word", hint=f"one of {', '.join(EMOTIONS)}, or happy@0.5")
    if not isinstance(tracks, dict) or not all(map(_is_number, tracks.values())):
        raise Fault("tracks are numbers by name", hint='such as {"yaw": 5}')
    if not (ease is None or (_is_number(ease) and 0 <= ease <= MAX_EASE_S)):
        raise Fault("ease is no number of seconds", hint=f"0 to {MAX_EASE_S:g}")
    if emotion is None and not tracks:
        raise Fault("ask asks for nothing", hint="give an emotion, tracks or both")
    return Ask(emotion and emotion[:MAX_NAME], checked_tracks(tracks), ease)


READERS: dict[str, tuple[tuple[str, ...], Callable[[dict[str, Any]], Message]]] = {
    "sound": (("rate", "channels", "format"), _read_format),
    "interrupt": ((), lambda _: Interrupt()),
    "ask": (("emotion", "tracks", "ease"), _read_ask),
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_whole(value: Any, low: int, high: int) -> bool:
    return _is_number(value) and value == int(value) and low <= value <= high


def frame_message(frame: LiveFrame, picture: bytes) -> bytes:
    """A frame as it is sent; `picture` may be empty: it is that of the frame before."""
    sound = (np.clip(frame.sound, -1, 1) * 32767).astype("<i2").tobytes()
    milliseconds = round(1000 * frame.number / FPS)
    return HEADER.pack(frame.number, milliseconds, len(frame.sound)) + sound + picture


def jpeg(frame: LiveFrame) -> bytes:
    """A frame's picture, encoded."""
    bgr = cv2.cvtColor(frame.picture, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def hello(width: int, height: int, delay_s: float, limits: dict[str, float]) -> str:
    """What a session is, in its first message."""
    picture = {"width": width, "height": height, "fps": FPS}
    sound = {"rate": SAMPLE_RATE, "channels": 1, "format": "int16"}
    said = {"version": VERSION, "picture": picture, "sound": sound, "delay_s": round(delay_s, 3)}
    return json.dumps({"type": "hello", **said, "emotions": EMOTIONS, "limits": limits})


def pace(kept: Pace, unsent: int) -> str:
    """How a session keeps up; unsent: pictures that the client had no room for."""
    said = {
        "shown": kept.shown,
        "left_out": kept.left_out,
        "late_s": round(kept.late_s, 3),
        "unsent": unsent,
        "waiting_s": round(kept.waiting_s, 2),
        "speaking": kept.speaking,
        "busy": round(kept.busy, 2),
    }
    return json.dumps({"type": "pace", **said})


def error(message: str, hint: str = "") -> str:
    """What was wrong, in one line."""
    return json.dumps({"type": "error", "message": message, "hint": hint})


def end(reason: str) -> str:
    """Why a session ends."""
    return json.dumps({"type": "end", "reason": reason})
