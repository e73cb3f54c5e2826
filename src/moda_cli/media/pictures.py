"""Pictures in and out through OpenCV, and files that appear whole or not at all."""

import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import InputError, UsageError
from moda_cli.files import atomic_write
from moda_cli.media.profiles import Profile, cmyk_to_srgb, embedded_profile
from moda_cli.media.provenance import NOTICE

Picture = NDArray[np.uint8]  # (H, W, 3) RGB
Colour = tuple[int, int, int]  # RGB

MAX_PIXELS = 100_000_000
COLOURS = {"white": "#ffffff", "black": "#000000", "grey": "#808080", "green": "#00ff00"}
HINT = "portraits are PNG, JPEG, WebP, BMP or TIFF pictures"


def parse_colour(text: str) -> Colour:
    """RGB of `#rrggbb`, `#rgb` or a name in COLOURS. Raises UsageError."""
    digits = COLOURS.get(text.lower(), text).removeprefix("#")
    if re.fullmatch(r"[0-9a-fA-F]{3}", digits):
        digits = "".join(2 * digit for digit in digits)
    if not re.fullmatch(r"[0-9a-fA-F]{6}", digits):
        hint = f"write #rrggbb or one of {', '.join(COLOURS)}"
        raise UsageError(f"{text!r} is not a colour", hint=hint)
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def read_image(path: Path, background: str = "white") -> Picture:
    """The picture in a file, uint8 (H, W, 3) sRGB: turned upright, alpha laid over `background`.

    An embedded colour profile is applied. Raises InputError for a file that is no still picture,
    UsageError for the colour.
    """
    colour = parse_colour(background)
    data = _read_bytes(path)
    if _is_video(data):
        hint = f"save one frame of it: ffmpeg -i {path} -frames:v 1 portrait.png"
        raise InputError(f"{path} is a video, not a picture", hint=hint)
    try:  # two frames are enough to tell an animation
        encoded = np.frombuffer(data, np.uint8)
        _, frames = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(0, 2))
    except cv2.error:
        frames = ()
    if not frames:
        raise InputError(f"cannot read {path} as a picture", hint=_format_hint(data))
    is_tiff = data[:4] in (b"II*\0", b"MM\0*")
    if len(frames) > 1 and not is_tiff:
        raise InputError(f"{path} is an animation, not a still picture", hint=HINT)
    pixels = np.asarray(frames[0])
    height, width = pixels.shape[:2]
    if height * width > MAX_PIXELS:
        hint = "scale it to 4096 pixels or less"
        raise InputError(f"{path} is too large ({width}x{height})", hint=hint)
    # OpenCV's TIFF reader turns the picture and, at 8 bits, multiplies by alpha itself
    is_premultiplied = is_tiff and pixels.dtype == np.uint8
    profile = embedded_profile(data, str(path))
    if profile and profile.space == "CMYK":
        try:
            picture = cmyk_to_srgb(data, profile)
        except ValueError as error:
            raise InputError(f"cannot read {path} as a picture: {error}", hint=HINT) from None
    else:
        picture = _rgb(pixels, colour, profile, premultiplied=is_premultiplied)
    return np.ascontiguousarray(picture if is_tiff else _upright(picture, _orientation(data)))


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"there is no file {path}", hint="check the path") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not data:
        raise InputError(f"{path} is empty", hint=HINT)
    return data


def _is_video(data: bytes) -> bool:
    """Whether the first bytes are those of MP4/MOV, Matroska/WebM or AVI."""
    brand, pictures = data[4:12], (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    is_mp4 = brand[:4] == b"ftyp" and brand[4:] not in pictures
    return is_mp4 or data[:4] == b"\x1aE\xdf\xa3" or data[:4] + data[8:12] == b"RIFFAVI "


def _format_hint(data: bytes) -> str:
    """What to do about a file that OpenCV cannot read."""
    if data[4:8] != b"ftyp":
        return HINT
    kind = "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC"
    how = "the phone's or computer's picture viewer exports it; on a Mac `sips -s format png`"
    return f"this is a picture in {kind}: save it as JPEG or PNG, {how}"


def _rgb(
    pixels: NDArray[Any], background: Colour, profile: Profile | None, premultiplied: bool
) -> Picture:
    """sRGB of samples as OpenCV decodes them: grey, BGR or BGRA, of any depth.

    A float picture that goes above 1 is scaled down to 1.
    """
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype == np.uint8 and channels in (1, 3):
        code = cv2.COLOR_GRAY2RGB if channels == 1 else cv2.COLOR_BGR2RGB
        picture = np.asarray(cv2.cvtColor(pixels, code), np.uint8)
        return profile.to_srgb(picture) if profile else picture
    values = np.nan_to_num(pixels.astype(np.float32)).reshape(*pixels.shape[:2], channels)
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind in "iu" else max(1.0, values.max())
    values = np.clip(values / np.float32(top), 0, 1)
    rgb = values[..., 2::-1] if channels >= 3 else np.repeat(values[..., :1], 3, axis=2)
    alpha = values[..., -1:] if channels in (2, 4) else np.ones_like(values[..., :1])
    if premultiplied:
        rgb = (rgb / alpha.clip(1 / 255)).clip(0, 1)
    if profile:
        rgb = profile.to_srgb(np.rint(rgb * 255).astype(np.uint8)).astype(np.float32) / 255
    rgb = rgb * alpha + (1 - alpha) * np.array(background, np.float32) / 255
    return np.asarray(np.rint(rgb * 255), np.uint8)


def _orientation(data: bytes) -> int:
    """EXIF orientation (1-8) of JPEG, PNG or WebP bytes; 1 where there is none."""
    exif = re.search(rb"(?s)(?:Exif\0\0|eXIf|EXIF.{4})(II\*\0|MM\0\*)", data)
    if not exif:
        return 1
    tiff = data[exif.start(1) : exif.start(1) + 65536]
    order = "<" if tiff.startswith(b"II") else ">"
    with suppress(struct.error):
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112 and 1 <= value <= 8:
                return int(value)
    return 1


def _upright(picture: Picture, orientation: int) -> Picture:
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture


def write_image(path: Path, picture: Picture) -> None:
    """Write an RGB picture (H, W, 3) in the format of the suffix; a PNG says it is AI-generated."""
    data = encode_image(path, picture, NOTICE)
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def check_image(path: Path) -> None:
    """Refuse a name that is of no picture format. Raises UsageError."""
    suffix = path.suffix.lower()
    if not cv2.haveImageWriter(f"picture{suffix}"):
        why = f"no picture format {suffix or '(no suffix)'}"
        raise UsageError(f"cannot write {path}: {why}", hint="use .png or .jpg")


def encode_image(path: Path, picture: Picture, comment: str) -> bytes:
    """The bytes of a picture file; `comment` goes into a PNG as text. Raises UsageError."""
    check_image(path)
    suffix = path.suffix.lower()
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise UsageError(f"cannot write {path} as {suffix}", hint="use .png or .jpg")
    content = data.tobytes()
    if suffix != ".png":
        return content
    text = b"tEXtComment\0" + comment.encode("latin-1", "replace")
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return content[:33] + chunk + content[33:]  # after the signature and IHDR
