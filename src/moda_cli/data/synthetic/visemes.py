"""Timed phones to lip motion: viseme classes, dominance blending, forced labial closure.

The mouth is a deterministic function of the phones. Units are those of motion.ARTICULATORS.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from moda_cli.config import FPS

RATE = 200  # Hz at which the blending runs
LEAD_S = 0.04  # the mouth moves ahead of the sound
CLOSURE_LEAD_S = 0.02  # and closes a little ahead of it
SMOOTH_S = 0.018  # standard deviation of the Gaussian
RELEASE_S = 0.03  # how fast a forced closure lets go
REST_S = 0.15  # lips are at rest this long before and after speech
JAW_GAIN = 1.45  # people open more than the map's prototype
CLOSED_JAW = -8.0
BITTEN_JAW = 5.0  # lower lip at the upper teeth


class Viseme(NamedTuple):
    """Targets of jaw, spread, round and how strongly each is held against its neighbours."""

    jaw: float
    spread: float
    round: float
    hold_jaw: float = 1.0
    hold_width: float = 1.0


VISEMES = {
    "SIL": Viseme(0, 0, 0),
    "AA": Viseme(55, 0, 0, 2.0),
    "AE": Viseme(47, 7, 0, 2.0),
    "AH": Viseme(32, 0, 0, 1.3),
    "AX": Viseme(24, 1, 0, 0.7, 0.5),
    "EH": Viseme(37, 5, 0, 1.5),
    "IH": Viseme(22, 5, 0),
    "IY": Viseme(14, 12, 0, 1.0, 1.5),
    "AO": Viseme(47, 0, 6.6, 2.0, 1.2),
    "OW": Viseme(34, 0, 10.2, 1.5, 2.0),
    "UH": Viseme(22, 0, 7, 1.0, 1.3),
    "UW": Viseme(17, 0, 12, 1.0, 2.5),
    "OE": Viseme(30, 0, 9.5, 1.3, 2.0),  # French eu, German o umlaut
    "UE": Viseme(14, 0, 12, 1.0, 2.5),  # French u, German u umlaut
    "ER": Viseme(22, 0, 4.8),
    "W": Viseme(12, 0, 12, 1.0, 2.5),
    "Y": Viseme(13, 9, 0),
    "R": Viseme(16, 0, 5.4),
    "M": Viseme(0, 0, 0.6, 1.6, 0.3),
    "F": Viseme(4, 1, 0, 1.6, 0.6),
    "TH": Viseme(16, 1, 0, 1.0, 0.6),
    "L": Viseme(21, 1, 0, 0.8, 0.5),
    "T": Viseme(12, 1, 0, 0.8, 0.5),
    "S": Viseme(8, 6, 0, 1.2, 0.9),
    "SH": Viseme(12, 0, 6, 1.2, 1.5),
    "K": Viseme(18, 0, 0, 0.45, 0.3),
    "H": Viseme(21, 0, 0, 0.25, 0.2),
}
LABIAL = "M"  # /p b m/
OPEN = ("AA", "AE", "AO")

# The American set of flite and festival; two visemes split a diphthong 55/45.
ARPABET = {
    "aa": "AA", "ae": "AE", "ah": "AH", "ao": "AO", "aw": "AA UW", "ax": "AX", "axr": "ER",
    "ay": "AA IY", "b": "M", "ch": "T SH", "d": "T", "dh": "TH", "dx": "T", "eh": "EH", "el": "L",
    "em": "M", "en": "T", "er": "ER", "ey": "EH IY", "f": "F", "g": "K", "hh": "H", "hv": "H",
    "ih": "IH", "ix": "IH", "iy": "IY", "jh": "T SH", "k": "K", "l": "L", "m": "M", "n": "T",
    "ng": "K", "nx": "T", "ow": "OW UW", "oy": "AO IY", "p": "M", "r": "R", "s": "S", "sh": "SH",
    "t": "T", "th": "TH", "uh": "UH", "uw": "UW", "v": "F", "w": "W", "y": "Y", "z": "S",
    "zh": "SH",
}  # fmt: skip
IPA = {
    char: viseme
    for chars, viseme in {
        "aɑ": "AA", "æ": "AE", "ɐʌɜ": "AH", "ə": "AX", "eɛ": "EH", "ɪɨᵻɘ": "IH", "i": "IY",
        "ɔɒ": "AO", "oɵ": "OW", "ʊ": "UH", "uɯ": "UW", "øœ": "OE", "yʏ": "UE", "ɚɝ": "ER",
        "wʍɥ": "W", "jʎɲʝ": "Y", "ɹɻ": "R", "pbm": "M", "fvʋɱβɸ": "F", "θð": "TH", "lɫɬɭ": "L",
        "tdnrɾɽʈɖɳ": "T", "sz": "S", "ʃʒɕʑʂʐç": "SH", "kɡgxɣχŋcɟʀʁqɴ": "K", "hɦʔ": "H",
    }.items()
    for char in chars
}  # fmt: skip
SILENT = ("", "pau", "sil", "ssil", "brth", "h#", "#")


class Phone(NamedTuple):
    """A viseme class (or an engine's symbol) and its time in seconds."""

    symbol: str
    start: float
    end: float


def visemes_of(symbol: str, ipa: bool) -> list[str]:
    """Viseme classes of an engine's phone symbol, in order; silence gives ["SIL"]."""
    if symbol in SILENT:
        return ["SIL"]
    if not ipa:
        return ARPABET[symbol].split()
    letters = unicodedata.normalize("NFD", symbol)
    found = [IPA[letter] for letter in letters if letter in IPA]
    return found[:2] or ["H"]


def to_visemes(phones: Sequence[Phone], ipa: bool) -> list[Phone]:
    """Phones with the engine's symbols replaced by viseme classes, diphthongs split in two."""
    result = []
    for symbol, start, end in phones:
        names = visemes_of(symbol, ipa)
        if len(names) == 1:
            result.append(Phone(names[0], start, end))
        else:
            middle = start + 0.55 * (end - start)
            result += [Phone(names[0], start, middle), Phone(names[1], middle, end)]
    return result


def lips(phones: Sequence[Phone], num_frames: int, jaw_offset: float = 0) -> NDArray[np.float32]:
    """Jaw, spread and round (T, 3) per 25 fps frame of viseme-class phones.

    jaw_offset opens (or closes) the jaw further during speech, never at a labial. Frame t is the
    mean over [t, t + 1) / 25 s. The frame holding the middle of each /p b m/ is fully closed.
    """
    spoken = [phone for phone in phones if phone.symbol != "SIL"]
    time = (np.arange(num_frames * RATE // FPS) + 0.5) / RATE
    if not spoken:
        return np.zeros((num_frames, 3), np.float32)
    curves = _smooth(_blend(phones, time + LEAD_S))
    gate = _speaking(spoken, time)
    curves[:, 0] = curves[:, 0] * JAW_GAIN + jaw_offset
    curves *= gate[:, None]
    for symbol, jaw, strength in (("F", BITTEN_JAW, 0.85), (LABIAL, CLOSED_JAW, 1.0)):
        closed = strength * _closure([p for p in spoken if p.symbol == symbol], time)
        curves[:, 0] += closed * (jaw - curves[:, 0])
        curves[:, 1:] *= 1 - 0.25 * closed[:, None]
    frames = curves.reshape(num_frames, RATE // FPS, 3).mean(axis=1)
    for phone in spoken:
        if phone.symbol == LABIAL:
            nearest = min(int((phone.start + phone.end) / 2 * FPS), num_frames - 1)
            frames[nearest, 0] = CLOSED_JAW
    sampled: NDArray[np.float32] = frames.astype(np.float32)
    return sampled


def _outside(
    phones: Sequence[Phone], time: NDArray[np.float64], core: float
) -> NDArray[np.float64]:
    """Seconds (S, P) from each time to the middle `core` part of each phone, 0 inside."""
    start, end = (np.array([p[i] for p in phones], dtype=np.float64) for i in (1, 2))
    distance = np.abs(time[:, None] - (start + end) / 2) - core / 2 * (end - start)
    return np.maximum(distance, 0)


def _blend(phones: Sequence[Phone], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dominance-weighted mean (S, 3) of the targets (Cohen and Massaro 1993)."""
    rows = [VISEMES[phone.symbol] for phone in phones]
    target = np.array([row[:3] for row in rows])
    hold = np.array([(row.hold_jaw, row.hold_width, row.hold_width) for row in rows])
    steepness = np.array([30.0 if p.symbol in (LABIAL, "F") else 18.0 for p in phones])
    weight = np.exp(-((steepness * _outside(phones, time, 0.6)) ** 1.3))
    weight += 1e-9  # far from every phone the mean stays defined
    blended: NDArray[np.float64] = (weight @ (hold * target)) / (weight @ hold)
    return blended


def _smooth(curves: NDArray[np.float64]) -> NDArray[np.float64]:
    reach = round(3 * SMOOTH_S * RATE)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / (SMOOTH_S * RATE)) ** 2)
    kernel /= kernel.sum()
    padded = np.pad(curves, ((reach, reach), (0, 0)), mode="edge")
    return np.stack([np.convolve(c, kernel, mode="valid") for c in padded.T], axis=1)


def _speaking(spoken: Sequence[Phone], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 during speech, falling smoothly to exactly 0 REST_S away from it. (S)"""
    near = np.clip(1 - _outside(spoken, time, 1.0).min(axis=1) / REST_S, 0, 1)
    smooth: NDArray[np.float64] = near * near * (3 - 2 * near)
    return smooth


def _closure(phones: Sequence[Phone], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """How closed (S), 0..1, the given closures hold the mouth."""
    if not phones:
        return np.zeros_like(time)
    ahead = [Phone(p.symbol, p.start - CLOSURE_LEAD_S, p.end - CLOSURE_LEAD_S) for p in phones]
    shut: NDArray[np.float64] = np.exp(-((_outside(ahead, time, 0.6) / RELEASE_S) ** 2))
    most: NDArray[np.float64] = shut.max(axis=1)
    return most
