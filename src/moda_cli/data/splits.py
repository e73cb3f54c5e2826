"""The test sets of `moda eval`, protocol moda-eval-v1: nothing is drawn, so nothing is picked.

Clips are ordered by a hash of their names; every speaker counts once; the window inside a clip
follows from the same hash. Anyone with the public annotation files gets the same list.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moda_cli.config import FPS, PICTURES, SOUNDS
from moda_cli.errors import InputError, UsageError
from moda_cli.files import parse_json

PROTOCOL = "moda-eval-v1"
TITLES = {"hdtf": "HDTF", "celebvhq": "CelebV-HQ", "wild": "wild"}
RESERVE = 30
MIN_FRAMES = 75  # of a CelebV-HQ clip
SHORTEST_S, RANGE_S = 3, 7  # windows last 3 to 10 s
ABOUT_CASE = "case.json"  # in a wild case's folder: some of these, as text
CASE_FIELDS: dict[str, tuple[str, ...]] = {  # with the values there are, where they are few
    "category": ("real", "animated", "dynamic scene", "headwear"),
    "audio_type": ("speech", "emotional", "singing"),
    "portrait_licence": (),
    "portrait_source": (),
    "audio_licence": (),
    "audio_source": (),
}
FROZEN = {"hdtf-50": Path(__file__).parents[1] / "assets" / "hdtf_test_v1.json"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A clip of a data set's annotation files, with what identifies its speaker."""

    id: str
    speaker: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class Entry:
    """A test clip and the window in it that is measured."""

    id: str
    speaker: str
    first_frame: int  # at 25 fps, of the clip
    frames: int
    order_key: str  # the first 16 digits of the hash it is ordered by


@dataclass(frozen=True, slots=True)
class Split:
    """A test list and, in order, those that step in for its missing clips."""

    name: str
    dataset: str  # hdtf or celebvhq
    test: tuple[Entry, ...]
    reserve: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Replacement:
    """A test clip that could not be used, and who steps in."""

    id: str
    reason: str
    by: str | None  # None: the reserve is used up


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of a user's own wild set."""

    id: str
    portrait: Path
    audio: Path
    about: dict[str, str | None]  # by CASE_FIELDS; None where its folder does not say


def digest(*parts: str) -> str:
    """H of the protocol."""
    return hashlib.sha256("|".join((PROTOCOL, *parts)).encode()).hexdigest()


def share(*parts: str) -> float:
    """U of the protocol: a number in [0, 1) that belongs to these words."""
    return int(digest(*parts)[:13], 16) / 16**13


def available_frames(dataset: str, candidate: Candidate) -> int:
    """Frames at 25 fps a window may lie in; HDTF cuts at whole seconds, one of them is margin."""
    if dataset == "hdtf":
        return round(FPS * (candidate.end_s - candidate.start_s)) - FPS
    # times are decimal: 3.2 - 0.2 seconds are 75 frames, not 74.99999
    return math.floor(round(FPS * (candidate.end_s - candidate.start_s), 6))


def window(dataset: str, clip_id: str, available: int) -> tuple[int, int]:
    """First frame and number of frames of the part of a clip that is measured."""
    wanted = round(FPS * (SHORTEST_S + RANGE_S * share(dataset, "length", clip_id)))
    frames = min(available, wanted)
    return math.floor(share(dataset, "offset", clip_id) * (available - frames + 1)), frames


def walk(dataset: str, candidates: Iterable[Candidate]) -> Iterator[Entry]:
    """The clips in the protocol's order, the first of every speaker."""
    seen = set()
    keyed = ((digest(dataset, "order", c.id), c) for c in candidates)
    for key, candidate in sorted(keyed, key=lambda pair: pair[0]):
        available = available_frames(dataset, candidate)
        if candidate.speaker in seen or (dataset == "celebvhq" and available < MIN_FRAMES):
            continue
        seen.add(candidate.speaker)
        first, frames = window(dataset, candidate.id, available)
        yield Entry(candidate.id, candidate.speaker, first, frames, key[:16])


def select(name: str, candidates: Iterable[Candidate]) -> Split:
    """The split of this name of a whole data set: hdtf-50, hdtf-all, celebvhq-50, ..."""
    dataset, size = name.split("-")
    order = tuple(walk(dataset, candidates))
    count = len(order) if size == "all" else int(size)
    return Split(name, dataset, order[:count], order[count : count + RESERVE])


