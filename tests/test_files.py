"""Files that outlive power cuts, and folders with one writer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moda_cli import files
from moda_cli.errors import UsageError
from moda_cli.files import atomic_write, remove_abandoned
from moda_cli.owner import owned

OWN_AND_WAIT = """
import sys, time
from pathlib import Path
from moda_cli.owner import owned

with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    time.sleep(60)
"""


def test_a_file_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, events = tmp_path / "file", []
    sync, replace = os.fsync, Path.replace

    def fsync(handle: int) -> None:
        there = os.fstat(handle)
        events.append("folder" if there.st_ino == tmp_path.stat().st_ino else there.st_size)
        sync(handle)

    def renamed(self: Path, to: Path) -> Path:
        events.append("name")
        return replace(self, to)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", renamed)
    with atomic_write(target) as temporary:
        temporary.write_bytes(b"12345")
    assert events == [5, "name", "folder"]
    assert target.read_bytes() == b"12345"


WRITE_AND_WAIT = """
import sys, time
from pathlib import Path
from moda_cli.files import atomic_write, remove_abandoned

with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print(temporary, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_goes_and_what_one_writes_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path / "a[1].mp4")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        killed, alive = (Path(p.stdout.readline().strip()) for p in processes if p.stdout)
        processes[0].kill()
        processes[0].wait()
        other = tmp_path / ".a1.mp4.01234567.part"
        other.touch()
        remove_abandoned(tmp_path / "a[1].mp4")
        assert not killed.exists()
        assert alive.read_bytes() == b"half"
        assert other.exists()
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    """A second is told the number of the first; what a killed one leaves stops nobody."""
    folder = tmp_path / "run"
    command = [sys.executable, "-c", OWN_AND_WAIT, str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "owned\n"
        taken = f"being written by process {process.pid}$"
        with pytest.raises(UsageError, match=taken), owned(folder):
            pass
        assert (folder / ".owner").exists()  # the refused one has taken nothing away
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    with owned(folder), pytest.raises(UsageError, match=f"process {os.getpid()}$"), owned(folder):
        pass
    assert not (folder / ".owner").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot write to"), owned(tmp_path / "file" / "run"):
        pass


def test_whoever_clears_away_finds_no_moment_at_which_a_file_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not between its making and its lock, and not between its end and its name."""
    target, made, flush = tmp_path / "a.mp4", list[Path](), files.to_disk

    def touch(path: Path) -> None:
        path.touch()
        made.append(path)
        if len(made) == 1:
            remove_abandoned(target)  # another run, which begins just now

    with files.held_beside(target, touch) as temporary:
        assert made == [made[0], temporary]
        assert temporary.exists()
    assert not temporary.exists()

    def to_disk(path: Path) -> None:
        remove_abandoned(target)
        flush(path)

    monkeypatch.setattr(files, "to_disk", to_disk)
    with atomic_write(target) as temporary:
        temporary.write_text("whole")
    assert target.read_text() == "whole"
