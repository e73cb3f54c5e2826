"""Which generated clip is compared with which real one, and what cannot be compared."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from moda_cli.config import PICTURES, SPLITS, VIDEOS
from moda_cli.data import annotations, splits
from moda_cli.data.splits import Entry, Split
from moda_cli.errors import InputError, UsageError
from moda_cli.evaluate.cache import Cache, content_key
from moda_cli.evaluate.prepared import WHOLE, ClipWindow, PreparedClip, open_reference
from moda_cli.evaluate.protocol import Protocol
from moda_cli.face.search import find_faces
from moda_cli.files import no_file, parse_json, sha256_of
from moda_cli.media.cuts import CutDetector

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a clip took to make, and how long it is, in seconds."""

    duration: float
    seconds: float | None  # to the last frame; None: only the time with encoding is known
    encode_seconds: float  # to the finished file
    stages: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """A generated clip and what it is compared with."""

    id: str
    generated: Path
    reference: Path | None = None
    window: ClipWindow = WHOLE
    portrait: Path | None = None  # None: the reference's first frame
    timing: Timing | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is not in the means, and why. Without a metric it is in none."""

    id: str
    reason: str
    metric: str | None = None
    side: str = "generated"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What an evaluation goes through."""

    pairs: list[Pair]
    left_out: list[LeftOut] = field(default_factory=list)
    dataset: str | None = None  # whose published rows belong beside the result
    split: str | None = None
    manifest: dict[str, Any] | None = None
    unused: int = 0  # real clips that nothing was generated for
    notes: list[str] = field(default_factory=list)


def videos(folder: Path) -> dict[str, Path]:
    """The video files of a folder, or one video, by stem.

    Raises InputError where there are none, or two of one stem.
    """
    if folder.is_file() and folder.suffix.lower() in VIDEOS:
        return {folder.stem: folder}
    if not folder.is_dir():
        named = no_file(folder)
        hint = f"videos end in {' '.join(VIDEOS)}" if folder.is_file() else named.hint
        raise InputError(f"there is no video or folder {folder}", hint=hint)
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEOS and not path.name.startswith("."):
            if path.stem in found:
                raise InputError(
                    f"{found[path.stem]} and {path} are both called {path.stem}",
                    hint="clips are matched by their names without suffix: remove one",
                )
            found[path.stem] = path
    if not found:
        raise InputError(f"{folder} holds no videos", hint=f"clips end in {' '.join(VIDEOS)}")
    return found


def passed_over(*folders: Path) -> list[str]:
    """Of each folder what is not taken for a clip, by the files' endings."""
    notes = []
    for folder in (place for place in folders if place.is_dir()):
        others = Counter(
            path.suffix.lower() or "no ending"
            for path in folder.iterdir()
            if path.suffix.lower() not in VIDEOS and path.is_file() and path.name[0] != "."
        )
        if others:
            found = ", ".join(f"{count} {ending}" for ending, count in sorted(others.items()))
            notes.append(f"{folder}: passed over as no clips: {found}")
    return notes


def from_folders(generated: Path, reference: Path | None) -> Inputs:
    """Two folders matched by stem; without a real one what needs none is measured."""
    made = videos(generated)
    if reference is None:
        pairs = [Pair(stem, path) for stem, path in made.items()]
        return Inputs(pairs, notes=passed_over(generated))
    real = videos(reference)
    if generated.is_file() and reference.is_file():  # named together, whatever they are called
        real = dict(zip(made, real.values(), strict=True))
    pairs = [Pair(stem, path, real[stem]) for stem, path in made.items() if stem in real]
    left_out = [
        LeftOut(stem, f"{reference} holds no clip called {stem}")
        for stem in made
        if stem not in real
    ]
    if not pairs:
        raise InputError(
            f"no clip of {generated} has a namesake in {reference}",
            hint="give them the same names, or leave --reference out",
        )
    unused = len(set(real) - set(made))
    return Inputs(pairs, left_out, unused=unused, notes=passed_over(generated, reference))


NO_ROW = (ValueError, LookupError, TypeError, ArithmeticError)


