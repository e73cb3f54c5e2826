"""What the page takes from a visitor, and what it refuses before any work."""

from dataclasses import dataclass
from pathlib import Path

from moda_cli.config import SAMPLE_RATE
from moda_cli.control.timeline_file import read_timeline
from moda_cli.errors import InputError
from moda_cli.media.sound import sound_blocks


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one visitor's files and of the queue."""

    upload_mb: float = 25  # of each file
    duration_s: float = 300  # of a clip
    megapixels: float = 50  # of a portrait
    waiting: int = 8  # clips that may wait for the machine
    jobs: int = 50  # of a batch
    clips: int = 20  # that a visitor keeps; the oldest goes
    visitors: int = 100  # whose clips are kept; who came first goes

    def check_portrait(self, path: Path) -> None:
        """Raises InputError for a picture that is too large; not for one that cannot be read."""
        from PIL import Image

        self._check_size(path)
        try:
            with Image.open(path) as image:
                width, height = image.size
        except Exception:  # whatever its decoders raise: `read_image` says it better
            return
        if width * height > self.megapixels * 1e6:
            hint = f"scale it down: {self.megapixels:g} megapixels are taken here"
            raise InputError(f"{path} is too large ({width}x{height})", hint=hint)

    def check_sound(self, path: Path) -> None:
        """Raises InputError for a sound that is too long, or that cannot be read."""
        self._check_size(path)
        heard = 0
        for block in sound_blocks(path):
            heard += len(block)
            if heard > self.duration_s * SAMPLE_RATE:
                hint = f"cut it: {self.duration_s:g} s are taken here"
                raise InputError(f"{path} is longer than {self.duration_s:g} s", hint=hint)

    def check_timeline(self, path: Path) -> None:
        """Raises InputError for a timeline with a fault, or that names files of this machine."""
        self._check_size(path)
        read_timeline(path, inserts=False)

    def _check_size(self, path: Path) -> None:
        if path.stat().st_size > self.upload_mb * 1e6:
            hint = f"{self.upload_mb:g} MB are taken here"
            raise InputError(f"{path} is too large", hint=hint)
