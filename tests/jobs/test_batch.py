"""Many clips: what is made, what is refused, what survives a crash, and what a second run does."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import soundfile
import torch
from typer.testing import CliRunner, Result

from moda_cli.choice import choose
from moda_cli.cli import app
from moda_cli.config import ClipConfig, RenderConfig
from moda_cli.device import several_devices
from moda_cli.errors import DeviceError, InputError, UsageError
from moda_cli.evaluate.inputs import from_report
from moda_cli.jobs import cluster, processes
from moda_cli.jobs.batch import Rules, Summary, run
from moda_cli.jobs.clip_list import Job, Shard, jobs_from_file
from moda_cli.jobs.clips import ClipMaker
from moda_cli.jobs.processes import Event
from moda_cli.media import read_audio, read_video
from moda_cli.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[2] / "examples"
PORTRAIT = EXAMPLES / "portrait.png"
BASE = ClipConfig(Path(), Path(), Path(), render=RenderConfig(size=64))
FRAMES = 5  # 0.2 s
FAULTS = {  # portrait, audio -> what its reason has to say
    ("face.png", "absent.wav"): "absent.wav",
    ("face.png", "text.wav"): "text.wav",
    ("face.png", "empty.wav"): "empty",
    ("text.png", "0.wav"): "text.png",
    ("blank.png", "0.wav"): "no face found",
}


def moda(*args: object) -> Result:
    return CliRunner().invoke(app, ["generate", *map(str, args)])


def write_inputs(folder: Path, sounds: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    wave = read_audio(EXAMPLES / "speech.wav")
    for k in range(sounds):
        start = 16_000 + 500 * k
        soundfile.write(folder / f"{k}.wav", wave[start : start + FRAMES * 640], 16_000)
    (folder / "face.png").write_bytes(PORTRAIT.read_bytes())
    (folder / "text.png").write_text("no picture")
    (folder / "text.wav").write_text("no sound")
    (folder / "empty.wav").write_bytes(b"")
    cv2.imwrite(str(folder / "blank.png"), np.full((300, 300, 3), 200, np.uint8))


def write_jobs(path: Path, good: int, bad: int) -> list[tuple[str, str]]:
    """A list of `good` jobs with `bad` ones spread among them; their portraits and sounds."""
    pairs = [("face.png", f"{k}.wav") for k in range(good)]
    for k in range(bad):
        pairs.insert(k * (good + bad) // bad, list(FAULTS)[k % len(FAULTS)])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["portrait", "audio", "output", "size"])
        for portrait, audio in pairs:
            writer.writerow([portrait, audio, "{index:03d}_{portrait}_{audio}.mp4", 64])
    return pairs


class Watched:
    """A view that remembers."""

    def __init__(self) -> None:
        self.plan = (0, 0, 0)
        self.events: list[tuple[str, str]] = []

    def planned(self, todo: int, skipped: int, failed: int) -> None:
        self.plan = (todo, skipped, failed)

    def happened(self, job: Job, event: Event) -> None:
        self.events.append((event.kind, Path(job.output).name))

    def made(self) -> list[str]:
        return [name for kind, name in self.events if kind == "done"]


@cache
def maker() -> processes.Work:
    return ClipMaker("mini", "rig", "float32")("cpu", 0)


def here(tasks: Sequence[Job]) -> Generator[Event]:
    """The work of the processes, done in this one."""
    work = maker()
    for index, task in enumerate(tasks):
        yield Event("started", index, "here")
        try:
            yield Event("done", index, "here", work(task, (), lambda done, total: None))
        except InputError as error:
            yield Event("failed", index, "here", processes.failure(error))


def batch(jobs: list[Job], out: Path, **rules: Any) -> tuple[Summary, Watched]:
    view = Watched()
    made_by = choose("mini", "auto", torch.device("cpu")).described()
    return run(jobs, out, made_by, here, view, Rules(**{"shard": Shard(0, 1), **rules})), view


def report(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


def test_a_batch_makes_what_it_can_and_a_second_run_only_what_is_left(tmp_path: Path) -> None:
    write_inputs(tmp_path, 2)
    write_jobs(tmp_path / "jobs.csv", 2, 2)
    jobs, began = jobs_from_file(tmp_path / "jobs.csv", BASE, tmp_path / "out"), time.monotonic()
    summary, view = batch(jobs, tmp_path / "out")
    assert (summary.made, summary.skipped, summary.failed) == (2, 0, 2)
    assert 0 < summary.seconds <= time.monotonic() - began
    rows = report(tmp_path / "out")
    assert [row["state"] for row in rows] == ["failed", "done", "failed", "done"]
    assert "absent.wav" in rows[0]["error"]
    assert "text.wav" in rows[2]["error"]
    done = rows[1]
    assert (done["frames"], done["width"], done["seed"], done["model"]) == (FRAMES, 64, 42, "mini")
    assert done["options"]["size"] == 64
    assert len(done["portrait_sha256"]) == len(done["audio_sha256"]) == 64
    assert len(list(read_video(tmp_path / "out" / done["output"]))) == FRAMES
    inputs = from_report(tmp_path / "out" / "report.jsonl", None)  # `moda eval` reads it
    assert (len(inputs.pairs), len(inputs.left_out)) == (2, 2)
    alone = tmp_path / "alone.mp4"  # the second clip of a portrait is a single command's, too
    Pipeline.load("mini", "cpu").generate(replace(jobs[3].clip, output=alone))
    assert alone.read_bytes() == jobs[3].clip.output.read_bytes()

    summary, view = batch(jobs, tmp_path / "out")
    assert (summary.made, summary.skipped, summary.failed) == (0, 2, 2)
    assert view.events == []
    assert report(tmp_path / "out") == rows

    soundfile.write(tmp_path / "absent.wav", np.zeros(3200), 16_000)  # the input is another now
    (tmp_path / "out" / done["output"]).unlink()
    summary, view = batch(jobs, tmp_path / "out")
    assert sorted(view.made()) == ["001_face_absent.mp4", done["output"]]
    assert (summary.made, summary.skipped, summary.failed) == (2, 1, 1)

    summary, view = batch(jobs, tmp_path / "out", retry_failed=True)
    assert [kind for kind, _ in view.events] == ["started", "failed"]
    summary, view = batch(jobs, tmp_path / "out", force=True)
    assert (summary.made, summary.failed) == (3, 1)


def test_outputs_of_other_options_are_not_overwritten_unasked(tmp_path: Path) -> None:
    write_inputs(tmp_path, 1)
    write_jobs(tmp_path / "jobs.csv", 1, 0)
    out = tmp_path / "out"
    jobs = jobs_from_file(tmp_path / "jobs.csv", BASE, out)
    out.mkdir()
    (out / "001_face_0.mp4").write_bytes(b"precious")
    with pytest.raises(UsageError, match="001_face_0"):
        batch(jobs, out)
    assert (out / "001_face_0.mp4").read_bytes() == b"precious"
    batch(jobs, out, overwrite=True)
    assert len(report(out)) == 1
    other = [replace(job, clip=replace(job.clip, emotion="happy")) for job in jobs]
    with pytest.raises(UsageError, match="already there"):
        batch(other, out)
    summary, _ = batch(other, out, overwrite=True)
    assert summary.made == 1
    assert report(out)[0]["options"]["emotion"] == "happy"


def test_strict_names_every_unusable_input_and_starts_nothing(tmp_path: Path) -> None:
    write_inputs(tmp_path, 1)
    write_jobs(tmp_path / "jobs.csv", 1, len(FAULTS))
    jobs = jobs_from_file(tmp_path / "jobs.csv", BASE, tmp_path / "out")
    with pytest.raises(InputError) as caught:
        batch(jobs, tmp_path / "out", strict=True)
    assert str(caught.value).count("\n") == len(FAULTS)
    for words in FAULTS.values():
        assert words in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "name"), [("timeline", "shot.toml"), ("motion", "nod.safetensors")]
)
def test_strict_reads_what_directs_a_clip(tmp_path: Path, option: str, name: str) -> None:
    write_inputs(tmp_path, 1)
    write_jobs(tmp_path / "jobs.csv", 1, 0)
    (tmp_path / name).write_text("[[")
    (job,) = jobs_from_file(tmp_path / "jobs.csv", BASE, tmp_path / "out")
    directed = replace(job, clip=replace(job.clip, **{option: tmp_path / name}))
    with pytest.raises(InputError, match=name):
        batch([directed], tmp_path / "out", strict=True)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_no_fault_of_the_job(tmp_path: Path) -> None:
    write_inputs(tmp_path, 2)
    write_jobs(tmp_path / "jobs.csv", 2, 0)
    jobs = jobs_from_file(tmp_path / "jobs.csv", BASE, tmp_path / "out")

    def full(tasks: Sequence[Job]) -> Generator[Event]:
        yield Event("started", 0, "1")
        error = f"cannot write {tasks[0].clip.output}: No space left on device"
        yield Event("failed", 0, "1", {"error": error, "hint": "", "exit_code": 2})

    made_by = choose("mini", "auto", torch.device("cpu")).described()
    with pytest.raises(UsageError, match="no space"):
        run(jobs, tmp_path / "out", made_by, full, Watched(), Rules(Shard(0, 1)))
    summary, _ = batch(jobs, tmp_path / "out")  # nothing has to be retried
    assert (summary.made, summary.failed) == (2, 0)


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    write_inputs(tmp_path, 1)
    write_jobs(tmp_path / "jobs.csv", 1, 20)
    out = tmp_path / "out"
    jobs = jobs_from_file(tmp_path / "jobs.csv", BASE, out)
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(UsageError, match=r"journal\.jsonl: File too large") as caught:
            batch(jobs, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "same command again" in caught.value.hint
    summary, _ = batch(jobs, out)
    assert 0 < summary.failed == len(report(out)) - 1 == 20


def test_files_behind_urls(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", 1)
    there = (tmp_path / "in").as_uri()
    row = {"portrait": f"{there}/face.png", "audio": f"{there}/0.wav",
           "output": f"{(tmp_path / 'far').as_uri()}/{{portrait}}_{{seed}}.mp4"}  # fmt: skip
    (tmp_path / "far").mkdir()
    (tmp_path / "jobs.jsonl").write_text(json.dumps(row))
    jobs = jobs_from_file(tmp_path / "jobs.jsonl", BASE, tmp_path / "out")
    summary, _ = batch(jobs, tmp_path / "out")
    assert summary.made == 1
    assert len(list(read_video(tmp_path / "far" / "face_42.mp4"))) == FRAMES
    summary, _ = batch(jobs, tmp_path / "out")
    assert (summary.made, summary.skipped) == (0, 1)


def test_devices_of_processes() -> None:
    assert several_devices("cpu", None, 3) == ["cpu", "cpu", "cpu"]
    with pytest.raises(DeviceError, match="GPU 97"):
        several_devices("auto", "97", 1)
    with pytest.raises(UsageError, match="some"):
        several_devices("auto", "some", 1)


def whole_boxes(path: Path) -> bool:
    """Whether an MP4's boxes fill its file to the end."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return False
        at += size
    return at == len(data) > 0


