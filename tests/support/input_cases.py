"""What people hand to `moda generate`, case by case, and what it is to answer.

`python tests/support/input_cases.py > docs/inputs.md` writes the page; tests/test_inputs.py runs
every case and keeps the page current.
"""

import io
import os
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import soundfile
from PIL import Image, ImageCms

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"
RATE = 16000
CUTS = (0.001, 0.01, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.999)


@dataclass(frozen=True)
class Case:
    """One file (or name, or place) in the place of a good one."""

    kind: str  # portrait, sound, name or output
    name: str
    make: Callable[[Path], object]  # in an empty folder: the argument, or bytes for a file
    code: int = 0
    says: str = ""  # in stderr
    suffix: str = ""  # of the file that holds the bytes


def picture() -> Image.Image:
    return Image.open(PORTRAIT).convert("RGB")


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def oriented(orientation: int) -> bytes:
    """The portrait stored turned, with the EXIF that turns it upright."""
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # PIL's transposes, each the inverse
    image = picture()
    if orientation > 1:
        image = image.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(image, "JPEG", quality=92, exif=exif)


def encoded(suffix: str, samples: np.ndarray) -> bytes:
    done, data = cv2.imencode(suffix, samples)
    assert done
    return data.tobytes()


def bgr() -> np.ndarray:
    return np.ascontiguousarray(np.asarray(picture())[..., ::-1])