def from_report(report: Path, reference: Path | None) -> Inputs:
    """The clips of a batch by its report.jsonl; real ones are matched by the clips' stems."""
    real = videos(reference) if reference else {}
    pairs, left_out = [], []
    taken: dict[str, Path] = {}
    for number, line in enumerate(_lines(report), start=1):
        try:
            row = parse_json(line)
            output = _beside(report, row["output"])
            portrait = _beside(report, row["portrait"]) if row.get("portrait") else None
            timing = _timing(row)
            is_there = output.is_file()
        except (OSError, AttributeError, *NO_ROW) as error:
            raise InputError(
                f"{report}, line {number} is no clip of a batch: {error!r}",
                hint="give the report.jsonl that `moda generate` wrote",
            ) from None
        stem = output.stem
        if row.get("error"):
            left_out.append(LeftOut(stem, f"it was not made: {row['error']}"))
        elif stem in taken:
            left_out.append(LeftOut(str(output), f"{taken[stem]} is called {stem}, too"))
        elif not is_there:
            left_out.append(LeftOut(stem, f"there is no file {output}"))
        elif reference and stem not in real:
            left_out.append(LeftOut(stem, f"{reference} holds no clip called {stem}"))
        else:
            still = portrait if portrait and portrait.suffix.lower() in PICTURES else None
            taken[stem] = output
            pairs.append(Pair(stem, output, real.get(stem), portrait=still, timing=timing))
    if not pairs:
        raise InputError(f"{report} names no clip that is there", hint="check its `output` paths")
    return Inputs(pairs, left_out, unused=len(set(real) - {pair.id for pair in pairs}))


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _beside(report: Path, name: str) -> Path:
    """A path beside its report, as the batch wrote it, or else from here."""
    beside, path = report.parent / name, Path(name)  # an absolute one stays as it is
    return path if path.exists() and not beside.exists() else beside


def _timing(row: dict[str, Any]) -> Timing | None:
    if not row.get("seconds") or not row.get("frames"):
        return None
    return Timing(row["frames"] / row.get("fps", 25), None, float(row["seconds"]))


def find_clip(root: Path, split: Split, clip_id: str) -> Path | None:
    """A clip in ROOT, ROOT/clips or ROOT/hdtf/clips."""
    folders = (root, root / "clips", root / split.dataset / "clips")
    for folder in folders:
        for suffix in VIDEOS:
            if (path := folder / f"{clip_id}{suffix}").is_file():
                return path
    return None


def usable_reference(
    path: Path | None, entry: Entry, protocol: Protocol, cache: Cache
) -> tuple[PreparedClip | None, str]:
    """A split's real clip, ready to be compared, or why it cannot be used."""
    if path is None:
        return None, "there is no such clip"
    try:
        clip = open_reference(path, ClipWindow(entry.first_frame, entry.frames), protocol, cache)
        clip.wave()
        cache.keep(content_key(usable=clip.key), lambda: _checked(clip))
    except InputError as error:
        return None, str(error)
    return clip, ""


def _checked(clip: PreparedClip) -> dict[str, Any]:
    is_cut = CutDetector()
    if any(is_cut(frame) for frame in clip):
        raise InputError("there is a cut inside the window")
    found = find_faces(next(islice(clip, 1)), quick=True)
    if not found.faces:
        raise InputError(f"the reference picture: {found.why}")
    return {}


def split_references(
    split: Split, root: Path, protocol: Protocol, cache: Cache
) -> tuple[list[Entry], dict[str, Any]]:
    """The entries to measure after replacements, and the manifest that says so."""
    media: dict[str, str] = {}

    def reason_against(entry: Entry) -> str | None:
        path = find_clip(root, split, entry.id)
        clip, reason = usable_reference(path, entry, protocol, cache)
        if clip is not None and path is not None:
            media[entry.id] = sha256_of(path)
        return reason if clip is None else None

    used, replaced = splits.replace_unusable(split, reason_against)
    if not used:
        raise InputError(
            f"{root} holds no usable clip of {split.name}: {replaced[0].id}: {replaced[0].reason}",
            hint=f"name its clips ROOT/clips/ID.mp4, as in {split.test[0].id}.mp4",
        )
    return used, {**splits.manifest(split, used, replaced), "media_sha256": media}


