"""Which clips to cut from which videos: a user's own, or a data set's as its authors list them.

HDTF, CelebV-HQ, CelebV-Text and MEAD are read in the form their authors publish; nothing is
downloaded. A clip's speaker is what the data set knows of it: HDTF's names, a YouTube video, an
actor. No speaker is in two splits unless `--split authors` or `train` is asked for.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moda_cli.config import SOUNDS, VIDEOS
from moda_cli.data.splits import Candidate, load_split, select, share
from moda_cli.errors import InputError, UsageError
from moda_cli.files import parse_json

DATASETS = ("hdtf", "celebvhq", "celebvtext", "mead")
RULES = ("speakers", "authors", "clips", "train")
TEST_SHARE = 0.05  # of the speakers: what training is validated on
LAST = "clips"  # a split: the last clips of all are to validate on
LAST_PIECE_S = 15.0  # so that even a minute of one speaker has something to learn and to try
PIECE_S = 60.0  # an annotated clip that lasts longer becomes several of equal length

HDTF_PARTS = ("RD", "WDA", "WRA")
MEAD_VIEWS = ("front", "left_30", "right_30")  # those within reach of the face networks
MEAD_EMOTIONS = {  # the data set's words and ours
    "angry": "anger",
    "contempt": "contempt",
    "disgusted": "disgust",
    "fear": "fear",
    "happy": "happy",
    "neutral": "neutral",
    "sad": "sad",
    "surprised": "surprise",
}
MEAD_HELD = {"neutral": 10}  # last sentences of every intensity that its authors test on
MEAD_HELD_ELSE = 6
# Some copies have the actor's name before `video`, or emotion and level in one folder.
MEAD_PATH = re.compile(
    r"(?P<before>(?:.*/)?(?P<actor>[MW]\d{3})[/_](?:[MW]\d{3}_)?)video"
    r"(?:/(?P<view>front|left_30|left_60|right_30|right_60|top|down))?"
    r"(?P<after>/(?P<emotion>" + "|".join(MEAD_EMOTIONS) + r")[/_](?:level_)?(?P<level>[123])"
    r"/(?P<number>\d{3}))$"
)


@dataclass(frozen=True, slots=True)
class Box:
    """Where in the frame the speaker is."""

    left: float
    top: float
    right: float
    bottom: float
    height: float | None = None  # of the frames whose pixels these are; None: the video's own

    def holds(self, x: float, y: float, width: int, height: int) -> bool:
        """Whether a pixel of a frame of this size is inside. Numbers up to 1 are shares of it."""
        if max(self.right, self.bottom) <= 1:
            x, y = x / width, y / height
        elif self.height:
            x, y = (v * self.height / height for v in (x, y))
        return self.left <= x <= self.right and self.top <= y <= self.bottom


@dataclass(frozen=True, slots=True)
class Cut:
    """A stretch of a video to extract."""

    name: str  # of its feature files, which get a number behind it
    video: Path | None  # None: the user does not have it
    source: str  # the video as the user knows it, without where it lies
    speaker: str
    start_s: float = 0.0
    end_s: float | None = None  # None: to the end
    box: Box | None = None
    sound: Path | None = None  # where it is not in the video
    emotion: str | None = None  # as its authors label it
    # train; test: to validate on; eval: of moda-eval-v1, never trained on; LAST: as it falls
    split: str = "train"
    longest_s: float = PIECE_S  # what lasts longer becomes pieces of equal length


def find_cuts(
    videos: Sequence[Path],
    dataset: str | None = None,
    annotations: Path | None = None,
    rule: str = "speakers",
) -> list[Cut]:
    """Everything to extract, in the order of the names.

    rule: `speakers`, `authors` (MEAD's sentences), `clips` (the last of own recordings) or `train`
    (all but moda-eval-v1's speakers).
    Raises InputError for what cannot be read, UsageError for options that do not fit.
    """
    if rule not in RULES:
        raise UsageError(f"no split is called {rule!r}", hint=f"one of {', '.join(RULES)}")
    if rule == "authors" and dataset != "mead":
        raise UsageError("--split authors is MEAD's", hint="take --split speakers")
    if rule == LAST and dataset is not None:
        hint = "take --split speakers"
        raise UsageError("--split clips is for recordings of one speaker", hint=hint)
    found = list_videos(videos)
    if dataset is None:
        if annotations is not None:
            raise UsageError(
                "--annotations without --dataset", hint=f"one of {', '.join(DATASETS)}"
            )
        cuts = own_cuts(found)
    elif dataset == "mead":
        cuts = mead_cuts(found)
    elif dataset not in DATASETS:
        raise UsageError(f"no data set {dataset!r}", hint=f"one of {', '.join(DATASETS)}")
    elif annotations is None:
        what = "its folder of text files" if dataset == "hdtf" else "its JSON file"
        raise UsageError(f"--dataset {dataset} needs --annotations", hint=f"give {what}")
    else:
        by_stem = {path.stem: path for path, _ in reversed(found)}
        listed = hdtf_cuts if dataset == "hdtf" else celebv_cuts
        cuts = [piece for cut in listed(annotations, by_stem) for piece in pieces(cut)]
    if rule == LAST:
        cuts = [replace(cut, split=LAST, longest_s=LAST_PIECE_S) for cut in cuts]
    elif rule != "authors":
        cuts = assign_splits(cuts, dataset, annotations, rule)
    return sorted(cuts, key=lambda cut: cut.name)


def list_videos(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Files, and all videos in folders, with the path each is known by, sorted by that."""
    found = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in VIDEOS)
            if not inside:
                raise InputError(f"no video in {path}", hint=f"videos end in {' '.join(VIDEOS)}")
            found += [(p, p.relative_to(path)) for p in inside]
        elif path.is_file():
            found.append((path, Path(path.name)))
        else:
            raise InputError(f"there is no file {path}", hint="check the path")
    return sorted(found, key=lambda pair: pair[1].as_posix())


def own_cuts(videos: Sequence[tuple[Path, Path]]) -> list[Cut]:
    """Whole videos; a folder of them is one speaker, a single one has its own.

    Raises UsageError for two that would get one name.
    """
    cuts: dict[str, Cut] = {}
    for path, known in videos:
        name = "_".join(known.with_suffix("").parts)
        if name in cuts:
            raise UsageError(
                f"{path} and {cuts[name].video} would both be called {name}", hint="rename one"
            )
        speaker = known.parent.as_posix() if known.parent.parts else known.stem
        cuts[name] = Cut(name, path, known.as_posix(), speaker)
    return list(cuts.values())


def pieces(cut: Cut) -> list[Cut]:
    """The clip, or the parts of equal length of one that is too long."""
    if cut.end_s is None or cut.end_s - cut.start_s <= PIECE_S:
        return [cut]
    count = math.ceil((cut.end_s - cut.start_s) / PIECE_S)
    edges = [
        round(cut.start_s + k * (cut.end_s - cut.start_s) / count, 2) for k in range(count + 1)
    ]
    return [
        replace(cut, name=f"{cut.name}_p{k}", start_s=edges[k], end_s=edges[k + 1])
        for k in range(count)
    ]


def assign_splits(
    cuts: Sequence[Cut], dataset: str | None, annotations: Path | None, rule: str
) -> list[Cut]:
    """The cuts with their splits, a speaker's all the same whatever else is extracted."""
    held: set[str] = set()
    if dataset == "hdtf":
        held = {entry.speaker for entry in load_split("hdtf-50").test}
    elif dataset == "celebvhq" and annotations is not None:
        pool = candidates("celebvhq", annotations)
        held = {entry.speaker for entry in select("celebvhq-50", pool).test}
    # the two CelebV sets may show one YouTube video: it is in the same split of both
    space = dataset.removesuffix("hq").removesuffix("text") if dataset else "own"

    def split(speaker: str) -> str:
        if speaker in held:
            return "eval"
        tested = rule == "speakers" and share("split", space, speaker) < TEST_SHARE
        return "test" if tested else "train"

    return [replace(cut, split=split(cut.speaker)) for cut in cuts]


def candidates(dataset: str, annotations: Path) -> list[Candidate]:
    """The pool of moda-eval-v1: HDTF's clips that have a box, or all of CelebV-HQ's."""
    cuts = hdtf_cuts(annotations, {}) if dataset == "hdtf" else celebv_cuts(annotations, {})
    return [
        Candidate(cut.name, cut.speaker, cut.start_s, cut.end_s)
        for cut in cuts
        if cut.end_s is not None and (cut.box is not None or dataset != "hdtf")
    ]


def hdtf_cuts(folder: Path, videos: dict[str, Path]) -> list[Cut]:
    """The clips of HDTF's folder of text files, found in videos by their names without suffix.

    A video is a clip that was cut out, `WRA_Name_000`, or one as downloaded: `WRA_Name`, `Name` or
    its YouTube id.
    """
    cuts = []
    for part in HDTF_PARTS:
        urls = dict(_rows(folder / f"{part}_video_url.txt"))
        heights = dict(_rows(folder / f"{part}_resolution.txt"))
        crops = folder / f"{part}_crop_wh.txt"
        boxes = dict(_rows(crops))
        path = folder / f"{part}_annotion_time.txt"
        for name, times in _rows(path):
            (youtube,) = _youtube(urls.get(name, [])) or [""]
            whole = next((k for k in (f"{part}_{name}", name, youtube) if k in videos), None)
            speaker = f"RD/{name}" if part == "RD" else f"W/{name.rstrip('0123456789')}"
            for number, text in enumerate(times):
                start, end = _times(text, path)
                key = f"{part}_{name}_{number:03d}"
                if key in videos:
                    cut = Cut(key, videos[key], videos[key].name, speaker, 0.0, end - start)
                else:
                    box = _hdtf_box(boxes.get(f"{name}_{number}"), heights.get(name), crops)
                    video = videos[whole] if whole else None
                    source = video.name if video else (whole or name)
                    cut = Cut(key, video, source, speaker, start, end, box)
                cuts.append(cut)
    return cuts


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Name, with or without `.mp4` there, and the words behind it. Raises InputError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read {path}: {error}", hint="give the folder HDTF_dataset of HDTF's repository"
        ) from None
    for line in lines:
        if words := line.split():
            yield words[0].removesuffix(".mp4"), words[1:]


