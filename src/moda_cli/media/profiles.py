"""Colours that an embedded ICC profile describes, as a screen shows them: in sRGB."""

import io
import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Samples = NDArray[np.uint8]  # (H, W, 3) RGB

# every profile is signed so; a PNG's is compressed
SIGNS = (b"acsp", b"iCCP")
UNSEEN = 2  # levels: profiles that change no colour by more are sRGB under another name


class Profile:
    """The ICC profile of a picture file, made ready to bring its samples to sRGB."""

    def __init__(self, icc: bytes) -> None:
        """Raises ValueError for a damaged profile, or one of other colours than a picture's."""
        from PIL import ImageCms

        try:
            self._profile = ImageCms.getOpenProfile(io.BytesIO(icc))
            self.space = str(self._profile.profile.xcolor_space).strip()
            self._mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[self.space]
            self._transform = ImageCms.buildTransform(
                self._profile,
                ImageCms.createProfile("sRGB"),
                self._mode,
                "RGB",
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (OSError, KeyError, ImageCms.PyCMSError) as error:
            raise ValueError(f"unusable colour profile: {error}") from None

    def to_srgb(self, picture: Samples) -> Samples:
        """A picture (H, W, 3) whose samples are those of the file; grey is in all of them."""
        from PIL import Image

        if self.space == "RGB" and self._is_srgb():
            return picture
        samples = picture[..., 0] if self.space == "GRAY" else picture
        return self.apply(Image.fromarray(np.ascontiguousarray(samples)))

    def apply(self, image: Any) -> Samples:
        """The same of a PIL image in the profile's own colours."""
        from PIL import ImageCms

        return np.array(ImageCms.applyTransform(image, self._transform), np.uint8)

    def _is_srgb(self) -> bool:
        from PIL import Image

        steps = np.linspace(0, 255, 6).astype(np.uint8)
        cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(36, 6, 3)
        shown = self.apply(Image.fromarray(cube)).astype(int)
        return bool(np.abs(shown - cube).max() <= UNSEEN)


def embedded_profile(data: bytes, name: str) -> Profile | None:
    """The profile in a picture file's bytes, None without one.

    A damaged one is named in the log and counts as none, as in browsers.
    """
    if not any(sign in data for sign in SIGNS):
        return None
    try:
        icc = opened(data).info.get("icc_profile")
        return Profile(icc) if icc else None
    except ValueError as error:
        log.warning("%s: %s; its colours are taken for sRGB", name, error)
        return None


def cmyk_to_srgb(data: bytes, profile: Profile) -> Samples:
    """The picture in a file of printing colours. Raises ValueError where it cannot be read."""
    image = opened(data)
    try:
        return profile.apply(image if image.mode == "CMYK" else image.convert("CMYK"))
    except OSError as error:
        raise ValueError(str(error)) from None


def opened(data: bytes) -> Any:
    """A picture file's header as a PIL image. Raises ValueError for what Pillow does not know."""
    from PIL import Image

    own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # whoever decodes judges its size
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, SyntaxError) as error:
        raise ValueError(str(error)) from None
    finally:
        Image.MAX_IMAGE_PIXELS = own