@pytest.mark.slow
def test_a_portrait_is_searched_once_by_all_processes(tmp_path: Path) -> None:
    """By a batch's two processes, by the next run, and by its check before any job, together."""
    write_inputs(tmp_path / "in", 4)
    write_jobs(tmp_path / "in" / "jobs.csv", 4, 0)
    searched = tmp_path / "searched"
    (tmp_path / "sitecustomize.py").write_text(
        "from moda_cli.face import candidates\n"
        "search = candidates.find_candidates\n"
        "def counted(picture, quick=False):\n"
        f"    open({str(searched)!r}, 'a').write('once ')\n"
        "    return search(picture, quick)\n"
        "candidates.find_candidates = counted\n"
    )
    search_path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": search_path, "MODA_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "moda_cli", "generate", "--jobs",
               str(tmp_path / "in" / "jobs.csv"), "-q"]  # fmt: skip
    for out, more in (("one", ["--workers", "2"]), ("two", ["--strict"])):
        done = subprocess.run(
            [*command, "-o", str(tmp_path / out), *more],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / out).glob("*.mp4"))) == 4
    assert searched.read_text() == "once "


def killed_and_resumed(folder: Path, good: int, bad: int, kills: int, seed: int) -> dict[str, Any]:
    """Run a list on two processes, killed at random moments; what the last run leaves is right."""
    write_inputs(folder, good)
    pairs = write_jobs(folder / "jobs.csv", good, bad)
    out = folder / "out"
    command = [sys.executable, "-m", "moda_cli", "generate", "--jobs", str(folder / "jobs.csv"),
               "-o", str(out), "--workers", "2", "-q"]  # fmt: skip
    moments = random.Random(seed)
    began = time.monotonic()
    landed = 0
    for number in range(kills):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        journal = out / ".moda-journal.jsonl"
        before = journal.read_bytes().count(b"\n") if journal.exists() else 0
        while process.poll() is None:  # a moment of the work, not of the start
            if journal.exists() and journal.read_bytes().count(b"\n") > before:
                break
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 2.5 * (good + bad) / 200 * 10 / kills))
        if process.poll() is None:
            landed += 1
            if number % 2:
                os.kill(process.pid, signal.SIGKILL)  # the workers have to notice
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert all(whole_boxes(path) for path in out.glob("*.mp4"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    assert done.returncode == 1, done.stderr
    rows = report(out)
    assert len(rows) == good + bad
    for index, ((portrait, audio), row) in enumerate(zip(pairs, rows, strict=True), start=1):
        name = f"{index:03d}_{Path(portrait).stem}_{Path(audio).stem}.mp4"
        assert row["output"] == name
        if words := FAULTS.get((portrait, audio)):
            assert row["state"] == "failed"
            assert words in row["error"]
            assert not (out / name).exists()
        else:
            assert (row["state"], row["frames"]) == ("done", FRAMES)
            assert row["bytes"] == (out / name).stat().st_size
            assert whole_boxes(out / name)
    names = {path.name for path in out.iterdir()}
    assert len([name for name in names if name.endswith(".mp4")]) == good
    assert not [name for name in names if name.endswith(".part")]
    lines = [json.loads(x) for x in (out / ".moda-journal.jsonl").read_bytes().splitlines() if x]
    starts, ends = Counter[str](), Counter[str]()
    for line in lines:
        assert line["state"] != "started" or not ends[line["output"]]  # never again once over
        (starts if line["state"] == "started" else ends)[line["output"]] += 1
    again = sum(count - 1 for count in starts.values())
    assert set(ends.values()) == {1}
    assert again <= 2 * landed  # the jobs in flight
    return {"kills": landed, "begun again": again, "seconds": round(seconds, 1)}


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed(tmp_path: Path) -> None:
    figures = killed_and_resumed(tmp_path, good=15, bad=5, kills=3, seed=1)
    assert figures["kills"] >= 2


@pytest.mark.slow
def test_the_command_on_folders(tmp_path: Path) -> None:
    write_inputs(tmp_path / "in", 2)
    for side, suffix in (("p", ".png"), ("s", ".wav")):
        (tmp_path / side).mkdir()
        for k in range(2):
            source = tmp_path / "in" / ("face.png" if side == "p" else f"{k}.wav")
            (tmp_path / side / f"{k}{suffix}").write_bytes(source.read_bytes())
    (tmp_path / "s" / "lonely.wav").write_bytes(b"")
    out = tmp_path / "out"
    result = moda(tmp_path / "p", tmp_path / "s", "-o", out, "--size", 64, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["made"] == 2
    assert "lonely" in result.stderr
    assert {path.name for path in out.glob("*.mp4")} == {"0_0.mp4", "1_1.mp4"}
    assert len(report(out)) == 2
    again = moda(tmp_path / "p", tmp_path / "s", "-o", out, "--size", 64, "-q")
    assert (again.exit_code, again.stdout, again.stderr) == (0, "", "")


@pytest.mark.slow
def test_interrupting_leaves_no_partial_file_and_goes_on(tmp_path: Path) -> None:
    write_inputs(tmp_path, 3)
    write_jobs(tmp_path / "jobs.csv", 3, 0)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "moda_cli", "generate", "--jobs", str(tmp_path / "jobs.csv"),
               "-o", str(out), "--fps", "120"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the first clip is there
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "error: interrupted"
    assert re.search("[12] of 3 clips are done; the same command goes on", errors)
    assert not [path for path in out.iterdir() if path.suffix == ".part"]
    assert report(out)[0]["state"] == "done"
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) < 3
    assert len(report(out)) == 3


def test_ray_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match="ray") as caught:
        list(cluster.execute(["a"], ClipMaker("mini", "rig", "auto"), "auto", "cpu"))
    assert "moda-cli[ray]" in caught.value.hint


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no Ray cluster"):
        list(cluster.execute(["a"], ClipMaker("mini", "rig", "auto"), "127.0.0.1:9", "cpu"))


@pytest.mark.slow
@pytest.mark.xdist_group("ray")  # one cluster at a time
def test_a_cluster_of_two_nodes_loses_one(tmp_path: Path) -> None:
    from ray_bench import lose_at_work, two_nodes

    good, bad = 6, 2
    write_inputs(tmp_path, good)
    write_jobs(tmp_path / "jobs.csv", good, bad)
    out = tmp_path / "out"
    with two_nodes() as (cluster, second):
        command = [sys.executable, "-m", "moda_cli", "generate", "--jobs", "jobs.csv", "-o", "out",
                   "--batch", "3", "--ray", cluster.address]  # fmt: skip
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            lose_at_work(cluster, second, "work_here")
            _, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert errors.count("trying again") == 1  # the job of the lost node
    assert "the node it was running on is dead" in errors
    rows = report(out)
    assert [row["state"] for row in rows].count("done") == good
    assert len(rows) == good + bad
    assert not list(out.glob(".*.part"))
    for row in rows:
        assert row["attempts"] <= 1  # the node was to blame, not the job
        if row["state"] == "done":
            assert whole_boxes(out / row["output"])
        else:
            assert any(words in row["error"] for words in FAULTS.values())
