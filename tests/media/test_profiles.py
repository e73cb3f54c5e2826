"""Embedded colour profiles: pictures are as a screen shows them. The profiles are made here."""

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from moda_cli.errors import InputError
from moda_cli.media.pictures import read_image
from moda_cli.media.profiles import embedded_profile

SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
DISPLAY_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE_RGB = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
D65, D50 = np.array([0.95047, 1, 1.08883]), np.array([0.9642, 1, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
SKIN = np.array([222, 160, 130])

Primaries = tuple[tuple[float, float], ...]


def to_xyz(primaries: Primaries) -> NDArray[np.float64]:
    """Linear RGB to XYZ under D65."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return np.asarray(columns * np.linalg.solve(columns, D65))


def fixed(*values: float) -> bytes:
    return b"".join(struct.pack(">i", round(65536 * value)) for value in values)


def profile(kind: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2."""
    tags = {b"desc": b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79), **tags}
    tags = {b"cprt": b"text\0\0\0\0none\0", b"wtpt": b"XYZ \0\0\0\0" + fixed(*D50), **tags}
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", kind, pcs)
    head += bytes(12) + b"acsp" + bytes(28) + fixed(*D50)
    return head + bytes(128 - len(head)) + table + body


def curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma))


def rgb_profile(primaries: Primaries, gamma: float = 2.2) -> bytes:
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ D65)) @ BRADFORD
    columns = (adapt @ to_xyz(primaries)).T
    tags = {b"%cXYZ" % n: b"XYZ \0\0\0\0" + fixed(*c) for n, c in zip(b"rgb", columns, strict=True)}
    return profile(b"RGB ", tags | {b"%cTRC" % name: curve(gamma) for name in b"rgb"})


def in_profile(
    rgb: NDArray[np.int_], primaries: Primaries, gamma: float = 2.2
) -> NDArray[np.uint8]:
    """The samples with which a profile writes an sRGB colour."""
    x = np.asarray(rgb) / 255
    linear = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    other = (np.linalg.inv(to_xyz(primaries)) @ to_xyz(SRGB) @ linear).clip(0, 1)
    return np.rint(255 * other ** (1 / gamma)).astype(np.uint8)


def flat(colour: object, size: int = 16) -> NDArray[np.uint8]:
    return np.full((size, size, 3), colour, np.uint8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("primaries", [DISPLAY_P3, ADOBE_RGB])
def test_a_wide_profile_is_applied(tmp_path: Path, suffix: str, primaries: Primaries) -> None:
    path = tmp_path / f"a.{suffix}"
    picture = Image.fromarray(flat(in_profile(SKIN, primaries)))
    picture.save(path, icc_profile=rgb_profile(primaries), quality=98)
    assert np.abs(read_image(path)[8, 8].astype(int) - SKIN).max() <= 3


@given(colour=st.lists(st.integers(20, 235), min_size=3, max_size=3))
def test_every_colour_comes_back(colour: list[int]) -> None:
    encoded = io.BytesIO()
    samples = flat(in_profile(np.array(colour), DISPLAY_P3))
    Image.fromarray(samples).save(encoded, "PNG", icc_profile=rgb_profile(DISPLAY_P3))
    found = embedded_profile(encoded.getvalue(), "a.png")
    assert found is not None
    assert np.abs(found.to_srgb(samples)[0, 0].astype(int) - colour).max() <= 3


def test_a_profile_of_16_bits_and_alpha(tmp_path: Path) -> None:
    """The background is of the screen: it is not converted."""
    deep = np.zeros((16, 16, 4), np.uint16)
    deep[:, :8, :3] = in_profile(SKIN, DISPLAY_P3)[::-1].astype(np.uint16) * 257
    deep[:, :8, 3] = 65535
    data = cv2.imencode(".png", deep)[1].tobytes()
    icc = rgb_profile(DISPLAY_P3)
    chunk = b"iCCPp3\0\0" + zlib.compress(icc)
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "a.png"
    path.write_bytes(data[:33] + chunk + data[33:])
    picture = read_image(path, "#10c030").astype(int)
    assert np.abs(picture[8, 4] - SKIN).max() <= 3
    assert picture[8, 12].tolist() == [0x10, 0xC0, 0x30]


def test_grey_with_a_profile_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    linear = profile(b"GRAY", {b"kTRC": curve(1.0)})
    Image.fromarray(flat(55)[..., 0]).save(path, icc_profile=linear)
    assert np.abs(read_image(path)[8, 8].astype(int) - 128).max() <= 2  # 0.2158 of the light


def cmyk_profile() -> bytes:
    """Inks of a table of two points each: white paper, ink by ink darker; magenta is orange."""
    corners = np.array(
        [[c, m, y, k] for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    )
    rgb = np.stack([1 - corners[:, 0], 1 - 0.5 * corners[:, 1], 1 - corners[:, 2]], axis=1)
    rgb = np.rint(255 * rgb * (1 - corners[:, 3:])).astype(np.uint8)[None]
    lab = cv2.cvtColor((rgb / 255).astype(np.float32), cv2.COLOR_RGB2LAB)[0]
    table = np.rint(np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], axis=1))
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += 4 * ramp + table.clip(0, 255).astype(np.uint8).tobytes() + 3 * ramp
    return profile(b"CMYK", {b"A2B0": lut}, b"Lab ")


def test_printing_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    inks = np.full((16, 16, 4), (0, 255, 0, 0), np.uint8)
    Image.fromarray(inks, "CMYK").save(path, icc_profile=cmyk_profile(), quality=98)
    assert np.abs(read_image(path)[8, 8].astype(int) - (255, 128, 255)).max() <= 6


def test_what_is_srgb_already_stays_as_it_is(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=icc)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_a_damaged_profile_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(flat(SKIN)).save(path, icc_profile=rgb_profile(DISPLAY_P3)[:200])
    np.testing.assert_array_equal(read_image(path), flat(SKIN))
    assert "a.png: unusable colour profile" in caplog.text


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_a_phones_heic_is_named(tmp_path: Path, brand: bytes) -> None:
    path = tmp_path / "IMG_0001.HEIC"
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(InputError, match="IMG_0001") as refused:
        read_image(path)
    assert "HEIC" in refused.value.hint
    assert "JPEG" in refused.value.hint
