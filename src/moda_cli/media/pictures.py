"""Pictures in and out through OpenCV, and files that appear whole or not at all."""

import os
import re
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.config import COLOURS, TRANSPARENT, VIDEOS
from moda_cli.errors import InputError, UsageError, did_you_mean
from moda_cli.files import atomic_write, check_is_file
from moda_cli.media.profiles import Profile, cmyk_to_srgb, embedded_profile, opened
from moda_cli.media.provenance import NOTICE

Picture = NDArray[np.uint8]  # (H, W, 3) RGB, or (H, W, 4) RGBA where that is said
Colour = tuple[int, int, int]  # RGB

MAX_PIXELS = 100_000_000
LIMIT = "MODA_MAX_PIXELS"  # another limit, in the environment
MAX_BYTES = 1_000_000_000  # of a file
PICTURE_MAGIC = (b"\x89PNG", b"\xff\xd8", b"RIFF", b"GIF8", b"BM", b"II*\0", b"MM\0*")
PNG = b"\x89PNG\r\n\x1a\n"
PNG_CHUNKS = (b"IHDR", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IEND")
SEEN = 16  # of 255: alpha above which a pixel's own colour counts
HINT = "portraits are PNG, JPEG, WebP, BMP or TIFF pictures"


def parse_colour(text: str) -> Colour:
    """RGB of `#rrggbb`, `#rgb` or a name in COLOURS. Raises UsageError."""
    digits = COLOURS.get(text.lower(), text).removeprefix("#")
    if re.fullmatch(r"[0-9a-fA-F]{3}", digits):
        digits = "".join(2 * digit for digit in digits)
    if not re.fullmatch(r"[0-9a-fA-F]{6}", digits):
        hint = did_you_mean(text, COLOURS, f"write #rrggbb or one of {', '.join(COLOURS)}")
        raise UsageError(f"{text!r} is not a colour", hint=hint)
    red, green, blue = bytes.fromhex(digits)
    return red, green, blue


def read_image(path: Path, background: str = "white") -> Picture:
    """The picture in a file, uint8 (H, W, 3) sRGB: turned upright, alpha laid over `background`.

    An embedded colour profile is applied. Over TRANSPARENT it is (H, W, 4) RGBA. Raises InputError
    for a file that is no still picture, or has nothing to see through then; UsageError for the
    colour.
    """
    colour = None if background == TRANSPARENT else parse_colour(background)
    if is_video(path):
        hint = f"save one frame of it: ffmpeg -i {path} -frames:v 1 portrait.png"
        raise InputError(f"{path} is a video, not a picture", hint=hint)
    data = _read_bytes(path)
    _check_header(data, path)
    try:  # two frames are enough to tell an animation
        encoded = np.frombuffer(_without_remarks(data), np.uint8)
        _, frames = cv2.imdecodemulti(encoded, cv2.IMREAD_UNCHANGED, range=(0, 2))
    except cv2.error:
        frames = ()
    if not frames:
        raise InputError(f"cannot read {path} as a picture", hint=_format_hint(data))
    is_tiff = data[:4] in (b"II*\0", b"MM\0*")
    if len(frames) > 1 and not is_tiff:
        raise InputError(f"{path} is an animation, not a still picture", hint=HINT)
    pixels = np.asarray(frames[0])
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
    if colour is None and (picture.shape[2] == 3 or picture[..., 3].min() == 255):
        hint = "cut it out first and save it as PNG, or leave --background out"
        raise InputError(f"{path} has nothing transparent", hint=hint)
    return np.ascontiguousarray(picture if is_tiff else _upright(picture, _orientation(data)))


def _check_header(data: bytes, path: Path) -> None:
    """Refuse, before it is decoded, what is too large or not whole. Raises InputError."""
    try:
        image = opened(data)
    except ValueError:
        return  # no format that Pillow knows: OpenCV is asked
    width, height = image.size
    if height * width > max_pixels():
        hint = f"scale it to 4096 pixels or less ({LIMIT}=N allows more)"
        raise InputError(f"{path} is too large ({width}x{height})", hint=hint)
    try:
        image.verify()  # the sums in a PNG; libpng would complain past us
    except Exception as error:  # whatever its decoders raise
        hint = f"its {image.format} data ends early or changed on the way ({error}): fetch it again"
        raise InputError(f"{path} is damaged or cut short", hint=hint) from None


def _without_remarks(data: bytes) -> bytes:
    """A PNG without the chunks that OpenCV makes nothing of, and libpng complains of past us."""
    if not data.startswith(PNG):
        return data
    kept, at = [PNG], len(PNG)
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if data[at + 4 : at + 8] in PNG_CHUNKS:
            kept.append(data[at : at + 12 + length])
        at += 12 + length
    return b"".join(kept)


def max_pixels() -> float:
    """The largest picture that is decoded, in pixels. Raises UsageError for a wrong setting."""
    text = os.environ.get(LIMIT, "")
    try:
        return float(text) if text else MAX_PIXELS
    except ValueError:
        raise UsageError(f"{LIMIT}={text} is no number of pixels") from None


def _read_bytes(path: Path) -> bytes:
    check_is_file(path, largest=MAX_BYTES)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    if not data:
        raise InputError(f"{path} is empty", hint=HINT)
    return data


def is_video(path: Path) -> bool:
    """Whether a file is a video: by its first bytes, or its name where they are no picture's."""
    head = b""
    if path.is_file():
        with suppress(OSError), path.open("rb") as file:
            head = file.read(12)
    brand = head[4:12]
    if brand[:4] == b"ftyp":  # MP4 and MOV, and what else is built like them
        return brand[4:] not in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1")
    if head[:4] == b"\x1aE\xdf\xa3" or head[:4] + head[8:12] == b"RIFFAVI ":  # MKV, WebM; AVI
        return True
    return path.suffix.lower() in VIDEOS and not head.startswith(PICTURE_MAGIC)


def _format_hint(data: bytes) -> str:
    """What to do about a file that OpenCV cannot read."""
    if data[4:8] != b"ftyp":
        return HINT
    kind = "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC"
    how = "the phone's or computer's picture viewer exports it; on a Mac `sips -s format png`"
    return f"this is a picture in {kind}: save it as JPEG or PNG, {how}"


def _rgb(
    pixels: NDArray[Any], background: Colour | None, profile: Profile | None, premultiplied: bool
) -> Picture:
    """sRGB of samples as OpenCV decodes them: grey, BGR or BGRA, of any depth.

    Without a background it keeps its alpha: (H, W, 4). A float picture that goes above 1 is scaled
    down to 1.
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
    if background is None:
        return _straight(np.asarray(np.rint(np.dstack((rgb, alpha)) * 255), np.uint8))
    rgb = rgb * alpha + (1 - alpha) * np.array(background, np.float32) / 255
    return np.asarray(np.rint(rgb * 255), np.uint8)


def _straight(picture: Picture) -> Picture:
    """RGBA whose colours go on beyond its outline, so that nothing else is mixed in when it moves.

    What can hardly be seen takes the colour of the nearest pixel that can.
    """
    unseen = (picture[..., 3] < SEEN).astype(np.uint8)
    if unseen.all():
        return picture
    kind = cv2.DIST_LABEL_PIXEL
    _, nearest = cv2.distanceTransformWithLabels(unseen, cv2.DIST_L2, 5, labelType=kind)
    seen = np.flatnonzero(unseen == 0)
    by_label = np.zeros(int(nearest.max()) + 1, int)
    by_label[nearest.ravel()[seen]] = seen
    colours = picture[..., :3].reshape(-1, 3)[by_label[nearest]]
    return np.dstack((colours, picture[..., 3]))


def opaque(picture: Picture, background: Colour = (255, 255, 255)) -> Picture:
    """A picture without its alpha, where it has one: over a background."""
    if picture.shape[2] == 3:
        return picture
    alpha = picture[..., 3:].astype(np.float32) / 255
    over = picture[..., :3] * alpha + (1 - alpha) * np.array(background, np.float32)
    return np.asarray(np.rint(over), np.uint8)


def shrunk(picture: Picture, scale: float) -> Picture:
    """A picture at `scale` (at most 1) of its size."""
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


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


def write_image(path: Path, picture: Picture, *, generated: bool = False) -> None:
    """Write an RGB picture (H, W, 3) in the format of the suffix.

    generated: a PNG says that it is AI-generated.
    """
    data = encode_image(path, picture, NOTICE if generated else "")
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def check_image(path: Path) -> None:
    """Refuse a name that is of no picture format. Raises UsageError."""
    suffix = path.suffix.lower()
    if not cv2.haveImageWriter(f"picture{suffix}"):
        why = f"no picture format {suffix or '(no suffix)'}"
        raise UsageError(f"cannot write {path}: {why}", hint="use .png or .jpg")


def encode_image(path: Path, picture: Picture, comment: str = "") -> bytes:
    """The bytes of a picture file, (H, W, 3) RGB or (H, W, 4) RGBA.

    `comment` goes into a PNG as text. Raises UsageError.
    """
    check_image(path)
    suffix = path.suffix.lower()
    order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(picture, order))
    if not encoded:
        raise UsageError(f"cannot write {path} as {suffix}", hint="use .png or .jpg")
    content = data.tobytes()
    if suffix != ".png" or not comment:
        return content
    text = b"tEXtComment\0" + comment.encode("latin-1", "replace")
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    return content[:33] + chunk + content[33:]  # after the signature and IHDR