def _youtube(words: Sequence[str]) -> list[str]:
    return re.findall(r"(?:v=|youtu\.be/)([\w-]{11})", " ".join(words))[:1]


def _times(text: str, path: Path) -> tuple[float, float]:
    """Seconds of `mm:ss-mm:ss`."""
    try:
        start, end = (
            sum(60.0**k * int(part) for k, part in enumerate(reversed(moment.split(":"))))
            for moment in text.split("-")
        )
        if not start < end:
            raise ValueError
    except ValueError:
        raise InputError(f"{path}: {text!r} is not mm:ss-mm:ss") from None
    return start, end


def _hdtf_box(words: Sequence[str] | None, height: Sequence[str] | None, path: Path) -> Box | None:
    """The box of the words behind a clip's name in `path`. Raises InputError."""
    if not words:
        return None
    try:
        x, width, y, high = map(float, words)
        return Box(x, y, x + width, y + high, float(height[0]) if height else None)
    except ValueError:
        raise InputError(f"{path}: {' '.join(words)!r} is not x, width, y, height") from None


def celebv_cuts(path: Path, videos: dict[str, Path]) -> list[Cut]:
    """The clips of CelebV-HQ's or CelebV-Text's JSON file.

    A video is a clip that was cut out, `{youtube id}_{n}`, or the whole one, `{youtube id}`.
    """
    try:
        data: dict[str, Any] = parse_json(path.read_text(encoding="utf-8-sig"))
        cuts = [_celebv_cut(key, row, videos) for key, row in data.get("clips", data).items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a list of CelebV clips: {error!r}",
            hint="give celebvhq_info.json or celebvtext_info.json as published",
        ) from None
    return cuts