def grey() -> np.ndarray:
    return np.asarray(picture().convert("L"))


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few kilobytes that promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * min(height, 2000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def faces(count: int) -> bytes:
    return saved(Image.fromarray(np.hstack([np.asarray(picture())] * count)), "PNG")


def texture() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    return encoded(".png", cv2.resize(noise, (512, 512)))


def cut(left: float, top: float, right: float, bottom: float) -> bytes:
    """A part of the portrait, in shares of its sides."""
    width, height = picture().size
    box = (left * width, top * height, right * width, bottom * height)
    return saved(picture().crop(tuple(map(int, box))), "PNG")


def animation(form: str) -> bytes:
    first = picture().resize((128, 128))
    return saved(first, form, save_all=True, append_images=[first.rotate(90)])


# fmt: off
def portraits() -> Iterator[Case]:
    def case(name: str, make: Callable[[], bytes], code: int = 0, says: str = "",
             suffix: str = ".png") -> Case:
        return Case("portrait", name, lambda _: make(), code, says, suffix)

    for form, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("BMP", "bmp"),
                         ("TIFF", "tif")):
        yield case(form, lambda form=form: saved(picture(), form), suffix=f".{suffix}")
    for orientation in range(1, 9):
        yield case(f"JPEG, EXIF orientation {orientation}", lambda o=orientation: oriented(o),
                   suffix=".jpg")
    yield case("JPEG named .png", lambda: saved(picture(), "JPEG"))
    yield case("PNG with alpha", lambda: saved(picture().convert("RGBA"), "PNG"))
    yield case("PNG of grey with alpha", lambda: saved(picture().convert("LA"), "PNG"))
    yield case("PNG with a palette", lambda: saved(picture().convert("P"), "PNG"))
    yield case("grey PNG", lambda: encoded(".png", grey()))
    yield case("PNG of 16 bits", lambda: encoded(".png", bgr().astype(np.uint16) * 257))
    yield case("grey PNG of 16 bits", lambda: encoded(".png", grey().astype(np.uint16) * 257))
    yield case("TIFF of floats", lambda: encoded(".tiff", bgr().astype(np.float32) / 255),
               suffix=".tif")
    yield case("HDR picture", lambda: encoded(".hdr", bgr().astype(np.float32) / 255),
               suffix=".hdr")
    yield case("CMYK JPEG", lambda: saved(picture().convert("CMYK"), "JPEG"), suffix=".jpg")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield case("PNG with a colour profile", lambda: saved(picture(), "PNG", icc_profile=srgb))
    yield case("PNG with a broken colour profile",
               lambda: saved(picture(), "PNG", icc_profile=b"acsp" * 40), says="colour profile")
    yield case("PNG of 1 bit", lambda: saved(picture().convert("1"), "PNG"))
    for form in ("GIF", "WEBP", "PNG"):
        yield case(f"animated {form}", lambda form=form: animation(form), 3, "is an animation",
                   f".{form.lower()}")
    yield case("1 x 1 pixel", lambda: saved(picture().resize((1, 1)), "PNG"), 3, "no face")
    yield case(
        "20000 x 20 pixels", lambda: saved(Image.new("RGB", (20000, 20)), "PNG"), 3, "no face"
    )
    yield case("20000 x 20000 pixels in 6 kB", lambda: bomb(20000, 20000), 3, "is too large")
    yield case("200000 x 200000 pixels in 60 kB", lambda: bomb(200000, 200000), 3, "is too large")
    for form, suffix in (("PNG", ".png"), ("JPEG", ".jpg")):
        for share in CUTS:
            yield case(f"{form} cut off at {share:.1%}", lambda form=form, share=share:
                       (data := saved(picture(), form))[: int(share * len(data))],
                       3, "", suffix)
    yield case("PNG with a changed byte", lambda: changed(saved(picture(), "PNG")), 3, "is damaged")
    yield case(
        "SVG", lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 3, "cannot read", ".svg"
    )
    for brand, kind in ((b"heic", "HEIC"), (b"avif", "AVIF")):
        data = b"\0\0\0\x20ftyp" + brand + bytes(200)
        yield case(f"{kind} that cannot be read", lambda data=data: data, 3, f"a picture in {kind}")
    yield case("text", lambda: b"not a picture\n" * 50, 3, "cannot read")
    yield case("nothing", lambda: b"", 3, "is empty")
    for form in ("mp4", "mkv", "webm", "avi"):
        yield case(f"a video, {form}", lambda form=form: talking(form), suffix=f".{form}")
    yield case("a video named .png", lambda: talking("mp4"))
    yield case("a video without a face", lambda: clip("mp4"), 3, "shows no usable face",
               ".mp4")
    for share in (0.05, 0.5, 0.97):
        yield case(f"a video cut off at {share:.0%}", lambda share=share:
                   (data := talking("mp4"))[: int(share * len(data))], 3, "", ".mp4")
    yield Case("portrait", "a folder without pictures", folder, 3, "is a folder")
    yield Case("portrait", "a pipe", fifo, 3, "is a pipe or a device")
    yield Case("portrait", "/dev/zero", lambda _: "/dev/zero", 3, "is a pipe or a device")
    yield Case("portrait", "no such file", lambda f: f / "none.png", 3, "there is no file")
    yield Case("portrait", "a file in a file", inside_a_file, 3, "")
    yield case("no face", texture, 3, "no face")
    yield case("three faces", lambda: faces(3), says="3 faces")
    yield case("cut at the lip line", lambda: cut(0, 0, 1, 0.65), 3)
    yield case("cut above the eyes", lambda: cut(0, 0.45, 1, 1), 3)
    yield case("cut at the middle, left half", lambda: cut(0, 0, 0.5, 1), 3)
    yield case("cut at the middle, right half", lambda: cut(0.5, 0, 1, 1), 3)
# fmt: on


