"""The parsers of this program, each on bytes that nobody vouches for.

tests/test_fuzz.py gives every one a few hundred inputs. For longer, guided by coverage, with
atheris: `python tests/support/fuzz.py NAME SECONDS` (pip install atheris; NAME may be `all`).
"""

import io
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

ROOT = Path(__file__).parents[2]
FOLDER = Path(tempfile.gettempdir()) / f"moda-fuzz-{os.getpid()}"


@dataclass(frozen=True)
class Target:
    """A parser, and files it reads well to start from."""

    run: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]


def _file(data: bytes, name: str = "file") -> Path:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / name
    path.write_bytes(data)
    return path


def _portrait() -> bytes:
    return (ROOT / "examples" / "portrait.png").read_bytes()


def _small_pictures() -> list[bytes]:
    from PIL import Image

    image = Image.open(io.BytesIO(_portrait())).resize((24, 24))
    pictures = []
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        data = io.BytesIO()
        image.save(data, form)
        pictures.append(data.getvalue())
    return pictures


def _picture(data: bytes) -> None:
    from moda_cli.media.pictures import read_image

    read_image(_file(data))


def _motion(data: bytes) -> None:
    from moda_cli.motion import load_motion

    load_motion(_file(data))


def _motion_file() -> bytes:
    import torch

    from moda_cli.motion import Recording, save_motion

    motion = torch.zeros(3, 70)
    motion[:, 63] = 1
    path = _file(b"")
    save_motion(path, Recording(motion, motion[0], False), {})
    return path.read_bytes()


def _template(data: bytes) -> None:
    from moda_cli.motion import load_motion

    load_motion(_file(data, "template.pkl"))


def _templates() -> list[bytes]:
    import numpy as np

    frame = {"exp": np.zeros((21, 3)), "t": np.zeros(3), "R": np.eye(3), "scale": np.ones(1)}
    return [pickle.dumps({"output_fps": 25, "motion": [frame] * 2}, k) for k in (2, 4, 5)]


