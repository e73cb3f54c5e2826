"""moda-eval-v1: the published HDTF list follows from its rules, and windows are cut as it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_bench import install, tiny_weights, write_clip
from moda_cli.config import SPLITS
from moda_cli.data.splits import (
    Candidate,
    Entry,
    Split,
    available_frames,
    digest,
    load_split,
    manifest,
    read_manifest,
    replace_unusable,
    select,
    share,
    walk,
    wild_cases,
    window,
)
from moda_cli.errors import InputError, UsageError
from moda_cli.evaluate.cache import Cache
from moda_cli.evaluate.inputs import check_folders, gather, resolve_split, split_references
from moda_cli.evaluate.prepared import ClipWindow, open_reference
from moda_cli.evaluate.protocol import Protocol
from moda_cli.media import read_audio, read_video, write_video

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
LIST = Path(__file__).parents[2] / "src/moda_cli/assets/hdtf_test_v1.json"


def rows() -> list[dict[str, Any]]:
    data = json.loads(LIST.read_text())
    return [*data["test"], *data["reserve"]]


def test_the_hashes_are_the_published_ones() -> None:
    name = "WRA_RogerWicker1_000"
    assert digest("hdtf", "order", name) == (
        "002cb3a39f95ee4b19e3482158fab30b1c0448e14cce6283af004f8843e20474"
    )
    assert share("hdtf", "length", name) == pytest.approx(0.258559384181, abs=1e-12)
    assert share("hdtf", "offset", name) == pytest.approx(0.416345323684, abs=1e-12)
    assert available_frames("hdtf", Candidate(name, "W/RogerWicker", 5, 210)) == 5100
    assert window("hdtf", name, 5100) == (2073, 120)


def test_the_list_that_ships_follows_from_its_clips() -> None:
    candidates = [Candidate(r["id"], r["speaker"], r["start_s"], r["end_s"]) for r in rows()]
    split = load_split("hdtf-50")
    assert select("hdtf-50", reversed(candidates)) == split
    assert (len(split.test), len(split.reserve)) == (50, 30)
    assert sum(entry.frames for entry in split.test) == 7914
    assert len({entry.speaker for entry in (*split.test, *split.reserve)}) == 80
    assert [e.id for e in split.test[:3]] == [
        "WRA_RogerWicker1_000", "WRA_AustinScott2_000", "RD_Radio12_000",
    ]  # fmt: skip
    everything = select("hdtf-all", candidates)
    assert (len(everything.test), len(everything.reserve)) == (80, 0)


def test_a_speaker_counts_once_and_short_celebrities_do_not() -> None:
    clips = [Candidate(f"v{k}_{n}", f"v{k}", 0, 10) for k in range(9) for n in range(3)]
    accepted = list(walk("celebvhq", clips))
    assert sorted(e.speaker for e in accepted) == [f"v{k}" for k in range(9)]
    firsts = {}
    for clip in sorted(clips, key=lambda c: digest("celebvhq", "order", c.id)):
        firsts.setdefault(clip.speaker, clip.id)
    assert [e.id for e in accepted] == list(firsts.values())
    assert available_frames("celebvhq", Candidate("a", "a", 0.2, 3.2)) == 75
    short = [Candidate("a_0", "a", 0, 2.96), Candidate("b_0", "b", 0.2, 3.2)]
    assert [e.id for e in walk("celebvhq", short)] == ["b_0"]


@given(available=st.integers(75, 20_000), name=st.text(max_size=12))
def test_windows_lie_inside_their_clips(available: int, name: str) -> None:
    first, frames = window("hdtf", name, available)
    assert 75 <= frames <= min(250, available)
    assert 0 <= first <= available - frames


def entry(name: str) -> Entry:
    return Entry(name, f"W/{name}", 0, 75, "")


def test_missing_clips_give_way_to_the_reserve_in_order() -> None:
    split = Split("hdtf-50", "hdtf", tuple(map(entry, "abcd")), tuple(map(entry, "rst")))
    faults = {"b": "no sound", "r": "not there", "d": "a cut"}
    used, replaced = replace_unusable(split, lambda e: faults.get(e.id))
    assert [e.id for e in used] == ["a", "s", "c", "t"]
    assert [(r.id, r.by) for r in replaced] == [("r", None), ("b", "s"), ("d", "t")]
    faults |= {"s": "a cut", "t": "a cut"}
    used, replaced = replace_unusable(split, lambda e: faults.get(e.id))
    assert [e.id for e in used] == ["a", "c"]
    assert {r.id: r.by for r in replaced}["d"] is None
    data = manifest(split, used, replaced)
    assert data["used"] == ["a", "c"]
    assert {row["id"]: row["reason"] for row in data["replaced"]} == faults


def test_a_manifest_is_a_list_again(tmp_path: Path) -> None:
    split = load_split("hdtf-50")
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(manifest(split, list(split.test), [])))
    assert read_manifest(path, "hdtf-50") == split
    assert resolve_split("hdtf-50", path) == split
    path.write_text('{"protocol": "another"}')
    with pytest.raises(InputError, match="another"):
        read_manifest(path, "hdtf-50")


def test_splits_that_need_annotations_say_so() -> None:
    for name in set(SPLITS) - {"hdtf-50", "wild"}:
        with pytest.raises(UsageError) as caught:
            resolve_split(name, None)
        assert "--annotations" in caught.value.hint
    with pytest.raises(UsageError, match="hdtf-51"):
        resolve_split("hdtf-51", None)


def test_celebvhq_follows_from_its_json(tmp_path: Path) -> None:
    box = {"top": 0.1, "bottom": 0.9, "left": 0.1, "right": 0.9}
    clips = {
        f"{name}_{k}": {
            "ytb_id": name, "duration": {"start_sec": 1.0, "end_sec": 9.0}, "bbox": box,
        }
        for name in ("x1", "y2", "z3") for k in range(2)
    }  # fmt: skip
    path = tmp_path / "celebvhq_info.json"
    path.write_text(json.dumps({"clips": clips}))
    split = resolve_split("celebvhq-50", path)
    assert {e.speaker for e in split.test} == {"x1", "y2", "z3"}
    assert all(e.frames <= 200 for e in split.test)


def test_windows_are_cut_to_the_frame_with_their_sound(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", frames=60, seed=1)
    cache, plain = Cache(tmp_path / "cache"), Protocol(encode_reference=False)
    whole, wave = list(read_video(path)), read_audio(path)
    clip = open_reference(path, ClipWindow(23, 20), plain, cache)
    frames = list(clip)
    assert len(frames) == 20
    assert frames[0].shape == (512, 512, 3)
    for frame, original in zip(frames, whole[23:43], strict=True):  # every frame differs
        # the clip's blocks are enlarged; its corners stay what they are
        assert np.abs(frame[::511, ::511].astype(int) - original[::95, ::95]).max() < 40
    np.testing.assert_array_equal(clip.wave(), wave[23 * 640 : 43 * 640])
    encoded = open_reference(path, ClipWindow(23, 20), Protocol(), cache)
    assert encoded.count(cache) == 20
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(encoded, frames, strict=True)]
    assert max(apart) < 6
    assert len(encoded.wave()) == 20 * 640
    with pytest.raises(InputError, match="ends 3 frames before"):
        open_reference(path, ClipWindow(43, 20), plain, cache)


@pytest.mark.parametrize("fps", [24, 29.97, 30])
def test_a_window_is_a_part_of_the_whole_clip_at_25_fps(tmp_path: Path, fps: float) -> None:
    """Every picture of a grey ramp is known by its level: a cut by seeking is off by one."""
    path = tmp_path / "ramp.mp4"
    ramp = (np.full((64, 64, 3), 20 + 2 * k, np.uint8) for k in range(90))
    write_video(ramp, path, fps, crf=3)
    whole = [frame.mean() for frame in read_video(path)]
    cache, plain = Cache(tmp_path / "cache"), Protocol(encode_reference=False)
    for first in (7, 20, 35):
        window = open_reference(path, ClipWindow(first, 30), plain, cache)
        assert [frame.mean() for frame in window] == pytest.approx(whole[first:][:30], abs=0.5)


def test_wild_cases_are_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, tmp_path / "moda", tiny_weights(tmp_path / "weights"))
    for case in ("b", "a"):
        (tmp_path / "root/wild" / case).mkdir(parents=True)
        (tmp_path / "root/wild" / case / "image.png").write_bytes(case.encode())
        (tmp_path / "root/wild" / case / "audio.wav").write_bytes(case.encode())
    about = tmp_path / "root/wild/b/case.json"
    about.write_text('{"category": "dynamic scene", "audio_licence": "CC BY 4.0"}')
    assert [case.id for case in wild_cases(tmp_path / "root")] == ["a", "b"]
    write_clip(tmp_path / "made" / "a.mp4", frames=4)
    cache = Cache(tmp_path / "cache")
    inputs = gather(tmp_path / "made", tmp_path / "root", "wild", None, Protocol(), cache)
    assert [pair.id for pair in inputs.pairs] == ["a"]
    assert inputs.pairs[0].portrait == tmp_path / "root/wild/a/image.png"
    assert [row.id for row in inputs.left_out] == ["b"]
    assert inputs.manifest is not None
    first, second = inputs.manifest["cases"]
    assert len(second["audio"]) == 64
    assert (second["category"], second["audio_licence"]) == ("dynamic scene", "CC BY 4.0")
    assert (first["category"], second["portrait_source"]) == (None, None)
    for wrong, fault in {
        '{"category": "dog"}': "cannot be 'dog'", '{"licence": "MIT"}': "unknown field licence",
        "[1]": "no JSON object", "{": "cannot read",
    }.items():  # fmt: skip
        about.write_text(wrong)
        with pytest.raises(InputError, match=fault):
            wild_cases(tmp_path / "root")
    about.unlink()
    (tmp_path / "root/wild/a/other.png").touch()
    with pytest.raises(InputError, match="2 pictures"):
        wild_cases(tmp_path / "root")


def test_mistyped_folders_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    write_clip(tmp_path / "made" / "a.mp4", frames=2)
    check_folders(tmp_path / "made", tmp_path)
    check_folders(tmp_path / "new", tmp_path, made=False)
    nowhere = tmp_path / "nowhere"
    for generated, reference, made in (
        (nowhere, None, True), (nowhere / "report.jsonl", None, True),
        (tmp_path / "made", nowhere, True), (tmp_path / "new", nowhere, False),
    ):  # fmt: skip
        with pytest.raises(InputError, match="nowhere"):
            check_folders(generated, reference, made=made)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_real_clips_are_checked_before_they_count(tmp_path: Path) -> None:
    """Of six clips only the last has sound, length and a single shot, but no face."""
    root = tmp_path / "root"
    write_clip(root / "clips" / "mute.mp4", frames=20, sound=False)
    write_clip(root / "clips" / "short.mp4", frames=12)
    write_clip(root / "clips" / "cut.mp4", frames=24, dark=range(17, 24))
    write_clip(root / "clips" / "faceless.mp4", frames=20, dark=range(20))
    names = ("mute", "short", "cut", "faceless", "gone")
    test = tuple(Entry(name, name, 0, 20, "") for name in names)
    protocol, cache = Protocol(encode_reference=False), Cache(tmp_path / "cache")
    with pytest.raises(InputError, match="no usable clip"):
        split_references(Split("hdtf-50", "hdtf", test, ()), root, protocol, cache)
    from moda_cli.evaluate.inputs import find_clip, usable_reference

    reasons = {}
    for row in test:
        path = find_clip(root, Split("hdtf-50", "hdtf", test, ()), row.id)
        _, reasons[row.id] = usable_reference(path, row, protocol, cache)
    assert "no sound" in reasons["mute"]
    assert "ends 8 frames before" in reasons["short"]
    assert "a cut inside" in reasons["cut"]
    assert "no face found" in reasons["faceless"]
    assert "no such clip" in reasons["gone"]