def _celebv_cut(key: str, row: dict[str, Any], videos: dict[str, Path]) -> Cut:
    start, end = (float(row["duration"][name]) for name in ("start_sec", "end_sec"))
    sides = {name: float(row["bbox"][name]) for name in ("left", "top", "right", "bottom")}
    speaker = row["ytb_id"]
    if key in videos:
        return Cut(key, videos[key], videos[key].name, speaker, 0.0, end - start)
    video = videos.get(speaker)
    return Cut(key, video, video.name if video else speaker, speaker, start, end, Box(**sides))


def mead_cuts(videos: Iterable[tuple[Path, Path]]) -> list[Cut]:
    """The sentences of MEAD as it unpacks, near-frontal views, with its authors' splits.

    Their test part are, of an actor's emotion and intensity, the last sentences.
    Raises InputError where there are none.
    """
    found = []
    for path, known in videos:
        shown = MEAD_PATH.match(path.with_suffix("").as_posix())
        if shown and (shown["view"] or "front") in MEAD_VIEWS:
            found.append((path, known, shown))
    if not found:
        raise InputError(
            "no video lies like MEAD's",
            hint="they are M003/video/front/angry/level_1/001.mp4 and the like",
        )
    numbers = defaultdict(set)
    for _, _, shown in found:
        numbers[shown["actor"], shown["emotion"], shown["level"]].add(shown["number"])
    cuts = []
    for path, known, shown in found:
        actor, emotion, level, number = shown.group("actor", "emotion", "level", "number")
        kept = MEAD_HELD.get(emotion, MEAD_HELD_ELSE)
        is_test = number in sorted(numbers[actor, emotion, level])[-kept:]
        base = f"{shown['before']}audio{shown['after']}"
        sounds = (Path(base + suffix) for suffix in SOUNDS)
        view = shown["view"] or "front"
        cuts.append(
            Cut(
                name=f"{actor}_{view}_{emotion}_{level}_{number}",
                video=path,
                source=known.as_posix(),
                speaker=actor,
                sound=next((sound for sound in sounds if sound.is_file()), None),
                emotion=MEAD_EMOTIONS[emotion],
                split="test" if is_test else "train",
            )
        )
    return cuts
