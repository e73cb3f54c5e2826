"""Text drawn over frames: a label in a corner, subtitles at the foot."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from moda_cli.errors import UsageError
from moda_cli.media.pictures import Picture
from moda_cli.media.subtitles import Cue

if TYPE_CHECKING:
    from PIL import Image
    from PIL.ImageFont import FreeTypeFont

# Shares of the frame's shorter side; letters are somewhat lower. 5 % is what rules for marks on
# synthetic media that name a height ask for (GB 45438-2025).
LABEL_SIZE, SUBTITLE_SIZE, MARGIN = 0.06, 0.06, 0.03
WIDEST = 0.92  # of the frame, before a line is broken
SMALLEST = 9  # pixels that letters need to be read
SYSTEM_FONTS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}
USUAL_FONTS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
PLAIN = ("sans", "arial", "helvetica", "roboto", "segoe", "noto")  # in names that read well
FANCY = ("bold", "italic", "oblique", "mono", "light", "thin", "condensed", "black", "serif")
NO_CHARACTER = "\uffff"  # in no font: drawn as what a font draws for the characters it lacks


@lru_cache
def find_font(text: str, given: Path | None = None) -> Path | None:
    """A font that has every character of a text: the given one, the bundled one, a system's.

    None is the bundled one, which knows ASCII only. Raises UsageError where there is none.
    """
    if given is not None:
        if missing := _missing(text, given):
            raise UsageError(f"the font {given} has no {missing}", hint="give another --font")
        return given
    for path in (None, *_system_fonts()):
        try:
            if not _missing(text, path):
                return path
        except UsageError:  # not a font after all
            continue
    hint = "--font FILE names a .ttf or .otf that has it, such as one of the Noto family"
    raise UsageError(f"no font of this machine has {_missing(text, None)}", hint=hint)


def _missing(text: str, font: Path | None) -> str:
    """The first few characters of a text that a font lacks. Raises UsageError for no font."""
    opened = _opened(font, 24)
    lacked = bytes(opened.getmask(NO_CHARACTER))
    characters = sorted({char for char in text if not char.isspace()})
    return "".join(char for char in characters if bytes(opened.getmask(char)) == lacked)[:8]


@lru_cache
def _opened(font: Path | None, size: int) -> "FreeTypeFont":
    """Raises UsageError for a file that is no font."""
    from PIL import ImageFont

    if font is None:
        return ImageFont.load_default(size)  # type: ignore[return-value]  # where FreeType is there
    try:
        return ImageFont.truetype(font, size)
    except (OSError, ValueError) as error:
        raise UsageError(f"{font} is no font: {error}", hint="use a .ttf or .otf file") from None


@lru_cache
def _system_fonts() -> tuple[Path, ...]:
    """Fonts of the system, those that read well first."""
    folders = [Path(name).expanduser() for name in SYSTEM_FONTS.get(sys.platform, USUAL_FONTS)]
    found = [path for folder in folders for path in folder.rglob("*.[to]t[fc]")]

    def rank(path: Path) -> tuple[int, int, str]:
        name = path.stem.lower()
        return (
            sum(word in name.replace("sansserif", "sans") for word in FANCY),
            -sum(word in name for word in PLAIN),
            str(path),
        )

    return tuple(sorted(found, key=rank))


def _broken(text: str, font: "FreeTypeFont", width: float) -> Iterator[str]:
    """Lines no wider than `width` pixels, broken between words, or within those that are longer."""
    for line in text.splitlines():
        shown = ""
        for word in line.split():
            longer = f"{shown} {word}".strip()
            if font.getlength(longer) <= width:
                shown = longer
                continue
            if shown:
                yield shown
            shown = ""
            for char in word:
                if shown and font.getlength(shown + char) > width:
                    yield shown
                    shown = ""
                shown += char
        yield shown


def _lettered(text: str, size: int, width: float, font: Path | None, align: str) -> "Image.Image":
    """White letters with a dark rim on a dark, half transparent plate: read on any ground."""
    from PIL import Image, ImageDraw

    opened = _opened(font, size)
    lines = "\n".join(_broken(text, opened, width))
    rim, pad = max(1, round(size / 14)), round(size * 0.3)
    ruler = ImageDraw.Draw(Image.new("RGBA", (1, 1)))
    form = {"font": opened, "align": align, "stroke_width": rim}
    left, top, right, bottom = ruler.multiline_textbbox((0, 0), lines, **form)  # type: ignore[arg-type]
    size_px = (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad)
    plate = Image.new("RGBA", size_px, (0, 0, 0, 0))
    draw = ImageDraw.Draw(plate)
    draw.rounded_rectangle((0, 0, size_px[0] - 1, size_px[1] - 1), pad, fill=(0, 0, 0, 120))
    letters = Image.new("RGBA", size_px, (0, 0, 0, 0))
    place = (pad - left, pad - top)
    ImageDraw.Draw(letters).multiline_text(
        place,
        lines,
        fill=(255, 255, 255, 255),
        stroke_fill=(0, 0, 0, 255),
        **form,  # type: ignore[arg-type]
    )
    plate.alpha_composite(letters)
    return plate


@dataclass(frozen=True, slots=True)
class Patch:
    """A plate of letters (h, w, 4) RGBA and where its corner lies in a frame."""

    pixels: NDArray[np.uint8]
    x: int
    y: int

    def laid_over(self, frame: Picture) -> None:
        """Draw it into a frame (H, W, 3) or (H, W, 4), as far as it is inside."""
        height, width = self.pixels.shape[:2]
        below = frame[self.y : self.y + height, self.x : self.x + width]
        pixels = self.pixels[: below.shape[0], : below.shape[1]].astype(np.float32)
        share = pixels[..., 3:] / 255
        ground = below.astype(np.float32)
        if frame.shape[2] == 3:
            below[:] = np.rint(pixels[..., :3] * share + ground * (1 - share))
            return
        under = ground[..., 3:] / 255 * (1 - share)
        alpha = share + under
        colour = pixels[..., :3] * share + ground[..., :3] * under
        below[..., :3] = np.rint(colour / np.maximum(alpha, 1 / 255))
        below[..., 3:] = np.rint(alpha * 255)


@dataclass
class Lettering:
    """What is written over the frames of one clip: its label always, its cues while they last."""

    label: str | None = None
    cues: Sequence[Cue] = ()
    font: Path | None = None
    _patches: dict[tuple[str, bool], Patch] = field(default_factory=dict)

    def fonts(self) -> tuple[Path | None, Path | None]:
        """Those of the label and of all subtitles. Raises UsageError where one lacks something."""
        said = "".join(cue.plain for cue in self.cues)
        return find_font(self.label or "", self.font), find_font(said, self.font)

    def __call__(self, frame: Picture, seconds: float) -> Picture:
        """The frame (H, W, 3) or (H, W, 4) that is shown at a moment; another array if drawn on."""
        showing = [cue.plain for cue in self.cues if cue.start_s <= seconds < cue.end_s]
        texts = [(self.label, False)] if self.label else []
        if showing:
            texts.append(("\n".join(showing), True))
        if not texts:
            return frame
        drawn = frame.copy()
        for text, is_subtitle in texts:
            self._patch(text, is_subtitle, frame.shape).laid_over(drawn)
        return drawn

    def _patch(self, text: str, is_subtitle: bool, shape: tuple[int, ...]) -> Patch:
        """A label stands at the left upper corner, a subtitle in the middle of the foot."""
        if (text, is_subtitle) not in self._patches:
            self._patches = {k: p for k, p in self._patches.items() if not k[1]}  # the cue is over
            height, width = shape[:2]
            short = min(height, width)
            share, align = (SUBTITLE_SIZE, "center") if is_subtitle else (LABEL_SIZE, "left")
            size, margin = max(SMALLEST, round(share * short)), round(MARGIN * short)
            font = self.fonts()[is_subtitle]
            plate = np.asarray(_lettered(text, size, WIDEST * width - 2 * margin, font, align))
            x = max(0, (width - plate.shape[1]) // 2) if is_subtitle else margin
            y = max(0, height - margin - plate.shape[0]) if is_subtitle else margin
            self._patches[text, is_subtitle] = Patch(plate, x, y)
        return self._patches[text, is_subtitle]
