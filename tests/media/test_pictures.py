import errno
import io
import os
import stat
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import save_file

from moda_cli.errors import InputError, UsageError
from moda_cli.files import atomic_write
from moda_cli.media.pictures import is_video, parse_colour, read_image, write_image
from moda_cli.media.provenance import NOTICE

RED, GREEN, BLUE = (230, 30, 40), (20, 190, 50), (30, 50, 220)


def upright() -> np.ndarray:
    """A picture no turn or mirror leaves as it is: red above, green and blue below."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24] = RED
    picture[24:, :32] = GREEN
    picture[24:, 32:] = BLUE
    return picture


def as_stored(orientation: int) -> Image.Image:
    """The upright picture as a camera held that way stores it."""
    turn = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    picture = Image.fromarray(upright())
    return picture if turn is None else picture.transpose(turn)


def assert_upright(picture: np.ndarray, tolerance: int = 6) -> None:
    assert picture.dtype == np.uint8
    assert picture.shape == (48, 64, 3)
    blocks = {(4, 20, 4, 60): RED, (28, 44, 4, 28): GREEN, (28, 44, 36, 60): BLUE}
    for (top, bottom, left, right), colour in blocks.items():
        block = picture[top:bottom, left:right].astype(int)
        assert np.abs(block - colour).max() <= tolerance


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{suffix}"
    options = {"quality": 95, "subsampling": 0} if suffix == "jpg" else {}
    if suffix == "webp":
        options = {"lossless": True}
    as_stored(orientation).save(path, exif=exif, **options)
    assert_upright(read_image(path))


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_with_alpha_and_big_endian_exif(tmp_path: Path, orientation: int) -> None:
    picture = as_stored(orientation).convert("RGBA")
    exif = Image.Exif()
    exif.endian = ">"
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    assert_upright(read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp", "portrait d'été 顔.png"])
def test_formats_and_names(tmp_path: Path, name: str) -> None:
    Image.fromarray(upright()).save(
        tmp_path / name, **({"lossless": True} if "webp" in name else {})
    )
    assert_upright(read_image(tmp_path / name), tolerance=2)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.fromarray(upright()).convert("CMYK").save(tmp_path / "a.jpg", quality=97)
    assert_upright(read_image(tmp_path / "a.jpg"), tolerance=12)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_grey_of_every_depth(tmp_path: Path, dtype: type) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (40, 1))
    top = 1 if dtype is np.float32 else np.iinfo(dtype).max
    deep = (ramp.astype(np.float64) / 255 * top).astype(dtype)
    path = tmp_path / ("a.tif" if dtype is np.float32 else "a.png")
    assert cv2.imwrite(str(path), deep)
    picture = read_image(path)
    assert np.abs(picture.astype(int) - ramp[..., None]).max() <= 1


def test_colour_of_16_bits(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), upright()[..., ::-1].astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright())


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize(
    ("background", "expected"), [("white", 255), ("#000", 0), ("#808080", 128)]
)
def test_alpha_is_laid_over_the_background(
    tmp_path: Path, suffix: str, background: str, expected: int
) -> None:
    rgba = np.dstack((upright(), np.full((48, 64), 255, np.uint8)))
    rgba[:24, :, 3] = 0
    rgba[24:, :, 3] = 128
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgba).save(path, **({"lossless": True} if suffix == "webp" else {}))
    picture = read_image(path, background).astype(int)
    assert np.abs(picture[:24] - expected).max() <= 1
    half = (np.array(GREEN) * 128 + expected * 127) / 255
    assert np.abs(picture[30, 10] - half).max() <= 2


def test_palette_with_transparency(tmp_path: Path) -> None:
    picture = Image.fromarray(upright()).quantize(8)
    index = picture.getpixel((2, 2))
    picture.save(tmp_path / "a.png", transparency=index)
    read = read_image(tmp_path / "a.png", "#0000ff")
    np.testing.assert_array_equal(read[2, 2], (0, 0, 255))
    assert np.abs(read[30, 10].astype(int) - GREEN).max() <= 4


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_are_refused(tmp_path: Path, suffix: str) -> None:
    first = Image.fromarray(upright())
    path = tmp_path / f"a.{suffix}"
    first.save(path, save_all=True, append_images=[first.rotate(180)])
    with pytest.raises(InputError, match=f"a.{suffix} is an animation"):
        read_image(path)


def test_unusable_files_are_named(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.fromarray(upright()).save(encoded, "PNG")
    files = {
        "text.png": b"not a picture at all",
        "empty.png": b"",
        "cut.png": encoded.getvalue()[:20],
        "clip.mp4": b"\0\0\0\x20ftypisom" + bytes(64),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for path in (*(tmp_path / name for name in files), tmp_path / "missing.png", tmp_path):
        with pytest.raises(InputError) as raised:
            read_image(path)
        assert str(path) in str(raised.value)
    with pytest.raises(InputError, match="is a video") as raised:
        read_image(tmp_path / "clip.mp4")
    assert "ffmpeg" in raised.value.hint


def test_the_limit_is_the_largest_picture_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(upright()).save(tmp_path / "a.png")
    monkeypatch.setenv("MODA_MAX_PIXELS", str(48 * 64))
    assert_upright(read_image(tmp_path / "a.png"))
    monkeypatch.setenv("MODA_MAX_PIXELS", str(48 * 64 - 1))
    with pytest.raises(InputError, match=r"is too large \(64x48\)"):
        read_image(tmp_path / "a.png")


def test_colours() -> None:
    assert parse_colour("White") == (255, 255, 255)
    assert parse_colour("#1af") == (0x11, 0xAA, 0xFF)
    for text in ("#12", "reddish", "", "#gggggg"):
        with pytest.raises(UsageError, match="not a colour"):
            parse_colour(text)


def test_written_pictures_read_back_and_say_what_they_are(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", upright(), generated=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), upright())
    assert Image.open(tmp_path / "a.png").text["Comment"] == NOTICE
    write_image(tmp_path / "a.png", upright())  # as of a portrait with its points
    assert "Comment" not in Image.open(tmp_path / "a.png").text
    write_image(tmp_path / "a.jpg", upright())
    assert sorted(os.listdir(tmp_path)) == ["a.jpg", "a.png"]
    for path in (tmp_path / "a.xyz", tmp_path / "a", tmp_path / "no" / "folder" / "a.png"):
        with pytest.raises(UsageError, match="cannot write"):
            write_image(path, upright())


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "motion.safetensors"
    target.write_text("old")

    def interrupted() -> None:
        with atomic_write(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    with atomic_write(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert os.listdir(tmp_path) == [target.name]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
    ],
)
def test_a_full_disk_is_named_with_what_to_do(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(UsageError, match=r"x\.bin: .*No space left") as caught,
        atomic_write(tmp_path / "x.bin"),
    ):
        raise error
    assert "free some space" in caught.value.hint
    assert not os.listdir(tmp_path)


def test_a_whole_file_can_be_read_by_whom_any_other_can(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "x.safetensors") as temporary:
        save_file({"x": torch.zeros(1)}, temporary)  # makes a file of the user's alone
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("name", "head", "says"),
    [
        ("a.png", b"\0\0\0\x20ftypisom", True),  # what it is, whatever it is called
        ("a.heic", b"\0\0\0\x20ftypheic", False),
        ("a.mp4", b"\xff\xd8\xff\xe0" + bytes(8), False),
        ("a.webp", b"RIFF\0\0\0\0WEBP", False),
        ("a.png", b"RIFF\0\0\0\0AVI ", True),
        ("a.ts", b"G@\0\x10" + bytes(8), True),  # by its name alone
        ("a.ts", b"", True),
        ("a.png", b"", False),
    ],
)
def test_a_video_is_told_by_its_bytes(tmp_path: Path, name: str, head: bytes, says: bool) -> None:
    (tmp_path / name).write_bytes(head)
    assert is_video(tmp_path / name) is says
    assert not is_video(tmp_path)
