"""What a batch's process remembers from clip to clip."""

from pathlib import Path

import numpy as np
import pytest

from moda_cli.config import ClipConfig
from moda_cli.errors import InputError
from moda_cli.face.portrait import Portrait, read_portrait
from moda_cli.jobs.clips import KeepingStudio
from moda_cli.media.pictures import read_image, write_image

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"


class CountingStudio:
    """Looks at portraits, and counts how often."""

    name = "rig"

    def __init__(self) -> None:
        self.looks = 0

    def look(self, clip: ClipConfig) -> Portrait:
        self.looks += 1
        return read_portrait(clip, None, None, released=False, seen_before=clip.portrait.parent)


def test_a_portrait_is_looked_at_once_whether_it_shows_a_face_or_not(tmp_path: Path) -> None:
    write_image(tmp_path / "face.png", read_image(PORTRAIT))
    write_image(tmp_path / "none.png", np.full((200, 200, 3), 90, np.uint8))
    counting = CountingStudio()
    studio = KeepingStudio(counting)
    for sound in ("a.wav", "b.wav", "c.wav"):
        faceless = ClipConfig(tmp_path / "none.png", Path(sound), Path("-"))
        with pytest.raises(InputError, match="no face found") as raised:
            studio.look(faceless)
        assert "--face-points" in raised.value.hint
        studio.look(ClipConfig(tmp_path / "face.png", Path(sound), Path("-")))
    assert counting.looks == 2
    write_image(tmp_path / "none.png", read_image(PORTRAIT))
    assert studio.look(faceless).face.iod > 100  # the file is another now
    assert counting.looks == 3
