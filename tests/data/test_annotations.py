"""Annotation files as published: which clips, whose, from which video, in which split."""

import json
import re
from collections import defaultdict
from pathlib import Path

import pytest

from moda_cli.data.annotations import (
    PIECE_S,
    Box,
    Cut,
    candidates,
    celebv_cuts,
    find_cuts,
    hdtf_cuts,
    pieces,
)
from moda_cli.data.splits import FROZEN, available_frames, digest, load_split, select, share
from moda_cli.data.splits import window as window_of
from moda_cli.errors import InputError, UsageError

DATA = Path(__file__).parents[1] / "data"
HDTF = DATA / "hdtf"
EMOTIONS = ["angry", "contempt", "disgusted", "fear", "happy", "neutral", "sad", "surprised"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_hdtf_is_read_with_all_its_quirks() -> None:
    cuts = {cut.name: cut for cut in hdtf_cuts(HDTF, {})}
    assert len(cuts) == 436
    assert sum(cut.box is not None for cut in cuts.values()) == 421
    assert len({cut.name.rsplit("_", 1)[0] for cut in cuts.values()}) == 369
    lengths = [cut.end_s - cut.start_s for cut in cuts.values()]
    assert (min(lengths), max(lengths)) == (10, 500)
    assert sum(lengths) / 3600 == pytest.approx(17.1, abs=0.05)
    assert not any("Radio24" in name for name in cuts)  # an address without times
    assert cuts["WRA_DianeBlack0_001"].start_s == 5 * 60 + 28  # a line that ends in a blank
    assert cuts["WRA_AdamKinzinger2_001"].box == Box(416, 12, 416 + 498, 12 + 498, 720)
    assert cuts["WDA_AdamSchiff_000"].speaker == "W/AdamSchiff"
    assert cuts["WRA_AdamKinzinger2_000"].speaker == cuts["WRA_AdamKinzinger0_000"].speaker
    assert cuts["RD_Radio10_000"].speaker == "RD/Radio10"


def test_hdtf_videos_are_found_by_any_of_their_names() -> None:
    def find(*stems: str) -> dict[str, Cut]:
        videos = {stem: Path(f"{stem}.mp4") for stem in stems}
        return {cut.name: cut for cut in hdtf_cuts(HDTF, videos) if cut.video}

    assert set(find("WRA_AdamKinzinger2")) == {f"WRA_AdamKinzinger2_00{k}" for k in range(3)}
    assert set(find("AdamKinzinger2")) == set(find("WRA_AdamKinzinger2"))
    # the file with the address of this one begins with a byte-order mark
    assert set(find("RApGxN-O9Qc")) == {"WDA_CarolynMaloney2_000"}
    ready = find("WRA_AdamKinzinger2_001", "AdamKinzinger2")
    cut = ready["WRA_AdamKinzinger2_001"]
    assert (cut.start_s, cut.end_s, cut.box) == (0, 40, None)
    assert ready["WRA_AdamKinzinger2_000"].start_s == 40


def test_the_published_list_follows_from_the_annotation_files() -> None:
    pool = candidates("hdtf", HDTF)
    assert len(pool) == 421
    assert len({candidate.speaker for candidate in pool}) == 270
    split, published = select("hdtf-50", pool), load_split("hdtf-50")
    assert split.test == published.test
    assert split.reserve == published.reserve


def test_the_published_windows_and_the_check_value() -> None:
    name = "WRA_RogerWicker1_000"
    key = digest("hdtf", "order", name)
    assert key == "002cb3a39f95ee4b19e3482158fab30b1c0448e14cce6283af004f8843e20474"
    assert share("hdtf", "length", name) == pytest.approx(0.258559384181, abs=1e-12)
    assert share("hdtf", "offset", name) == pytest.approx(0.416345323684, abs=1e-12)
    by_id = {candidate.id: candidate for candidate in candidates("hdtf", HDTF)}
    assert available_frames("hdtf", by_id[name]) == 5100
    assert window_of("hdtf", name, 5100) == (2073, 120)
    rows = json.loads(FROZEN["hdtf-50"].read_text())
    for row in rows["test"] + rows["reserve"]:
        known = by_id[row["id"]]
        assert (known.start_s, known.end_s) == (row["start_s"], row["end_s"])
        wanted = row["first_frame"], row["frames"]
        assert window_of("hdtf", row["id"], available_frames("hdtf", known)) == wanted


def test_no_speaker_of_the_published_list_is_trained_on(tmp_path: Path) -> None:
    touch(tmp_path, "Any.mp4")
    held = {entry.speaker for entry in load_split("hdtf-50").test}
    counts = {}
    for rule in ("speakers", "train"):
        splits = defaultdict(set)
        boxed = defaultdict(set)
        for cut in find_cuts([tmp_path], "hdtf", HDTF, rule):
            splits[cut.split].add(cut.speaker)
            if cut.box:
                boxed[cut.split].add(re.sub(r"_p\d+$", "", cut.name))
        assert splits["eval"] == held
        assert not splits["train"] & (splits["test"] | held)
        assert not splits["test"] & held
        counts[rule] = {split: len(names) for split, names in boxed.items()}
    assert counts["train"] == {"train": 315, "eval": 106}
    assert counts["speakers"] == {"train": 303, "test": 12, "eval": 106}


def test_celebv_hq(tmp_path: Path) -> None:
    path = DATA / "celebvhq.json"
    touch(tmp_path, "processed/AAAAAAAAAAA_0.mp4", "raw/AAAAAAAAAAA.mp4")
    ready, whole, absent = find_cuts([tmp_path], "celebvhq", path)
    assert ready.video == tmp_path / "processed/AAAAAAAAAAA_0.mp4"
    assert (ready.start_s, ready.end_s) == (0, pytest.approx(4.55))
    assert whole.video == tmp_path / "raw/AAAAAAAAAAA.mp4"
    assert (whole.start_s, whole.end_s) == (100, 102.9)
    assert whole.box is not None
    assert whole.box.holds(1700, 300, 1920, 1080)
    assert not whole.box.holds(900, 300, 1920, 1080)
    assert absent.video is None
    # every speaker of so few is on the list of the protocol; a clip below 75 frames is not
    assert [cut.split for cut in (ready, whole, absent)] == ["eval"] * 3
    assert len(candidates("celebvhq", path)) == 3
    assert {e.id for e in select("celebvhq-50", candidates("celebvhq", path)).test} == {
        "AAAAAAAAAAA_0",
        "_b-CDEFGHIJ_12",
    }


@pytest.mark.parametrize("nested", [False, True])
def test_celebv_text(tmp_path: Path, nested: bool) -> None:
    clips = json.loads((DATA / "celebvtext.json").read_text())
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"clips": clips} if nested else clips))
    first, second = celebv_cuts(path, {"0-AAAAAAAAA": tmp_path / "a.mp4"})
    assert first.name == "0-AAAAAAAAA_0"
    assert first.box is not None
    assert first.box.holds(1000, 500, 1920, 1080)  # pixels
    assert not first.box.holds(800, 500, 1920, 1080)
    assert second.box is not None
    assert second.box.holds(800, 500, 1920, 1080)  # shares


