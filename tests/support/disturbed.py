"""Commands whose outputs can be judged at any moment: what faults.py disturbs.

Small inputs, so that a command takes seconds.
"""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIMIT_S = 300.0  # for a command that takes seconds
HELPERS_S = 20  # for processes that it started to leave after it
FRAMES = 25
Patch = Callable[[], None]


class Broken(AssertionError):
    """A promise that was not kept, with what the command said."""


@dataclass
class Command:
    """A `moda` command in a folder of its own, whose outputs can be judged at any moment."""

    folder: Path
    arguments: list[str]
    judge: Callable[[Path, bool], object]  # raises where something there, or missing, is wrong
    environment: dict[str, str] = field(default_factory=dict)
    finished: Callable[[Path], Mapping[str, object]] = lambda folder: {}  # no run makes it again

    def start(self, patch: Patch | None = None) -> "multiprocessing.process.BaseProcess":
        context = multiprocessing.get_context("forkserver")  # with torch loaded once
        context.set_forkserver_preload(["moda_cli.pipeline", "moda_cli.cli", "moda_cli.train.loop"])
        (self.folder / "tmp").mkdir(exist_ok=True)
        settings = {
            "MODA_CACHE": str(self.folder / "cache"),
            "TMPDIR": str(self.folder / "tmp"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "cache" / "torch"),  # stays by design
            **self.environment,
        }
        process = context.Process(
            target=_moda, args=(self.arguments, self.folder, settings, patch), daemon=False
        )
        process.start()
        return process

    def end(self, process: "multiprocessing.process.BaseProcess") -> int:
        process.join(LIMIT_S)
        group = str(process.pid)
        if process.exitcode is None:
            subprocess.run(["pkill", "-KILL", "-g", group], check=False)
            raise Broken(f"{self.arguments} goes on for ever")
        for _ in range(HELPERS_S * 5):
            if subprocess.run(["pgrep", "-g", group], stdout=subprocess.DEVNULL).returncode:
                return process.exitcode
            time.sleep(0.2)
        left = subprocess.run(["pgrep", "-a", "-g", group], capture_output=True, text=True).stdout
        subprocess.run(["pkill", "-KILL", "-g", group], check=False)
        raise Broken(f"helpers stay after {self.arguments}: {left}")

    def run(self, patch: Patch | None = None) -> int:
        return self.end(self.start(patch))

    def said(self) -> str:
        return (self.folder / "said").read_text(errors="replace")

    def check(self, over: bool, killed: bool = False) -> None:
        """Outputs whole, no traceback, and nothing temporary but what SIGKILL leaves."""
        said = self.said()
        if "Traceback" in said and not killed:
            raise Broken(said)
        self.judge(self.folder, over)
        parts = self.folder.rglob("*.part")  # the cache's are what a download goes on from
        stray = [path for path in parts if "cache" not in path.parts]
        if (stray := [*stray, *(self.folder / "tmp").iterdir()]) and not killed:
            raise Broken(f"{stray} stay: {said}")

    def again(self) -> None:
        """The same command ends well, and leaves alone what was finished before."""
        before = self.finished(self.folder)
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)  # a killed run leaves things there
        if code := self.run():
            raise Broken(f"the next run ends with {code}: {self.said()}")
        self.check(over=True)
        after = self.finished(self.folder)
        if redone := [name for name, stamp in before.items() if after.get(name) != stamp]:
            raise Broken(f"made again though finished: {redone}")


def _stamps(paths: Iterable[Path]) -> dict[str, object]:
    stats = {str(path): path.stat() for path in paths}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()}


def _rows(path: Path) -> list[dict[str, Any]]:
    """Of a file of JSON lines, of which the last may be half there."""
    import json

    rows = []
    with suppress(FileNotFoundError, ValueError):
        rows += [json.loads(line) for line in path.read_text().splitlines()]
    return rows


