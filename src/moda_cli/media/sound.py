"""Sound in any format to one 16 kHz wave."""

import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import SAMPLE_RATE, SAMPLES_PER_FRAME
from moda_cli.errors import InputError
from moda_cli.media.ffmpeg import ffmpeg, file_input, first_error

Wave = NDArray[np.float32]  # (N,) mono, 16 kHz, in [-1, 1]

SOUND_HINT = "use WAV, FLAC, MP3, M4A, OGG, or a video with sound"

# what libsndfile reads without guessing: WAV, FLAC, Ogg, AIFF, CAF, AU
SOUNDFILE_MAGIC = (b"RIFF", b"RF64", b"fLaC", b"OggS", b"FORM", b"caff", b".snd")


def read_audio(path: Path) -> Wave:
    """The sound in a file, or on standard input for `-`: channels averaged, 16 kHz, (N,) float32.

    N is ceil(n 16000 / rate), as in the MoDA release. Raises InputError for what holds no sound,
    less than one video frame of it, or values that are not finite.
    """
    if str(path) != "-":
        return _read_sound(path, str(path))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sound"  # decoders seek
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        return _read_sound(copy, "standard input")


def _read_sound(path: Path, name: str) -> Wave:
    import soxr

    if not path.is_file():
        raise InputError(f"there is no file {name}", hint="check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{name} is empty", hint=SOUND_HINT)
    samples = bytearray()  # grows in place: an hour of sound is 230 MB
    resampler, rate, count = None, SAMPLE_RATE, 0
    for rate, block in _sound_blocks(path, name):
        if not np.isfinite(block).all():
            raise InputError(f"{name} holds samples that are not numbers", hint="export it again")
        mono = block.mean(axis=1, dtype=np.float32)
        count += len(mono)
        if resampler is None:
            resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        samples += (mono if rate == SAMPLE_RATE else resampler.resample_chunk(mono)).tobytes()
    if resampler is not None and rate != SAMPLE_RATE:
        samples += resampler.resample_chunk(np.zeros(0, np.float32), last=True).tobytes()
    length = -(-count * SAMPLE_RATE // rate)
    if length < SAMPLES_PER_FRAME:
        hint = "at least 40 ms of sound is needed"
        raise InputError(f"{name} lasts {1000 * count // rate} ms", hint=hint)
    del samples[4 * length :]
    samples += bytes(4 * length - len(samples))
    wave = np.frombuffer(samples, np.float32)
    return wave.clip(-1, 1, out=wave)


def _sound_blocks(path: Path, name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Sample rate and samples (n, channels), block by block."""
    import soundfile

    try:
        with path.open("rb") as start:
            is_plain = start.read(4) in SOUNDFILE_MAGIC
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from None
    try:
        file = soundfile.SoundFile(path) if is_plain else None
    except soundfile.LibsndfileError:
        file = None
    if file is None:
        yield from _ffmpeg_blocks(path, name)
        return
    with file:
        try:
            for block in file.blocks(1 << 16, dtype="float32", always_2d=True):
                yield file.samplerate, block
        except soundfile.LibsndfileError as error:
            raise InputError(f"{name} is damaged: {error}", hint="export it again") from None


def _ffmpeg_blocks(path: Path, name: str) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """The same from the first sound track of any file that ffmpeg reads."""
    # .au is the one streamable format whose header holds rate and channels but no length
    output = ["-map", "0:a:0", "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [*ffmpeg(), *file_input(path), *output],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as process,
    ):
        assert process.stdout is not None
        header = process.stdout.read(24)
        if len(header) < 24:
            process.wait()
            reason = first_error(log)
            if "matches no streams" in reason or "does not contain any stream" in reason:
                raise InputError(f"{name} has no sound track", hint=SOUND_HINT)
            raise InputError(f"cannot read {name} as sound: {reason}", hint=SOUND_HINT)
        _, offset, _, _, rate, channels = struct.unpack(">6I", header)
        process.stdout.read(offset - len(header))
        while data := process.stdout.read(4 * channels << 16):
            whole = len(data) - len(data) % (4 * channels)
            block = np.frombuffer(data[:whole], ">f4").reshape(-1, channels)
            yield rate, block.astype(np.float32)