def mead(root: Path, sound: bool = True) -> Path:
    for actor in ("M003", "W009"):
        for emotion in EMOTIONS:
            for level in (1,) if emotion == "neutral" else (1, 2, 3):
                for number in range(1, 31):
                    if number % 7 == 3:
                        continue  # numbers have gaps
                    for view in ("front", "left_60"):
                        place = f"{actor}/video/{view}/{emotion}/level_{level}"
                        touch(root, f"{place}/{number:03d}.mp4")
                    if sound:
                        place = f"{actor}/audio/{emotion}/level_{level}"
                        touch(root, f"{place}/{number:03d}.m4a")
    return root


def test_mead(tmp_path: Path) -> None:
    root = mead(tmp_path / "mead")
    cuts = find_cuts([root], "mead", rule="authors")
    assert len(cuts) == 2 * (7 * 3 + 1) * 26  # one view of the two is near frontal
    tested = defaultdict(list)
    for cut in cuts:
        assert cut.video is not None
        assert cut.sound is not None
        assert cut.sound.is_file()
        actor, _, emotion, level, number = cut.name.rsplit("_", 4)
        if cut.split == "test":
            tested[actor, emotion, level].append(int(number))
    assert len(tested) == 2 * 22
    assert tested["M003", "neutral", "1"] == [19, 20, 21, 22, 23, 25, 26, 27, 28, 29, 30][-10:]
    assert tested["W009", "angry", "3"] == [25, 26, 27, 28, 29, 30]
    by_name = {cut.name: cut for cut in cuts}
    assert by_name["M003_front_disgusted_2_001"].emotion == "disgust"
    splits = defaultdict(set)
    for cut in find_cuts([root], "mead"):
        splits[cut.speaker].add(cut.split)
    assert all(len(found) == 1 for found in splits.values())