def _timeline(name: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        from moda_cli.control.timeline_file import read_timeline

        read_timeline(_file(data, name)).emotion_shares(0, 80)

    return run


def _jobs(name: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        from moda_cli.config import ClipConfig
        from moda_cli.jobs.clip_list import jobs_from_file

        jobs_from_file(_file(data, name), ClipConfig(Path(), Path(), Path()), FOLDER)

    return run


def _emotion(data: bytes) -> None:
    from moda_cli.control.timeline import parse_emotion

    parse_emotion(data.decode(errors="replace")).emotion_shares(0, 80)


def _subtitles(data: bytes) -> None:
    from moda_cli.media.subtitles import read_srt, srt_text

    cues = read_srt(_file(data, "a.srt"))
    assert read_srt(_file(srt_text(cues).encode(), "b.srt"))


def _record(data: bytes) -> None:
    """What a clip says of itself, which anybody may have written."""
    from typer.testing import CliRunner

    from moda_cli.cli import app
    from moda_cli.media import provenance

    clip = _file(b"\0", "a.mkv")  # which nobody signs
    text = data.decode(errors="replace")
    with mock.patch.object(provenance, "read_comment", return_value=text):
        done = CliRunner().invoke(app, ["info", str(clip)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception


def _weights(data: bytes) -> None:
    from moda_cli.weights.manifest import load_manifest

    with mock.patch.dict(os.environ, {"MODA_WEIGHTS": str(_file(data))}):
        manifest = load_manifest()
    for component in manifest.components.values():
        component.size, component.sources[:1]


def _model_config(data: bytes) -> None:
    from moda_cli.generator.model import read_config

    read_config(_file(data, "config.json").parent)


def _stats(data: bytes) -> None:
    import torch

    from moda_cli.generator.model import MotionGenerator

    mini = ROOT / "src" / "moda_cli" / "assets" / "mini"
    _file((mini / "config.json").read_bytes(), "config.json")
    _file(data, "stats.json")
    link = FOLDER / "model.safetensors"
    if not link.exists():
        link.symlink_to(mini / "model.safetensors")
    MotionGenerator.load(FOLDER, torch.device("cpu"))


def _index(data: bytes) -> None:
    from moda_cli.data.feature_files import INDEX, find_faults

    find_faults(_file(data, INDEX).parent)


def _split(data: bytes) -> None:
    from moda_cli.data.splits import read_manifest

    read_manifest(_file(data), "hdtf-50")


def _journal(data: bytes) -> None:
    from moda_cli.jobs.clip_list import Shard
    from moda_cli.jobs.journal import NAME, Journal

    folder = FOLDER / "batch"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.jsonl").write_bytes(data)
    with Journal(folder, Shard(0, 1)):
        pass


def _standard_input(data: bytes) -> None:
    from moda_cli.media import standard_input

    read, write = os.pipe()

    def feed() -> None:
        with suppress(OSError), os.fdopen(write, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        stdin = SimpleNamespace(fileno=lambda: read)
        with mock.patch.object(standard_input.sys, "stdin", stdin):
            for _ in standard_input.arriving_blocks():
                pass
    finally:
        os.close(read)
        thread.join()


def _wav(subtype: str = "PCM_16") -> bytes:
    import numpy as np
    import soundfile

    data = io.BytesIO()
    soundfile.write(data, np.sin(np.arange(900) / 9), 16000, format="WAV", subtype=subtype)
    return data.getvalue()


def _sound(data: bytes) -> None:
    from moda_cli.media import read_audio

    read_audio(_file(data, "sound.wav"))


def _checkpoint(data: bytes) -> None:
    from moda_cli.weights.convert import convert

    component = SimpleNamespace(groups=(), name="net")
    convert(_file(data), FOLDER / "converted.safetensors", component)


def _pickles() -> list[bytes]:
    import torch

    state, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(2)}}, state)
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    return [state.getvalue(), old.getvalue()]


def _options(data: bytes) -> None:
    from moda_cli.config import ClipConfig
    from moda_cli.jobs.clip_list import fill, parse_shard, split_output
    from moda_cli.jobs.options import KINDS, NEGATED, read_option
    from moda_cli.media.pictures import parse_colour

    text = data.decode(errors="replace")
    readers: list[Callable[[], object]] = [
        lambda: parse_colour(text),
        lambda: parse_shard(text),
        lambda: fill(text, {"portrait": "a", "index": 1, "seed": 7.5}),
        lambda: split_output(Path(text)),
        *(lambda name=name: read_option(name, text, Path()) for name in (*KINDS, *NEGATED)),
    ]
    from moda_cli.errors import ModaError

    for read in readers:
        with suppress(ModaError):
            read()
    assert ClipConfig


def _user_defaults(data: bytes) -> None:
    """moda.toml, as every command reads it."""
    from typer.testing import CliRunner

    from moda_cli.cli import app, defaults

    with mock.patch.object(defaults, "FILE", _file(data, "moda.toml")):
        done = CliRunner().invoke(app, ["info", str(FOLDER / "none.mp4")])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception


def _training(name: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        from moda_cli.train.settings import train_config

        train_config(str(_file(data, name)))

    return run


def _features(data: bytes) -> None:
    from moda_cli.train.clip_files import FeatureFile, clip_fault
    from moda_cli.train.presets import PRESETS

    path = _file(data, "clip.safetensors")
    assert clip_fault(FeatureFile(path, 3), PRESETS["mini"].model) is not None or data


def _feature_file() -> bytes:
    import torch
    from safetensors.torch import save

    rows = {"motion": (3, 70), "kp": (63,), "audio": (3, 4, 80), "emotion": (8,)}
    return save({name: torch.ones(shape) for name, shape in rows.items()})


def _run_checkpoint(data: bytes) -> None:
    from moda_cli.train.checkpoint import folder, newest, read_tensors

    folder(FOLDER / "run").mkdir(parents=True, exist_ok=True)
    (folder(FOLDER / "run") / "step-00000001.safetensors").write_bytes(data)
    path, _ = newest(FOLDER / "run")
    assert path
    read_tensors(path)


def _run_checkpoints() -> list[bytes]:
    import torch
    from safetensors.torch import save

    return [save({"weight": torch.ones(2)}, {"notes": json.dumps({"step": 1})})]


def _batch_report(data: bytes) -> None:
    from moda_cli.evaluate.inputs import from_report

    _file(b"", "a.mp4")
    from_report(_file(data, "report.jsonl"), None)


def _annotations(name: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        from moda_cli.data.annotations import HDTF_PARTS, candidates

        folder = FOLDER / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("video_url", "resolution", "crop_wh", "annotion_time"):
            for part in HDTF_PARTS:
                (folder / f"{part}_{kind}.txt").write_bytes(data)
        celebv = folder / "celebvhq_info.json"
        celebv.write_bytes(data)
        candidates(name, folder if name == "hdtf" else celebv)

    return run


def _kept_portrait(data: bytes) -> None:
    """A cache's entry: one that is not whole is made anew, whatever it is."""
    from moda_cli.face import kept

    kept._read(_file(data, "entry.safetensors"))


TABLE = b'portrait,audio,steps,emotion\na.png,"b, c.wav",5,happy\n'
TIMELINE = b'[[entry]]\nat = 1\nemotion = "sad"\n\n[[entry]]\nat = 2\nuntil = 3.5\nhold = true\n'
TIMELINE_JSON = b'[{"at": 1, "emotion": "sad", "intensity": 0.5},\n {"at": 2, "yaw": -3}]'
ROW = b'{"portrait": "a.png", "audio": "b.wav", "seed": 3, "emotion": "0:sad,1:happy"}\n'
SRT = b"1\n00:00:00,500 --> 00:00:01,000\nHello <i>you</i>\n\n2\n0:1:2.5 --> 0:1:3\nBye\n"
SAID = (
    b'{"notice": "AI-generated", "seed": 1, "settings": {"emotion": "sad", "blink": false},'
    b' "inputs": {"portrait": {"name": "a.png", "sha256": "00"}}}'
)
JOURNAL = b'{"output": "a.mp4", "key": "0", "state": "done", "bytes": 3, "at": 1.5}\n'
INDEX_ROW = b'{"clip": "a", "frames": 3, "sha256": "00"}\n'
CELEBV = (
    b'{"clips": {"a_1": {"ytb_id": "a", "duration": {"start_sec": 1.5, "end_sec": 4},'
    b' "bbox": {"left": 0.1, "top": 0.2, "right": 0.6, "bottom": 0.8}}}}'
)
MINI = ROOT / "src" / "moda_cli" / "assets" / "mini"
SPLIT = {"protocol": "", "dataset": "HDTF", "test": [], "reserve": []}

TARGETS = {
    "picture": Target(_picture, _small_pictures),
    "motion": Target(_motion, lambda: [_motion_file()]),
    "template": Target(_template, _templates),
    "timeline.toml": Target(_timeline("timeline.toml"), lambda: [TIMELINE]),
    "timeline.json": Target(_timeline("timeline.json"), lambda: [TIMELINE_JSON]),
    "timeline.csv": Target(
        _timeline("timeline.csv"), lambda: [b"at,emotion,yaw\n1,sad,-3\n2,,4\n"]
    ),
    "jobs.csv": Target(_jobs("jobs.csv"), lambda: [TABLE, TABLE.decode().encode("utf-16")]),
    "jobs.jsonl": Target(_jobs("jobs.jsonl"), lambda: [ROW * 2]),
    "emotion": Target(_emotion, lambda: [b"0:neutral,2.5:happy"]),
    "subtitles": Target(_subtitles, lambda: [SRT, SRT.decode().encode("utf-16")]),
    "record": Target(_record, lambda: [SAID]),
    "weights.toml": Target(_weights, lambda: [(ROOT / "weights.toml").read_bytes()[:1500]]),
    "config.json": Target(_model_config, lambda: [(MINI / "config.json").read_bytes()]),
    "stats.json": Target(_stats, lambda: [(MINI / "stats.json").read_bytes()]),
    "index.jsonl": Target(_index, lambda: [INDEX_ROW]),
    "split": Target(_split, lambda: [json.dumps(SPLIT).encode()]),
    "journal": Target(_journal, lambda: [JOURNAL * 2]),
    "standard input": Target(_standard_input, lambda: [_wav(), _wav("FLOAT"), bytes(640)]),
    "sound": Target(_sound, lambda: [_wav(), _wav("PCM_U8")]),
    "checkpoint": Target(_checkpoint, _pickles),
    "moda.toml": Target(_user_defaults, lambda: [b'seed = 3\n\n[generate]\nsteps = "5"\n']),
    "train.toml": Target(_training("train.toml"), lambda: [b'preset = "mini"\nbatch_size = 4\n']),
    "train.json": Target(
        _training("train.json"), lambda: [b'{"preset": "mini", "model": {"window": 80}}']
    ),
    "features": Target(_features, lambda: [_feature_file()]),
    "run checkpoint": Target(_run_checkpoint, _run_checkpoints),
    "report.jsonl": Target(
        _batch_report, lambda: [b'{"output": "a.mp4", "seconds": 1.5, "frames": 3, "fps": 25}\n']
    ),
    "hdtf": Target(
        _annotations("hdtf"), lambda: [b"Name 00:01-00:05 00:07-1:09:01\nName_0 1 2 3 4\n"]
    ),
    "celebvhq": Target(_annotations("celebvhq"), lambda: [CELEBV]),
    "kept portrait": Target(_kept_portrait, lambda: [_feature_file()]),
    "options": Target(_options, lambda: [b"#ffcc00", b"{portrait}_{index:03d}", b"0/2", b"1.5"]),
}


def check(target: Target, data: bytes) -> None:
    """Run a parser; only our own errors may come out."""
    from moda_cli.errors import ModaError

    with suppress(ModaError):
        target.run(data)


def _fuzz(name: str, seconds: int) -> None:
    import logging

    import atheris

    logging.disable(logging.CRITICAL)
    corpus = Path(tempfile.mkdtemp(prefix="moda-corpus-"))
    with atheris.instrument_imports(include=["moda_cli"]):  # whoever imports them first
        check(TARGETS[name], b"")
        seeds = TARGETS[name].seeds()
        for seed in seeds:
            check(TARGETS[name], seed)
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-timeout=60", "-rss_limit_mb=6000", "-max_len=20000"]
    where = f"-artifact_prefix={name.replace(' ', '-')}-"
    atheris.Setup([sys.argv[0], *options, where, str(corpus)], lambda d: check(TARGETS[name], d))
    atheris.Fuzz()


if __name__ == "__main__":
    name, seconds = sys.argv[1], int(sys.argv[2])
    if name != "all":
        _fuzz(name, seconds)
    for each in TARGETS if name == "all" else ():
        command = [sys.executable, __file__, each, str(seconds // len(TARGETS))]
        print(each, subprocess.run(command, check=False).returncode, flush=True)
