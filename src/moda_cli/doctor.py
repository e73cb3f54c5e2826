"""What this machine can do, what it has, and what is wrong with it."""

import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from moda_cli.config import SAMPLE_RATE, ClipConfig
from moda_cli.device import device_name, has_bf16, usable_cores
from moda_cli.errors import DeviceError, ModaError
from moda_cli.evaluate.results import library_versions
from moda_cli.files import example
from moda_cli.media import read_audio
from moda_cli.media.ffmpeg import ffmpeg
from moda_cli.media.formats import CODECS, check_encoder
from moda_cli.media.provenance import versions
from moda_cli.pipeline import Pipeline
from moda_cli.weights import store
from moda_cli.weights.manifest import PROFILES, load_manifest

TEST_S = 2  # of speech, for the speed test
BY_USER = "IMAGEIO_FFMPEG_EXE"  # an ffmpeg of the user's
LEAST_FREE = 2e9  # bytes of disk: the networks' sizes are of this order


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and how to mend it."""

    what: str
    remedy: str


@dataclass(slots=True)
class Findings:
    """All that was found; the fields are what `--json` prints."""

    ready: bool = False  # a clip was made
    versions: dict[str, str] = field(default_factory=dict)
    devices: list[dict[str, Any]] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)
    places: dict[str, dict[str, Any]] = field(default_factory=dict)
    encoders: dict[str, str] = field(default_factory=dict)  # empty where it works, else why not
    speed: dict[str, Any] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def examine() -> Findings:
    """Look at everything; what fails is among the faults, never raised."""
    found = Findings()
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    for look in (
        lambda: {"versions": {**versions(), **library_versions(), "system": system}},
        lambda: {"devices": _devices(found.faults)},
        lambda: {"places": _places(found.faults)},
        lambda: {"weights": _weights()},
        lambda: {"encoders": _encoders()},
        lambda: {"speed": _speed()},
    ):
        try:
            for name, value in look().items():
                setattr(found, name, value)
        except ModaError as error:
            found.faults.append(Fault(str(error), error.hint))
        except (OSError, RuntimeError) as error:  # of a program that is not there, or torch's
            remedy = f"unset {BY_USER}" if BY_USER in os.environ else "reinstall moda-cli"
            found.faults.append(Fault(str(error).splitlines()[0], remedy))
    found.faults = list(dict.fromkeys(found.faults))
    found.ready = bool(found.speed)
    return found


def _devices(faults: list[Fault]) -> list[dict[str, Any]]:
    """The processor, then what is faster, with its memory in bytes and its precisions."""
    precisions = ["float32"]
    if has_bf16(torch.device("cpu")):
        precisions.append("bfloat16")
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    what = f"{_processor()}, {usable_cores()} cores"
    devices = [{"name": "cpu", "what": what, "memory": memory, "precisions": precisions}]
    for number in range(torch.cuda.device_count()):
        where = torch.device("cuda", number)
        capability = torch.cuda.get_device_capability(where)
        free, total = torch.cuda.mem_get_info(where)
        name, precisions = device_name(where), ["float32", "float16"]
        if capability >= (8, 0):
            precisions.append("bfloat16")
        devices.append({"name": str(where), "what": name, "memory": total, "free": free,
                        "precisions": precisions})  # fmt: skip
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "what": "Apple GPU", "memory": memory,
                        "precisions": ["float32", "float16"]})  # fmt: skip
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        built = f"torch {torch.__version__} was built {_cuda_of_torch()}"
        what = f"there is an NVIDIA driver, but its GPU cannot be used: {built}"
        faults.append(Fault(what, "install the torch whose CUDA the driver knows (nvidia-smi)"))
    return devices


def _cuda_of_torch() -> str:
    return f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _weights() -> list[dict[str, Any]]:
    """Each profile's components that are there and missing, and bytes still to be fetched."""
    manifest, rows = load_manifest(), []
    for profile in PROFILES:
        components = manifest.select([profile])
        missing = [c for c in components if store.installed(c.name) is None]
        rows.append(
            {
                "profile": profile,
                "installed": [c.name for c in components if c not in missing],
                "missing": {c.name: c.size for c in missing},
                "to_fetch": sum(c.size or 0 for c in missing),
                "unknown_sizes": sum(c.size is None for c in missing),
            }
        )
    return rows


def _places(faults: list[Fault]) -> dict[str, dict[str, Any]]:
    """Where files are kept, with the bytes they take and those that are free there."""
    places = {}
    for name, variable, folder in (
        ("cache", "MODA_CACHE", store.cache_dir()),
        ("downloads", "HF_HOME", store.hub_cache()),
    ):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        used = sum(
            p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink()
        )
        free = shutil.disk_usage(there).free
        places[name] = {"path": str(folder), "used": used, "free": free}
        remedy = f"set {variable} to a folder of yours on a disk with room"
        if not (there.is_dir() and os.access(there, os.W_OK)):
            faults.append(Fault(f"{folder} cannot be written", remedy))
        elif free < LEAST_FREE:
            faults.append(Fault(f"{folder}: only {free / 1e9:.1f} GB are free", remedy))
    return places


def _encoders() -> dict[str, str]:
    """Of every codec why it cannot be used, empty where it can."""
    listed = subprocess.run(
        [*ffmpeg(), "-encoders"], stdin=subprocess.DEVNULL, capture_output=True, check=False
    ).stdout.decode(errors="replace")
    faults = {}
    for codec, (encoder, _, _) in CODECS.items():
        faults[codec] = "" if f" {encoder[0]} " in listed else "this ffmpeg lacks it"
        try:
            if not faults[codec]:
                check_encoder(codec)
        except DeviceError as error:
            faults[codec] = str(error).partition("cannot start: ")[2] or str(error)
    return faults


def _speed() -> dict[str, Any]:
    """A clip of two seconds, made as `moda generate` makes it."""
    import soundfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wave = read_audio(example("speech.wav"))
        soundfile.write(folder / "speech.wav", wave[: TEST_S * SAMPLE_RATE], SAMPLE_RATE)
        portrait = example("portrait.png")
        began = time.perf_counter()
        pipeline = Pipeline.load()
        loaded = time.perf_counter() - began
        result = pipeline.generate(ClipConfig(portrait, folder / "speech.wav", folder / "out.mp4"))
    return {
        "model": pipeline.name,
        "renderer": pipeline.studio.name,
        "device": device_name(pipeline.model.device),
        "load_seconds": round(loaded, 2),
        "seconds": round(result.seconds, 2),
        "rtf": round(result.rtf, 3),
    }
