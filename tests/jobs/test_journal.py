"""The journal: what it remembers after a crash, and what it makes of an output that is there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import UsageError
from moda_cli.jobs import journal as journal_module
from moda_cli.jobs.clip_list import Job, Shard
from moda_cli.jobs.journal import Journal, job_inputs, job_key, read_journal, remove_partial
from moda_cli.jobs.places import sum_of

ALL = Shard(0, 1)


def job(output: Path, **options: object) -> Job:
    clip = replace(ClipConfig(Path("a.png"), Path("b.wav"), output), **options)  # type: ignore[arg-type]
    return Job(clip, "line 2")


def test_rows_survive_a_journal_torn_at_any_byte(tmp_path: Path) -> None:
    with Journal(tmp_path, ALL) as journal:
        for k in range(3):
            journal.started(job(tmp_path / f"é{k}.mp4"), f"key{k}")
            journal.write({"state": "done", "output": f"é{k}.mp4", "key": f"key{k}"})
    whole = journal.path.read_bytes()
    assert len(read_journal(journal.path)) == 6
    for cut in range(len(whole)):
        journal.path.write_bytes(whole[:cut])
        kept = whole[: cut + 1].count(b"\n")  # a line without its end is whole too
        with Journal(tmp_path, ALL) as again:
            again.write({"state": "done", "output": "new.mp4", "key": "k"})
        rows = read_journal(journal.path)
        assert len(rows) == kept + 1
        assert rows[-1]["output"] == "new.mp4"


def test_the_last_word_counts_though_the_clock_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter((2000.0, 1000.0, 500.0))
    monkeypatch.setattr(journal_module.time, "time", lambda: next(times))
    with Journal(tmp_path, ALL) as journal:
        journal.started(job(tmp_path / "a.mp4"), "key")
        journal.write({"state": "done", "output": "a.mp4", "key": "key"})
    with Journal(tmp_path, ALL) as journal:
        assert journal.last["a.mp4"]["state"] == "done"
        journal.started(job(tmp_path / "a.mp4"), "other")
    with Journal(tmp_path, ALL) as journal:
        assert journal.last["a.mp4"]["state"] == "started"


def test_what_is_not_a_row_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / ".moda-journal.jsonl"
    row = {"state": "done", "output": "a.mp4", "key": "k", "at": 1.0}
    path.write_bytes(b'\0\0\0\n[1]\n{"state": "done"}\n' + json.dumps(row).encode() + b"\n\xff")
    assert read_journal(path) == [row]


@pytest.mark.parametrize(
    ("state", "same_key", "exists", "size", "verdict"),
    [
        (None, True, False, None, "run"),
        (None, True, True, 9, "conflict"),
        ("started", True, False, None, "run"),
        ("started", True, True, 9, "again"),
        ("started", False, True, 9, "conflict"),
        ("done", True, True, 9, "done"),
        ("done", True, True, 8, "again"),  # cut short by a power loss
        ("done", True, False, None, "run"),
        ("done", False, True, 9, "conflict"),
        ("done", False, False, None, "run"),
        ("failed", True, False, None, "failed"),
        ("failed", False, False, None, "run"),
    ],
)
def test_verdicts(
    tmp_path: Path, state: str, same_key: bool, exists: bool, size: int | None, verdict: str
) -> None:
    one = job(tmp_path / "x" / "a.mp4")
    with Journal(tmp_path, ALL) as journal:
        if state:
            journal.write({"state": state, "output": "x/a.mp4", "key": "k", "bytes": 9})
        assert journal.verdict(one, "k" if same_key else "other", exists, size) == verdict


def test_shards_write_apart_and_read_all(tmp_path: Path) -> None:
    with Journal(tmp_path, Shard(0, 2)) as first, Journal(tmp_path, Shard(1, 2)) as second:
        first.write({"state": "done", "output": "a.mp4", "key": "a"})
        second.write({"state": "done", "output": "b.mp4", "key": "b"})
        assert first.path != second.path
        assert first.report != second.report
    with Journal(tmp_path, ALL) as whole:
        assert set(whole.last) == {"a.mp4", "b.mp4"}
        whole.write({"state": "failed", "output": "a.mp4", "key": "c"})
    with Journal(tmp_path, Shard(0, 2)) as first:
        assert first.last["a.mp4"]["key"] == "c"  # the latest word counts


def test_two_runs_do_not_share_a_journal(tmp_path: Path) -> None:
    with Journal(tmp_path, ALL), pytest.raises(UsageError, match="another run"):
        Journal(tmp_path, ALL)
    with Journal(tmp_path, ALL):
        pass


def test_a_refused_batch_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="taken"), Journal(tmp_path / "out", ALL):
        raise UsageError("taken")
    assert not (tmp_path / "out").exists()


def test_a_key_is_inputs_options_and_model(tmp_path: Path) -> None:
    sums: dict[str, str | None] = {"portrait": "1", "audio": "2"}
    base = job(tmp_path / "a.mp4")
    key = job_key(base, sums, "m")
    others = [
        job_key(base, {**sums, "audio": "3"}, "m"),
        job_key(base, {**sums, "motion": "3"}, "m"),
        job_key(base, sums, "n"),
        job_key(job(tmp_path / "a.mp4", emotion="happy"), sums, "m"),
        job_key(job(tmp_path / "a.mp4", sampler=SamplerConfig(seed=1)), sums, "m"),
        job_key(job(tmp_path / "a.mp4", render=RenderConfig(blink=False)), sums, "m"),
        job_key(job(tmp_path / "a.mp4", plot=tmp_path / "p.png"), sums, "m"),
    ]
    assert len({key, *others}) == len(others) + 1
    elsewhere = replace(base.clip, output=tmp_path / "b.mp4", portrait=Path("/moved/a.png"))
    assert job_key(Job(elsewhere, "line 9"), sums, "m") == key
    assert job_key(job(tmp_path / "a.mp4", overwrite=True), sums, "m") == key


def test_only_an_outputs_own_partial_files_are_removed(tmp_path: Path) -> None:
    names = [".a[1].mp4.0123abcd.part", ".a1.mp4.0123abcd.part", "a[1].mp4", ".a[1].mp4.part"]
    for name in names:
        (tmp_path / name).touch()
    remove_partial(tmp_path / "a[1].mp4")
    assert {path.name for path in tmp_path.iterdir()} == set(names[1:])


def test_the_motion_that_a_timeline_names_is_a_part_of_the_job(tmp_path: Path) -> None:
    """Another nod, another clip: also where neither the timeline nor an option has changed."""
    shot, nod = tmp_path / "shot.csv", tmp_path / "nod.safetensors"
    shot.write_text("at,motion,take\n0.5,nod.safetensors,head\n1.5,clip.mp4,lips\n")
    (tmp_path / "clip.mp4").write_bytes(b"a video")
    keys = []
    for content in (b"up", b"down", b"up"):
        nod.write_bytes(content)
        one = job(tmp_path / "o.mp4", timeline=shot, motion=tmp_path / "clip.mp4", take="lips")
        inputs = job_inputs(one)
        assert {str(nod), str(tmp_path / "clip.mp4")} <= set(inputs.values())
        keys.append(job_key(one, {name: sum_of(place) for name, place in inputs.items()}, "m"))
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
    (tmp_path / "clip.mp4").write_bytes(b"another")
    assert job_key(one, {name: sum_of(place) for name, place in inputs.items()}, "m") != keys[0]
    whole = job(tmp_path / "o.mp4", timeline=shot, motion=tmp_path / "clip.mp4")
    sums = {name: sum_of(place) for name, place in inputs.items()}
    assert job_key(whole, sums, "m") != job_key(one, sums, "m")