def talking(form: str) -> bytes:
    """A video of the portrait, which nods a little."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        path = Path(place) / f"a.{form}"
        nod = "crop=480:480:16:16+12*sin(2*PI*n/10)"
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            "-loop",
            "1",
            "-i",
            str(PORTRAIT),
            "-t",
            "0.4",
            "-vf",
            nod,
            "-pix_fmt",
            "yuv420p",
            str(path),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path.read_bytes()


def changed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x55]) + data[middle + 1 :]


def folder(place: Path) -> Path:
    (place / "empty").mkdir()
    return place / "empty"


def fifo(place: Path) -> Path:
    os.mkfifo(place / "pipe")
    return place / "pipe"


def inside_a_file(place: Path) -> Path:
    (place / "file").write_bytes(b"x")
    return place / "file" / "a.png"


def speech(seconds: float = 0.4) -> np.ndarray:
    wave, rate = soundfile.read(EXAMPLES / "speech.wav", dtype="float32", always_2d=False)
    assert rate == RATE
    return wave[RATE : RATE + int(seconds * RATE)]


def wav(samples: np.ndarray, rate: int = RATE, subtype: str = "PCM_16") -> bytes:
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format="WAV", subtype=subtype)
    return data.getvalue()


def clip(form: str, *options: str, seconds: float = 0.4) -> bytes:
    """Speech as ffmpeg writes it in a format; a video has a test picture beside it."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        path = Path(place) / f"a.{form}"
        (Path(place) / "in.wav").write_bytes(wav(speech(seconds)))
        video = form in ("mp4", "mkv", "webm", "avi")
        test = ["-f", "lavfi", "-i", f"testsrc=size=64x64:rate=25:duration={seconds}"]
        command = [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-loglevel",
            "error",
            "-i",
            f"{place}/in.wav",
            *(test if video else ()),
            *options,
            str(path),
        ]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        return path.read_bytes()


def resampled(rate: int) -> np.ndarray:
    wave = speech()
    at = np.arange(int(len(wave) * rate / RATE)) * RATE / rate
    return np.interp(at, np.arange(len(wave)), wave)


def scratched(data: bytes) -> bytes:
    """Bytes with noise in their middle."""
    middle = len(data) // 2
    noise = np.random.default_rng(0).integers(0, 256, 200, np.uint8).tobytes()
    return data[:middle] + noise + data[middle + 200 :]


def with_value(value: float) -> np.ndarray:
    wave = speech()
    wave[2000:2100] = value
    return wave


def long_header() -> bytes:
    """A WAV whose header promises three hours and that holds a second."""
    data = bytearray(wav(speech(1.0)))
    data[40:44] = struct.pack("<I", 3 * 3600 * RATE * 2)
    data[4:8] = struct.pack("<I", 36 + 3 * 3600 * RATE * 2)
    return bytes(data)


