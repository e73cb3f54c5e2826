"""What happens to a command in the middle of its work: signals, full disks, lost processes, caches.

`python tests/support/faults.py all --moments 10` prints a table; a name in place of `all` does one.
After every fault: no output that is there is broken, nothing finished is lost, nobody's temporary
file stays, what is said is no traceback, and the same command run again ends well.
"""

import argparse
import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

from disturbed import COMMANDS, Broken, Command, download, leave, place, prepared

FAULTS: dict[str, Callable[[int, random.Random], Iterator[bool]]] = {}
BY_SIGNAL = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


# The faults; each yields once for every time it happened


def fault(name: str) -> Callable[[Callable[..., Iterator[bool]]], Callable[..., Iterator[bool]]]:
    def add(run: Callable[..., Iterator[bool]]) -> Callable[..., Iterator[bool]]:
        FAULTS[name] = run
        return run

    return add


def _signalled(name: str, number: signal.Signals) -> Callable[..., Iterator[bool]]:
    """At random moments of its work, to it alone or to all its processes, as a terminal does."""

    def run(moments: int, rng: random.Random) -> Iterator[bool]:
        with prepared(name) as command:
            command.start(leave).join()  # the first is slow: what all share is imported
            began = time.monotonic()
            if code := command.run():
                raise Broken(f"undisturbed it ends with {code}: {command.said()}")
            usual = time.monotonic() - began
            command.check(over=True)
        for _ in range(3 * moments):
            with prepared(name) as command:
                process = command.start()
                process.join(rng.uniform(0.1, usual))
                landed = process.is_alive()
                if landed:
                    with suppress(ProcessLookupError):
                        rng.choice((os.kill, os.killpg))(process.pid or 0, number)
                code = command.end(process)
                if code not in (0, BY_SIGNAL[number]):
                    raise Broken(f"{number.name} of {name}: {code}: {command.said()}")
                command.check(over=code == 0, killed=number == signal.SIGKILL)
                command.again()
            yield landed
            moments -= landed
            if not moments:
                return

    return run


for _name in (*COMMANDS, "download"):
    for _signal in BY_SIGNAL:
        FAULTS[f"{_signal.name} {_name}"] = _signalled(_name, _signal)


@fault("full disk")
def full_disk(moments: int, rng: random.Random) -> Iterator[bool]:
    """Outputs on a file system of 512 kB of which a little is left; then there is room."""
    for name, output in (("generate", "."), ("batch", "out"), ("train", "run")):
        with prepared(name) as command:
            tiny = command.folder / "tiny"
            tiny.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(tiny)]
            subprocess.run(mount, check=True, capture_output=True)
            try:
                with suppress(OSError), (tiny / "ballast").open("wb", 0) as ballast:
                    while ballast.write(bytes(4096)):
                        pass
                at = command.arguments.index("-o") + 1
                command.arguments[at] = "tiny/out.mp4" if output == "." else f"tiny/{output}"
                code = command.run()
                if code not in (1, 2) or "space" not in command.said():
                    raise Broken(f"full disk, {name}: {code}: {command.said()}")
                if "Traceback" in command.said() or list(tiny.rglob("*.part")):
                    raise Broken(f"{list(tiny.rglob('*'))}: {command.said()}")
                (tiny / "ballast").unlink()
                subprocess.run(["mount", "-o", "remount,size=90m", str(tiny)], check=True)
                if code := command.run():
                    raise Broken(f"with room, {name} ends with {code}: {command.said()}")
            finally:
                subprocess.run(["umount", "-l", str(tiny)], check=True)
        yield True


@fault("broken pipe")
def broken_pipe(moments: int, rng: random.Random) -> Iterator[bool]:
    """A reader of `-o -` that goes after some of the video."""
    for _ in range(moments):
        with prepared("generate") as command:
            pipe = command.folder / "pipe"
            os.mkfifo(pipe)
            command.arguments[command.arguments.index("out.mp4")] = "-"
            command.environment["stdout"] = str(pipe)
            command.judge = lambda folder, over: None
            process = command.start()
            with pipe.open("rb") as reader:
                reader.read(rng.randrange(1, 3000))
            code = command.end(process)
            if code not in (0, 1, 2, 141, -signal.SIGPIPE):
                raise Broken(f"{code}: {command.said()}")
            command.check(over=False)
        yield True


@fault("encoder dies")
def encoder_dies(moments: int, rng: random.Random) -> Iterator[bool]:
    for _ in range(moments):
        with prepared("generate") as command:
            code = _losing(command, r"ffmpeg.*-f rawvideo", rng.uniform(0, 0.05))
            if code == 0:  # it had finished
                command.check(over=True)
            elif "error:" not in command.said() or (command.folder / "out.mp4").exists():
                raise Broken(f"{code}: {command.said()}")
            else:
                command.check(over=False)
            command.again()
        yield code != 0


@fault("worker killed")
def worker_killed(moments: int, rng: random.Random) -> Iterator[bool]:
    """As the kernel does where memory is short: its clip is tried once more."""
    for _ in range(moments):
        with prepared("batch") as command:
            if code := _losing(command, r"spawn_main", rng.uniform(0, 3)):
                raise Broken(f"{code}: {command.said()}")
            command.check(over=True)
        yield True