def _moda(
    arguments: list[str], folder: Path, settings: Mapping[str, str], patch: Patch | None
) -> None:
    """The life of the command, in a process that has imported what it needs."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    multiprocessing.set_start_method(None, force=True)  # a shell's child has the system's own
    os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.update(settings)
    log = os.open("said", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    for number in (1, 2):
        os.dup2(log, number)
    if "stdout" in settings:
        os.dup2(os.open(settings["stdout"], os.O_WRONLY), 1)
    sys.argv = ["moda", *arguments]
    if patch:
        patch()
    from moda_cli.cli import app

    app(arguments)


def leave() -> None:
    os._exit(0)


# The commands


def _whole_video(path: Path, frames: int = FRAMES) -> None:
    from moda_cli.media import read_video

    count = sum(1 for _ in read_video(path))
    if count != frames:
        raise Broken(f"{path} has {count} of {frames} frames")


def _inputs(folder: Path, sounds: int = 1) -> None:
    import cv2
    import soundfile

    from moda_cli.media import read_audio, read_image

    examples = Path(__file__).parents[2] / "examples"
    small = cv2.resize(read_image(examples / "portrait.png"), (256, 256))
    cv2.imwrite(str(folder / "face.png"), small[..., ::-1])
    for k in range(sounds):
        wave = read_audio(examples / "speech.wav")[8000 * k + 8000 :][: FRAMES * 640]
        soundfile.write(folder / f"{k}.wav", wave, 16_000)


def generate(folder: Path) -> Command:
    _inputs(folder)

    def judge(folder: Path, over: bool) -> None:
        if over or (folder / "out.mp4").exists():
            _whole_video(folder / "out.mp4")

    arguments = ["generate", "face.png", "0.wav", "-o", "out.mp4", "-y", "--size", "64"]
    return Command(folder, [*arguments, "--steps", "2", "--device", "cpu"], judge)


def batch(folder: Path) -> Command:
    _inputs(folder, 3)
    rows = "".join(f"face.png,{k}.wav,{k}.mp4\n" for k in range(3))
    (folder / "jobs.csv").write_text(f"portrait,audio,output\n{rows}")

    def judge(folder: Path, over: bool) -> None:
        clips = list((folder / "out").glob("*.mp4"))
        for path in clips:
            _whole_video(path)
        if over and len(clips) != 3:
            raise Broken(f"{len(clips)} of 3 clips")

    def finished(folder: Path) -> Mapping[str, object]:
        rows = _rows(folder / "out" / ".moda-journal.jsonl")
        return _stamps(folder / "out" / row["output"] for row in rows if row["state"] == "done")

    arguments = ["generate", "--jobs", "jobs.csv", "-o", "out", "--size", "64", "--steps", "2"]
    return Command(folder, [*arguments, "--device", "cpu"], judge, finished=finished)


def extract(folder: Path) -> Command:
    import pytest

    import extract_bench

    files = extract_bench.make_networks(folder / "networks")
    with pytest.MonkeyPatch.context() as patch:
        extract_bench.install(patch, folder, files)
        settings = {name: os.environ[name] for name in ("MODA_WEIGHTS", "MODA_CACHE")}
    for k in range(3):
        frames = list(extract_bench.talking(80, x=300 + 20 * k))
        extract_bench.write_video(folder / "in" / f"{k}.mkv", frames, extract_bench.speech(3.2))

    def judge(folder: Path, over: bool) -> None:
        from safetensors.torch import load_file

        from moda_cli.data.feature_files import find_faults

        clips = list((folder / "features").glob("*.safetensors"))
        for path in clips:
            load_file(path)
        if over and (len(clips) != 3 or find_faults(folder / "features")):
            raise Broken(f"{len(clips)} clips, {find_faults(folder / 'features')}")

    def finished(folder: Path) -> Mapping[str, object]:
        records = (folder / "features" / ".jobs").glob("*.json")
        return _stamps(folder / "features" / f"{path.stem}_000.safetensors" for path in records)

    arguments = ["extract", "in", "-o", "features", "--audio", "logmel", "--device", "cpu"]
    return Command(folder, arguments, judge, settings, finished)


def train(folder: Path) -> Command:
    import json
    from dataclasses import asdict

    from toy_features import short, write_features

    write_features(folder / "features")
    config = short(steps=40, checkpoint_every=10, log_every=5, validate_every=20)
    (folder / "config.json").write_text(json.dumps(asdict(config)))

    def judge(folder: Path, over: bool) -> None:
        from safetensors.torch import load_file

        for path in folder.glob("run/checkpoints/step-*.safetensors"):
            load_file(path)
        if over:
            load_file(folder / "run" / "model.safetensors")
            steps = [row["step"] for row in _rows(folder / "run" / "log.jsonl")]
            if steps != sorted(set(steps)) or steps[-1] != 40:
                raise Broken(f"its log has the steps {steps}")

    def finished(folder: Path) -> Mapping[str, object]:
        """What was logged up to the newest checkpoint."""
        kept = [path.stem for path in (folder / "run" / "checkpoints").glob("step-*.safetensors")]
        last = max((int(name.removeprefix("step-")) for name in kept), default=0)
        rows = _rows(folder / "run" / "log.jsonl")
        return {f"step {row['step']}": row for row in rows if row["step"] <= last}

    arguments = ["train", "features", "-o", "run", "--config", "config.json", "--workers", "1"]
    return Command(folder, [*arguments, "--device", "cpu"], judge, finished=finished)


@contextmanager
def download(folder: Path) -> Iterator[tuple[Command, Any]]:
    """And the hub that it asks, which takes 2 s for its file."""
    import json

    from download_bench import ONNX, Bench, sha
    from hub_server import Hub, serve

    hub = Hub(files={"net.onnx": ONNX[:200_000]}, slow={"net.onnx"})
    with serve(hub):
        source = {"url": f"{hub.url}/files/net.onnx", "sha256": sha(hub.files["net.onnx"])}
        Bench(hub, folder).weights(net=[{"convert": False, **source}])
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "MODA_WEIGHTS": str(folder / "weights.toml"),
        }

        def judge(folder: Path, over: bool) -> None:
            record = folder / "cache" / "weights.lock.json"
            named = [
                Path(row["path"])
                for path in folder.glob("cache/*lock*.json")
                for row in json.loads(path.read_text())["components"].values()
            ]
            if any(path.read_bytes() != hub.files["net.onnx"] for path in named):
                raise Broken(f"{named} hold other bytes")
            if over and not named:
                raise Broken(f"nothing is recorded in {record}")

        def finished(folder: Path) -> Mapping[str, object]:
            return _stamps(folder.glob("cache/files/*.onnx"))

        yield Command(folder, ["download"], judge, settings, finished), hub


COMMANDS = {"generate": generate, "batch": batch, "extract": extract, "train": train}


@contextmanager
def place() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="moda-faults-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def prepared(name: str) -> Iterator[Command]:
    with place() as folder:
        if name == "download":
            with download(folder) as (command, _):
                yield command
        else:
            yield COMMANDS[name](folder)