def read_manifest(path: Path, name: str) -> Split:
    """A list of the shape of hdtf_test_v1.json. Raises InputError for another."""
    try:
        data: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        if data["protocol"] != PROTOCOL:
            raise ValueError(f"its protocol is {data['protocol']!r}")
        test, reserve = (
            tuple(Entry(**{k: row[k] for k in Entry.__dataclass_fields__}) for row in data[part])
            for part in ("test", "reserve")
        )
        dataset = str(data["dataset"]).lower().replace("-", "")
        if dataset not in TITLES:
            raise ValueError(f"its dataset is {data['dataset']!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a list of {PROTOCOL}: {error}",
            hint="take one that `moda eval` wrote, or leave the option out",
        ) from None
    return Split(name, dataset, test, reserve)


def load_split(name: str) -> Split:
    """A list that comes with the package; the others follow from the data sets' own files.

    Raises UsageError for one that does not.
    """
    if name not in FROZEN:
        raise UsageError(f"no list of {name} comes with moda", hint=f"one of {', '.join(FROZEN)}")
    return read_manifest(FROZEN[name], name)


def replace_unusable(
    split: Split, reason_against: Callable[[Entry], str | None]
) -> tuple[list[Entry], list[Replacement]]:
    """The entries to measure: unusable ones give way to the reserve's next usable one, in order.

    reason_against(entry) is None for one that can be used; it is asked once for each.
    """
    reserve = iter(split.reserve)
    used, replaced = [], []
    for entry in split.test:
        reason = reason_against(entry)
        if reason is None:
            used.append(entry)
            continue
        stand_in = None
        for other in reserve:
            fault = reason_against(other)
            if fault is None:
                stand_in = other
                used.append(other)
                break
            replaced.append(Replacement(other.id, fault, None))
        replaced.append(Replacement(entry.id, reason, stand_in.id if stand_in else None))
    return used, replaced


def wild_cases(root: Path) -> list[Case]:
    """The cases of ROOT/wild or ROOT, sorted by name: folders with one picture and one sound.

    A case.json beside them says what they are. Raises InputError where there are none.
    """
    folder = root / "wild" if (root / "wild").is_dir() else root
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", hint="check the path")
    cases = []
    for case in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = sorted(case.iterdir())
        pictures = [path for path in files if path.suffix.lower() in PICTURES]
        sounds = [path for path in files if path.suffix.lower() in SOUNDS]
        if len(pictures) == len(sounds) == 1:
            about = _about_case(case / ABOUT_CASE)
            cases.append(Case(case.name, pictures[0], sounds[0], about))
        elif pictures or sounds:
            raise InputError(
                f"the case {case} holds {len(pictures)} pictures and {len(sounds)} sounds",
                hint="a case is a folder with one picture and one sound",
            )
    if not cases:
        raise InputError(
            f"{folder} holds no cases", hint="put each in a folder: CASE/image.png, CASE/audio.wav"
        )
    return cases


def _about_case(path: Path) -> dict[str, str | None]:
    """What a case.json says of its case. Raises InputError for what it cannot say."""
    try:
        found = parse_json(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no JSON object", hint=f"fields: {', '.join(CASE_FIELDS)}")
    for name, value in found.items():
        if name not in CASE_FIELDS:
            hint = f"fields: {', '.join(CASE_FIELDS)}"
            raise InputError(f"{path} has an unknown field {name}", hint=hint)
        known = CASE_FIELDS[name]
        if not isinstance(value, str) or (known and value not in known):
            hint = f"one of {', '.join(known)}" if known else "it is a text"
            raise InputError(f"{path}: {name} cannot be {value!r}", hint=hint)
    return {name: found.get(name) for name in CASE_FIELDS}


def manifest(split: Split, used: list[Entry], replaced: list[Replacement]) -> dict[str, Any]:
    """What a run measured, as data; `read_manifest` takes it back."""
    return {
        "protocol": PROTOCOL,
        "dataset": TITLES[split.dataset],
        "split": split.name,
        "fps": FPS,
        "test": [asdict(entry) for entry in split.test],
        "reserve": [asdict(entry) for entry in split.reserve],
        "used": [entry.id for entry in used],
        "replaced": [asdict(row) for row in replaced],
    }