# fmt: off
def sounds() -> Iterator[Case]:
    def case(name: str, make: Callable[[], bytes], code: int = 0, says: str = "",
             suffix: str = ".wav") -> Case:
        return Case("sound", name, lambda _: make(), code, says, suffix)

    for rate in (8000, 11025, 22050, 44100, 48000, 96000, 192000):
        yield case(f"WAV of {rate} Hz", lambda rate=rate: wav(resampled(rate), rate))
    for channels in (2, 3, 4, 6, 8):
        yield case(f"WAV of {channels} channels",
                   lambda n=channels: wav(np.repeat(speech()[:, None], n, axis=1)))
    for subtype in ("PCM_U8", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"):
        yield case(f"WAV in {subtype}", lambda s=subtype: wav(speech(), subtype=s))
    for form in ("flac", "mp3", "ogg", "m4a", "opus", "aiff", "mka", "caf"):
        yield case(form.upper(), lambda f=form: clip(f), suffix=f".{form}")
    for form in ("mp4", "mkv", "webm", "avi"):
        yield case(f"the sound of a video, {form}", lambda f=form: clip(f), suffix=f".{form}")
    yield case("MP3 named .wav", lambda: clip("mp3"))
    for value in (np.nan, np.inf):
        yield case(
            f"float WAV with {value}", lambda v=value: wav(with_value(v), subtype="FLOAT"), 3
        )
    yield case("float WAV at 50 times full scale", lambda: wav(50 * speech(), subtype="FLOAT"))
    yield case("with a constant part", lambda: wav(0.5 * speech() + 0.4))
    yield case("digital silence", lambda: wav(np.zeros(6400)))
    yield case("10 ms", lambda: wav(speech(0.01)), 3, "lasts 10 ms")
    yield case("no samples", lambda: wav(np.zeros(0)), 3)
    yield case("a header of 3 h with 1 s of sound", long_header, 3, "ends early")
    for share in CUTS:
        yield case(f"WAV cut off at {share:.1%}", lambda share=share:
                   (data := wav(speech(2.0)))[: int(share * len(data))], 0 if share > 0.98 else 3)
    yield case("MP3 with noise in its middle", lambda: scratched(clip("mp3")), says="damaged",
               suffix=".mp3")
    yield case(
        "FLAC with noise in its middle", lambda: scratched(clip("flac")), says="damaged",
               suffix=".flac")
    yield case("a video without sound", lambda: clip("mp4", "-map", "1:v"), 3, "no sound",
               ".mp4")
    yield case("text", lambda: b"hello\n" * 99, 3, "is text", ".txt")
    yield case("a playlist of another file",
               lambda: b"#EXTM3U\n#EXTINF:1,\nfile:/etc/passwd\n", 3, "is text", ".m3u8")
    yield case("a playlist of an address",
               lambda: b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.mp3\n", 3, "is text", ".m3u8")
    yield case("a list for ffmpeg's concat",
               lambda: b"ffconcat version 1.0\nfile /etc/hostname\n", 3, "is text", ".ffconcat")
    yield case("nothing", lambda: b"", 3, "is empty")
    yield case("a picture", lambda: PORTRAIT.read_bytes(), 3, "", ".png")
    yield Case("sound", "a folder without sounds", folder, 3, "is a folder")
    yield Case("sound", "a pipe", fifo, 3, "is a pipe or a device")
    yield Case("sound", "/dev/zero", lambda _: "/dev/zero", 3, "is a pipe or a device")
    yield Case("sound", "no such file", lambda f: f / "none.wav", 3, "there is no file")
# fmt: on


NAMES = {
    "spaces": "a b  c", "quotes": "a'b\"c", "a line end": "a\nb", "a leading dash": "-y",
    "%d": "%d", "100%": "100%", "unicode": "пример-例-é", "an emoji": "🙂", "brackets": "a[1]{b}",
    "a colon": "file:a", "a backslash": "a\\b", "a dollar": "$HOME;ls", "255 bytes": "x" * 251,
}  # fmt: skip


def names() -> Iterator[Case]:
    for what, stem in NAMES.items():
        yield Case("name", f"{what} in every file's name", lambda _, stem=stem: stem)


def outputs() -> Iterator[Case]:
    yield Case(
        "output", "in a folder that is not there", lambda f: f / "no" / "out.mp4", 2, "cannot write"
    )
    yield Case("output", "a folder", lambda f: folder(f))
    yield Case("output", "in a file", inside_a_file, 2)
    yield Case("output", "in /proc", lambda _: "/proc/out.mp4", 2, "cannot write")
    yield Case("output", "there already", there, 2, "exists")
    yield Case("output", "a name of 300 bytes", lambda f: f / ("x" * 300 + ".mp4"), 2, "too long")
    yield Case("output", "no format", lambda f: f / "out.xyz", 2, "no video format")
    yield Case("output", "the portrait itself", lambda _: PORTRAIT, 2)


def there(place: Path) -> Path:
    (place / "out.mp4").write_bytes(b"mine")
    return place / "out.mp4"


CASES = [*portraits(), *sounds(), *names(), *outputs()]


def page() -> str:
    """The table of the cases, as docs/inputs.md has it."""
    lines = [
        "# Inputs tried",
        "",
        f"{len(CASES)} cases of `moda generate`, each a file that the test makes, by",
        "`pytest tests/test_inputs.py`. Exit 0 is a finished clip; every other code comes with one",
        "or two lines, no traceback, no file left behind. Written by",
        "`python tests/support/input_cases.py > docs/inputs.md`.",
        "",
        "| in place of | case | exit | says |",
        "| --- | --- | --- | --- |",
    ]
    lines += [f"| {c.kind} | {c.name} | {c.code} | {c.says} |" for c in CASES]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
