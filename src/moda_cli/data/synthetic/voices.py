"""Build-time drivers of three speech synthesisers that report when each phone sounds.

espeak-ng, flite and festival are apt packages, called and never shipped. Without one, its driver
raises InputError naming the package.
"""

import ctypes
import multiprocessing
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from moda_cli.config import SAMPLE_RATE
from moda_cli.data.synthetic.visemes import Phone
from moda_cli.errors import InputError

ESPEAK_LATE_S = 0.018  # its labels against the sound, compared with flite's
PHONEME_EVENT = 7  # espeak_EVENT_TYPE
PHONEME_EVENTS_IN_IPA = 3  # bits of espeak_Initialize's options
RETRIEVAL = 1  # espeak_AUDIO_OUTPUT: the library hands the samples to the callback
UTF8 = 1
ESPEAK_RATE, ESPEAK_PITCH = 1, 3  # espeak_PARAMETER


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice of one engine. `name` is the engine's; for espeak it may be language+variant."""

    engine: Literal["espeak", "flite", "festival"]
    name: str
    language: str = "en"

    @property
    def ipa(self) -> bool:
        """Whether its phone symbols are IPA (else the American set)."""
        return self.engine == "espeak"


@dataclass(frozen=True, slots=True)
class Request:
    """One sentence to say. rate, pitch and size are factors around 1.

    size > 1 is a smaller speaker: the wave is played faster, formants and all.
    """

    voice: Voice
    text: str
    rate: float = 1.0
    pitch: float = 1.0
    size: float = 1.0


@dataclass(frozen=True, slots=True)
class Speech:
    """wave: (N,) float32 at 16 kHz. phones: the engine's symbols, in order, in seconds."""

    wave: NDArray[np.float32]
    phones: list[Phone]


def synthesise(requests: Sequence[Request]) -> list[Speech]:
    """Speech of each request, in order; the same requests give the same samples.

    Raises InputError when an engine or voice is missing.
    """
    spoken: dict[int, Speech] = {}
    for engine, speak in (("espeak", _espeak_apart), ("flite", _flite), ("festival", _festival)):
        mine = [i for i, request in enumerate(requests) if request.voice.engine == engine]
        spoken.update(zip(mine, speak([requests[i] for i in mine]), strict=True))
    return [spoken[i] for i in range(len(requests))]


def _missing(engine: str) -> InputError:
    return InputError(f"{engine} is not installed", hint=f"sudo apt-get install {engine}")


def _finish(
    wave: NDArray[Any], rate: int, onsets: Sequence[tuple[str, float, float]], size: float
) -> Speech:
    """Speech at 16 kHz, played `size` times as fast."""
    played = soxr.resample(wave.astype(np.float32), rate * size, SAMPLE_RATE).astype(np.float32)
    return Speech(played, [Phone(name, start / size, end / size) for name, start, end in onsets])


def _read_wave(path: Path) -> tuple[NDArray[np.float32], int]:
    wave, rate = soundfile.read(path, dtype="float32")
    return wave, rate


def _flite(requests: Sequence[Request]) -> list[Speech]:
    binary = shutil.which("flite")
    if requests and binary is None:
        raise _missing("flite")
    return [_flite_sentence(str(binary), request) for request in requests]