def from_split(
    split: Split, generated: Path, root: Path, protocol: Protocol, cache: Cache
) -> Inputs:
    """A split's windows of the clips in ROOT, and the generated clips of these names."""
    used, manifest = split_references(split, root, protocol, cache)
    made = videos(generated)
    pairs, left_out = [], []
    for entry in used:
        window = ClipWindow(entry.first_frame, entry.frames)
        if entry.id in made:
            path = find_clip(root, split, entry.id)
            pairs.append(Pair(entry.id, made[entry.id], path, window))
        else:
            left_out.append(LeftOut(entry.id, f"{generated} holds no clip called {entry.id}"))
    for row in manifest["replaced"]:
        by = f"replaced by {row['by']}" if row["by"] else "not replaced"
        left_out.append(LeftOut(row["id"], f"{row['reason']}; {by}", side="reference"))
    if not pairs:
        raise InputError(f"{generated} holds no clip of {split.name}", hint="pass --generate")
    notes = passed_over(generated)
    return Inputs(pairs, left_out, split.dataset, split.name, manifest, notes=notes)


def from_wild(cases: Sequence[splits.Case], generated: Path) -> Inputs:
    """Generated clips named like a user's own cases."""
    made = videos(generated)
    pairs = [Pair(c.id, made[c.id], portrait=c.portrait) for c in cases if c.id in made]
    left_out = [
        LeftOut(c.id, f"{generated} holds no clip called {c.id}") for c in cases if c.id not in made
    ]
    if not pairs:
        raise InputError(f"{generated} holds none of the cases", hint="pass --generate")
    rows = [
        {"id": c.id, "portrait": sha256_of(c.portrait), "audio": sha256_of(c.audio), **c.about}
        for c in cases
    ]
    manifest = {"protocol": splits.PROTOCOL, "dataset": "wild", "split": "wild", "cases": rows}
    notes = passed_over(generated)
    return Inputs(pairs, left_out, "wild", "wild", manifest, notes=notes)


def resolve_split(name: str, listed: Path | None) -> Split:
    """A split by its name; all but hdtf-50 follow from a data set's annotation files.

    listed: HDTF's folder of text files, celebvhq_info.json, or a manifest that a run wrote.
    """
    if name not in SPLITS or name == "wild":
        raise UsageError(f"no split is called {name!r}", hint=f"one of {', '.join(SPLITS)}")
    if listed is None and name in splits.FROZEN:
        return splits.load_split(name)
    if listed is None:
        what = "HDTF's annotation folder" if name.startswith("hdtf") else "celebvhq_info.json"
        raise UsageError(
            f"the split {name} follows from {what}, which was not given",
            hint="download it from the data set's page and give it with --annotations",
        )
    if _is_manifest(listed):
        return splits.read_manifest(listed, name)
    return splits.select(name, annotations.candidates(name.split("-")[0], listed))


def _is_manifest(path: Path) -> bool:
    """Whether a file is a list like hdtf_test_v1.json, which names its protocol first."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b'"protocol"' in file.read(100)


def check_folders(generated: Path, reference: Path | None, *, made: bool = True) -> None:
    """Refuse mistyped paths before anything is written. Raises InputError.

    made: False where the clips of `generated` are yet to be made.
    """
    if made and generated.suffix == ".jsonl":
        _lines(generated)
    elif made:
        videos(generated)
    if reference is not None and not reference.is_dir():
        videos(reference)


def gather(
    generated: Path,
    reference: Path | None,
    split: str | None,
    listed: Path | None,
    protocol: Protocol,
    cache: Cache,
) -> Inputs:
    """The inputs that the command line means. Raises UsageError or InputError."""
    if split is not None and reference is None:
        raise UsageError(f"--split {split} needs --reference", hint="the root of the data set")
    if split == "wild" and reference:
        return from_wild(splits.wild_cases(reference), generated)
    if split is not None and reference:
        chosen = resolve_split(split, listed)
        return from_split(chosen, generated, reference, protocol, cache)
    if generated.suffix == ".jsonl":
        return from_report(generated, reference)
    return from_folders(generated, reference)


def as_row(left_out: LeftOut) -> dict[str, str | None]:
    return asdict(left_out)