def _no_memory() -> None:
    import torch

    from moda_cli.generator.mmdit import MMDiT

    def forward(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    MMDiT.forward = forward  # type: ignore[method-assign, assignment]


@fault("CUDA out of memory")
def out_of_memory(moments: int, rng: random.Random) -> Iterator[bool]:
    with prepared("generate") as command:
        code = command.run(_no_memory)
        if code != 5 or "out of memory" not in command.said():
            raise Broken(f"{code}: {command.said()}")
        command.check(over=False)
        command.again()
    yield True


def _jumping_clock() -> None:
    real, rng = time.time, random.Random(0)
    time.time = lambda: real() + rng.choice((-1e6, 0, 1e6))


@fault("clock jumps")
def clock_jumps(moments: int, rng: random.Random) -> Iterator[bool]:
    """The day's clock, by 11 days to and fro."""
    for name in ("generate", "batch", "train", "download"):
        with prepared(name) as command:
            if code := command.run(_jumping_clock):
                raise Broken(f"{code}: {command.said()}")
            command.check(over=True)
            command.again()
        yield True


@fault("cache corrupted")
def cache_corrupted(moments: int, rng: random.Random) -> Iterator[bool]:
    for _ in range(moments):
        with prepared("generate") as command:
            command.run()
            for path in (command.folder / "cache").rglob("*"):
                if path.is_file():
                    data = bytearray(path.read_bytes())
                    data[rng.randrange(len(data) + 1) :] = rng.randbytes(rng.randrange(40))
                    path.write_bytes(data)
            command.again()
        yield True


@fault("cache read-only")
def cache_read_only(moments: int, rng: random.Random) -> Iterator[bool]:
    with prepared("generate") as command:
        cache = command.folder / "cache"
        cache.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(cache)]
        subprocess.run(mount, check=True, capture_output=True)
        try:
            command.again()
        finally:
            subprocess.run(["umount", "-l", str(cache)], check=True)
    yield True


@fault("cache shared")
def cache_shared(moments: int, rng: random.Random) -> Iterator[bool]:
    """Two that begin at once, with one empty cache."""
    for name in ("generate", "download"):
        with prepared(name) as command:
            first, second = command.start(), command.start()
            codes = command.end(first), command.end(second)
            if codes != (0, 0):
                raise Broken(f"{codes}: {command.said()}")
            command.check(over=True)
        yield True


@fault("server lies")
def server_lies(moments: int, rng: random.Random) -> Iterator[bool]:
    """It stalls in the middle, says another length, or changes the file between two parts."""
    for how in ("stalls", "lies", "changes"):
        with place() as folder, download(folder) as (command, hub):
            whole, name = hub.files["net.onnx"], "net.onnx"
            hub.slow.clear()
            if how == "lies":
                hub.wrong[name] = whole + b"more"
            else:
                hub.cut_after[name], hub.cuts_left = 70_000, 1
                if how == "stalls":
                    hub.stall.add(name)
                else:
                    hub.cut_then[name] = bytes(len(whole))
            code = command.run()
            if how == "stalls" and code:
                raise Broken(f"{how}: {code}: {command.said()}")
            if how != "stalls" and code != 4:
                raise Broken(f"{how}: {code}: {command.said()}")
            command.check(over=code == 0)
            hub.wrong.clear()
            hub.cut_after.clear()
            hub.cut_then.clear()
            command.again()
        yield True


def _kill(victim: int | None) -> None:
    with suppress(ProcessLookupError):
        if victim:
            os.kill(victim, signal.SIGKILL)


def _losing(command: Command, pattern: str, after_s: float) -> int:
    """The exit code of a command whose child like that is killed, so long after it is there."""
    process = command.start()
    victim = _wait_for(process, pattern)
    time.sleep(after_s)
    _kill(victim)
    return command.end(process)


def _wait_for(process: "multiprocessing.process.BaseProcess", pattern: str) -> int | None:
    """The number of its child whose command line is like that; None once it has ended itself."""
    while process.is_alive():
        listed = subprocess.run(
            ["ps", "--ppid", str(process.pid), "-o", "pid=,args="], capture_output=True, text=True
        )
        for line in listed.stdout.splitlines():
            if re.search(pattern, line):
                return int(line.split()[0])
        time.sleep(0.02)
    return None


def run(name: str, moments: int, seed: int) -> tuple[int, int, int, str]:
    """How often a fault was tried, how often it met its command, how often all was as promised."""
    tried = landed = held = 0
    reason = ""
    attempts = FAULTS[name](moments, random.Random(f"{seed} {name}"))
    while True:
        try:
            met = next(attempts)
        except StopIteration:
            return tried, landed, held, reason
        except Broken as error:
            return tried + 1, landed + 1, held, str(error)
        tried, landed, held = tried + 1, landed + met, held + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help=f"all, or {', '.join(FAULTS)}")
    parser.add_argument("--moments", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    names = [
        name for name in FAULTS if "all" in args.names or any(part in name for part in args.names)
    ]
    print(
        "| fault | tried | met the command | as promised |\n| --- | --- | --- | --- |", flush=True
    )
    faulty = False
    for name in names:
        tried, landed, held, reason = run(name, args.moments, args.seed)
        print(f"| {name} | {tried} | {landed} | {held} |", flush=True)
        if reason:
            print(reason, file=sys.stderr, flush=True)
            faulty = True
    sys.exit(faulty)


if __name__ == "__main__":
    assert threading.active_count() == 1
    main()