def _flite_sentence(binary: str, request: Request) -> Speech:
    base_hz = {"slt": 170, "awb": 120, "rms": 100}[request.voice.name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        settings = [f"duration_stretch={1 / request.rate:.3f}"]
        settings += [f"int_f0_target_mean={base_hz * request.pitch:.1f}"]
        command = [binary, "-voice", request.voice.name, "-psdur"]
        command += [part for setting in settings for part in ("--setf", setting)]
        command += ["-t", request.text, "-o", str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        wave, rate = _read_wave(path)
    ends = [item.rsplit(":", 1) for item in printed.split()]
    return _finish(wave, rate, _from_ends([(name, float(end)) for name, end in ends]), request.size)


def _from_ends(ends: Sequence[tuple[str, float]]) -> list[tuple[str, float, float]]:
    starts = [0.0, *(end for _, end in ends[:-1])]
    return [(name, start, end) for start, (name, end) in zip(starts, ends, strict=True)]


FESTIVAL_VOICES = {
    "ked_diphone": ("voice_ked_diphone", 105),
    "kal_diphone": ("voice_kal_diphone", 105),
    "slt_hts": ("voice_cmu_us_slt_arctic_hts", 0),
}


def _festival(requests: Sequence[Request]) -> list[Speech]:
    if not requests:
        return []
    binary = shutil.which("festival")
    if binary is None:
        raise _missing("festival")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "speak.scm"
        lines = [line for i, request in enumerate(requests) for line in _scheme(i, request)]
        script.write_text("\n".join(lines))
        subprocess.run([binary, "-b", script.name], check=True, capture_output=True, cwd=folder)
        return [_festival_result(Path(folder), i, request) for i, request in enumerate(requests)]


def _scheme(index: int, request: Request) -> list[str]:
    voice, hz = FESTIVAL_VOICES[request.voice.name]
    text = request.text.replace("\\", "").replace('"', "")
    mean = hz * request.pitch
    intonation = [
        f"(set! int_lr_params '((target_f0_mean {mean:.1f}) (target_f0_std 18)"
        " (model_f0_mean 170) (model_f0_std 34)))"
    ]
    return [
        f"({voice})",
        *(intonation if hz else []),
        f"(Parameter.set 'Duration_Stretch {1 / request.rate:.3f})",
        f'(set! speech (Utterance Text "{text}"))',
        "(utt.synth speech)",
        f'(utt.save.segs speech "{index}.lab")',
        f'(utt.save.wave speech "{index}.wav")',
    ]


def _festival_result(folder: Path, index: int, request: Request) -> Speech:
    wave_path = folder / f"{index}.wav"
    if not wave_path.exists():
        hint = "sudo apt-get install festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts"
        raise InputError(f"festival could not speak with {request.voice.name}", hint=hint)
    wave, rate = _read_wave(wave_path)
    rows = (folder / f"{index}.lab").read_text().splitlines()[1:]
    ends = [(row.split()[2], float(row.split()[0])) for row in rows]
    return _finish(wave, rate, _from_ends(ends), request.size)


class _EventId(ctypes.Union):
    _fields_ = (("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h, version 1.51."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _EventId),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


class _Espeak:
    """The library, which can be initialised once per process, and what its callback collected."""

    def __init__(self) -> None:
        try:
            self.library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError:
            raise _missing("espeak-ng") from None
        self.rate: int = self.library.espeak_Initialize(RETRIEVAL, 200, None, PHONEME_EVENTS_IN_IPA)
        self.pieces: list[NDArray[np.int16]] = []
        self.onsets: list[tuple[str, int]] = []
        self.callback = _Callback(self._collect)  # the library keeps a pointer to it
        self.library.espeak_SetSynthCallback(self.callback)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            self.pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while events[index].type:
            if events[index].type == PHONEME_EVENT:
                name = bytes(events[index].id.string).decode("utf-8", "ignore")
                self.onsets.append((name, events[index].sample))
            index += 1
        return 0


def _espeak_apart(requests: Sequence[Request]) -> list[Speech]:
    """Speech from a process of its own: the library remembers earlier speech until it ends."""
    if not requests:
        return []
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(_espeak, requests).result()


def _espeak(requests: Sequence[Request]) -> list[Speech]:
    espeak = _Espeak()
    return [_espeak_sentence(espeak, request) for request in requests]


def _espeak_sentence(espeak: _Espeak, request: Request) -> Speech:
    if espeak.library.espeak_SetVoiceByName(request.voice.name.encode()):
        raise InputError(f"espeak-ng has no voice {request.voice.name}", hint="espeak-ng --voices")
    espeak.library.espeak_SetParameter(ESPEAK_RATE, round(165 * request.rate), 0)
    espeak.library.espeak_SetParameter(ESPEAK_PITCH, round(50 * request.pitch), 0)
    espeak.pieces.clear()
    espeak.onsets.clear()
    text = request.text.encode()
    espeak.library.espeak_Synth(text, len(text) + 1, 0, 1, 0, UTF8, None, None)
    espeak.library.espeak_Synchronize()
    wave = np.concatenate(espeak.pieces).astype(np.float32) / 32768
    return _finish(wave, espeak.rate, _from_onsets(espeak, len(wave)), request.size)


def _from_onsets(espeak: _Espeak, num_samples: int) -> list[tuple[str, float, float]]:
    """Phones between the onsets; a nameless gap of under 60 ms belongs to the phone before it."""
    times = [*(sample / espeak.rate for _, sample in espeak.onsets), num_samples / espeak.rate]
    phones: list[tuple[str, float, float]] = []
    for (name, _), start, end in zip(espeak.onsets, times[:-1], times[1:], strict=True):
        if end <= start:
            continue
        shifted, until = max(start - ESPEAK_LATE_S, 0), max(end - ESPEAK_LATE_S, 0)
        if phones and not name and end - start < 0.06:
            phones[-1] = (phones[-1][0], phones[-1][1], until)
        else:
            phones.append((name, shifted, until))
    return phones