def test_mead_as_other_copies_have_it(tmp_path: Path) -> None:
    root = touch(
        tmp_path,
        "W009/W009_video/front/angry_level_3/001.mp4",
        "W009/W009_audio/angry_level_3/001.m4a",
        "M003_video/front/neutral/level_1/007.mp4",
    )
    plain, prefixed = find_cuts([root], "mead")
    assert (plain.name, plain.sound) == ("M003_front_neutral_1_007", None)
    assert prefixed.name == "W009_front_angry_3_001"
    assert prefixed.sound == tmp_path / "W009/W009_audio/angry_level_3/001.m4a"
    with pytest.raises(InputError, match="MEAD"):
        find_cuts([touch(tmp_path / "x", "a.mp4")], "mead")


def test_long_annotated_clips_become_equal_pieces() -> None:
    cut = Cut("a", Path("a.mp4"), "a.mp4", "s", 5.0, 155.0)
    parts = pieces(cut)
    assert [(part.start_s, part.end_s) for part in parts] == [(5, 55), (55, 105), (105, 155)]
    assert [part.name for part in parts] == ["a_p0", "a_p1", "a_p2"]
    short = Cut("b", Path("b.mp4"), "b.mp4", "s", 0.0, PIECE_S)
    assert pieces(short) == [short]


def test_own_videos(tmp_path: Path) -> None:
    root = touch(tmp_path / "v", "ann/1.mp4", "ann/2.MOV", "bob.webm", "notes.txt", "ann/old/1.mkv")
    cuts = find_cuts([root])
    assert {cut.name: cut.speaker for cut in cuts} == {
        "ann_1": "ann",
        "ann_2": "ann",
        "ann_old_1": "ann/old",
        "bob": "bob",
    }
    with pytest.raises(UsageError, match="ann_1"):
        find_cuts([touch(root, "ann_1.mp4")])
    with pytest.raises(InputError, match="no video"):
        find_cuts([touch(tmp_path / "empty", "notes.txt")])


def test_a_speakers_split_depends_on_nothing_else(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"{k}.mp4" for k in range(200)))
    splits = {cut.name: cut.split for cut in find_cuts([root])}
    assert 2 <= sum(split == "test" for split in splits.values()) <= 25
    for name, split in splits.items():
        (cut,) = find_cuts([root / f"{name}.mp4"])
        assert cut.split == split


@pytest.mark.parametrize("text", ["{}x", '{"a": 1}', '{"clips": {"a": {"ytb_id": "b"}}}', "[]"])
def test_a_damaged_list_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "info.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"info\.json"):
        celebv_cuts(path, {})
    with pytest.raises(InputError, match="RD_video_url"):
        hdtf_cuts(tmp_path, {})
