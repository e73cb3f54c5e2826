"""The sound of a video that is being encoded, handed to ffmpeg while it comes."""

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from moda_cli.config import SAMPLE_RATE
from moda_cli.media.sound import played
from moda_cli.media.tracks import Block
from moda_cli.media.waves import Wave

SOUND_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # that every player takes


@contextmanager
def sound_input(
    audio: Path | Wave | Iterable[Block] | None, encoder: list[str], folder: Path
) -> Iterator[tuple[list[str], list[str], tuple[int, ...], list[Exception]]]:
    """A second input, its encoder, the pipe it is read from, if any, and what went wrong there.

    Its clock counts samples, so the first one is at 0.
    """
    failed: list[Exception] = []
    if audio is None or not encoder:
        yield [], [], (), failed
        return
    if isinstance(audio, Path):
        audio = played(audio)
    elif isinstance(audio, np.ndarray):
        audio = [(SAMPLE_RATE, audio.astype(np.float32)[:, None])]
    blocks = iter(audio)
    first = next(blocks, None)
    if first is None:
        raise ValueError("a sound needs a sample")
    rate, channels = first[0], first[1].shape[1]
    form = ["-f", "f32le", "-ar", str(rate), "-ac", str(channels)]
    kept = rate in SOUND_RATES and encoder[0] == "aac"
    output = ["-map", "1:a", "-c:a", *encoder, "-ar", str(rate if kept else 48_000)]
    blocks = chain([first], blocks)
    if os.name == "nt":  # where a process inherits no pipe
        with (folder / "sound").open("wb") as file:
            _pour(blocks, file, failed)
        yield [*form, "-i", str(folder / "sound")], output, (), failed
        return
    readable, writable = os.pipe()
    pipe = open(writable, "wb")  # noqa: SIM115 - closed by its thread
    pour = threading.Thread(target=_pour, args=(blocks, pipe, failed), daemon=True)
    pour.start()
    try:
        yield [*form, "-i", f"pipe:{readable}"], output, (readable,), failed
    finally:
        os.close(readable)


def _pour(blocks: Iterable[Block], file: IO[bytes], failed: list[Exception]) -> None:
    """Write samples as they come. What fails is known before the file is at its end."""
    try:
        for _, block in blocks:
            file.write(block.tobytes())
            file.flush()
    except BrokenPipeError:  # ffmpeg has gone
        pass
    except Exception as error:
        failed.append(error)
    finally:
        with suppress(OSError):
            file.close()
