"""The nodes, in ComfyUI's own types.

IMAGE is (N, H, W, 3 or 4), floats in 0..1. AUDIO is {"waveform": (B, C, T), "sample_rate": Hz}.
MODA_PIPELINE is what `Pipeline.load` gives, MODA_MOTION a `Recording`.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

import moda_cli as moda
from moda_cli.config import EMOTIONS, FPS, SAMPLE_RATE

try:
    from comfy.model_management import throw_exception_if_processing_interrupted as check_interrupt
    from comfy.utils import ProgressBar
except ImportError:  # outside ComfyUI nobody watches
    ProgressBar = None

    def check_interrupt() -> None:
        """Nobody interrupts."""


Audio = dict[str, Any]
Inputs = dict[str, dict[str, tuple[Any, ...]]]

FEELINGS = ["none", "auto", *(name for name in EMOTIONS if name != "none")]
SEED = ("INT", {"default": 42, "min": 0, "max": 2**63 - 1, "control_after_generate": True})
FRAME_RATE = ("FLOAT", {"default": FPS, "min": 1.0, "max": 120.0, "step": 0.01})
SIZE = ("INT", {"default": 512, "min": 64, "max": 4096, "step": 2, "tooltip": "the longer side"})


def gain(what: str) -> tuple[str, dict[str, Any]]:
    """A slider that multiplies `what`."""
    limits = {"default": 1.0, "min": 0.0, "max": 3.0, "step": 0.05}
    return "FLOAT", {**limits, "tooltip": f"multiplies {what}"}


SPEAKING = {
    "emotion": (FEELINGS, {"tooltip": "auto: heard in the voice"}),
    "intensity": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
    "head_motion": gain("how far the head moves"),
    "seed": SEED,
}
OVER_TIME = {
    "emotions": (
        "STRING",
        {"default": "", "tooltip": "instead of one emotion: 0:neutral,2.5:happy@0.8"},
    )
}


class Progress:
    """ComfyUI's bar and its interruption, one look at both for each thing done."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, _phase: str, done: int, total: int | None) -> None:
        """So much is done of a total that may not be known yet. Raises what ComfyUI interrupts by.

        The bar shows the longest of the phases.
        """
        check_interrupt()
        if ProgressBar and total and total > 1:
            self.bar = self.bar or ProgressBar(total)
            self.bar.update_absolute(done, total)

    def following(self, frames: Iterable[np.ndarray], total: int) -> Iterable[np.ndarray]:
        """The same frames, each counted."""
        for done, frame in enumerate(frames, 1):
            self("drawing", done, total)
            yield frame


class Node:
    """What ComfyUI asks of every node."""

    NAME: ClassVar[str]
    FUNCTION = "run"
    CATEGORY = "MoDA"


class ModaLoadModel(Node):
    """The networks, loaded once for every clip after."""

    NAME = "MoDA Load Model"
    RETURN_TYPES = ("MODA_PIPELINE",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """As `moda generate --model --renderer --device`."""
        return {
            "required": {
                "model": (["auto", "mini", "moda"], {"tooltip": "mini comes with the package"}),
                "renderer": (["auto", "rig", "liveportrait"],),
                "device": (["auto", "cpu", "cuda", "mps"],),
            },
            "optional": {"run": ("STRING", {"default": "", "tooltip": "a model of `moda train`"})},
        }

    def run(self, model: str, renderer: str, device: str, run: str = "") -> tuple[moda.Pipeline]:
        """Fetch what is missing, and load."""
        with in_words():
            return (load(run or model, device, renderer),)


class ModaSpeechToMotion(Node):
    """How a face moves to a voice; not a pixel yet."""

    NAME = "MoDA Speech to Motion"
    RETURN_TYPES = ("MODA_MOTION",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """As `moda generate`."""
        given = {"pipeline": ("MODA_PIPELINE",), "portrait": ("IMAGE",), "audio": ("AUDIO",)}
        return {"required": {**given, **SPEAKING}, "optional": OVER_TIME}

    def run(
        self, pipeline: moda.Pipeline, portrait: Tensor, audio: Audio, **speaking: Any
    ) -> tuple[moda.Recording]:
        """Sample it."""
        asked = options(**speaking)
        with in_words():
            made = pipeline.motion(picture(portrait), sound(audio), on_phase=Progress(), **asked)
        return (made,)


class ModaEditMotion(Node):
    """Larger, smaller, calmer, faster."""

    NAME = "MoDA Edit Motion"
    RETURN_TYPES = ("MODA_MOTION",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """As `moda_cli.scale`, `smooth` and `retime`."""
        return {
            "required": {
                "motion": ("MODA_MOTION",),
                "lips": gain("how far speech moves the mouth"),
                "face": gain("the rest of the expression"),
                "head": gain("how far the head turns"),
                "smooth": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 2.0, "step": 0.02}),
                "speed": ("FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.05}),
            }
        }

    def run(
        self,
        motion: moda.Recording,
        lips: float,
        face: float,
        head: float,
        smooth: float,
        speed: float,
    ) -> tuple[moda.Recording]:
        """In this order; smooth is in seconds."""
        edited = moda.smooth(moda.scale(motion, lips=lips, face=face, head=head), smooth)
        return (moda.retime(edited, speed) if speed != 1 else edited,)


class ModaMixMotion(Node):
    """A share of another motion in the parts that are chosen."""

    NAME = "MoDA Mix Motion"
    RETURN_TYPES = ("MODA_MOTION",)

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """As `moda_cli.mix`."""
        chosen = ("BOOLEAN", {"default": True})
        return {
            "required": {
                "motion": ("MODA_MOTION",),
                "other": ("MODA_MOTION",),
                "share": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.05}),
                "lips": chosen,
                "face": chosen,
                "head": chosen,
            }
        }

    def run(
        self, motion: moda.Recording, other: moda.Recording, share: float, **parts: bool
    ) -> tuple[moda.Recording]:
        """As long as the shorter."""
        return (moda.mix(motion, other, share, [part for part in parts if parts[part]]),)


class ModaRender(Node):
    """Motion drawn on a portrait."""

    NAME = "MoDA Render"
    RETURN_TYPES = ("IMAGE", "FLOAT")
    RETURN_NAMES = ("frames", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """As `moda generate --motion`."""
        given = {"pipeline": ("MODA_PIPELINE",), "portrait": ("IMAGE",), "motion": ("MODA_MOTION",)}
        return {"required": {**given, "fps": FRAME_RATE, "size": SIZE}}

    def run(
        self,
        pipeline: moda.Pipeline,
        portrait: Tensor,
        motion: moda.Recording,
        fps: float,
        size: int,
    ) -> tuple[Tensor, float]:
        """(T, H, W, 3), and their rate."""
        seconds = len(motion.motion) / FPS
        silence = np.zeros(round(seconds * SAMPLE_RATE), np.float32), SAMPLE_RATE
        asked = {"motion": motion, "fps": fps, "size": size}
        with in_words():
            frames = pipeline.stream(picture(portrait), silence, **asked)
            shown = Progress().following(frames, math.ceil(seconds * fps))
            drawn = torch.stack([torch.from_numpy(frame) for frame in shown])
        return drawn.float().div_(255), fps


class ModaTalkingHead(Node):
    """All in one: a portrait and a voice in, frames and the voice out."""

    NAME = "MoDA Talking Head"
    RETURN_TYPES = ("IMAGE", "AUDIO", "FLOAT")
    RETURN_NAMES = ("frames", "audio", "fps")

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        """As `moda generate`."""
        given = {"pipeline": ("MODA_PIPELINE",), "portrait": ("IMAGE",), "audio": ("AUDIO",)}
        return {
            "required": {**given, **SPEAKING, "fps": FRAME_RATE, "size": SIZE},
            "optional": OVER_TIME,
        }

    def run(
        self,
        pipeline: moda.Pipeline,
        portrait: Tensor,
        audio: Audio,
        fps: float,
        size: int,
        **speaking: Any,
    ) -> tuple[Tensor, Audio, float]:
        """Its motion as of Speech to Motion, drawn as by Render."""
        (motion,) = ModaSpeechToMotion().run(pipeline, portrait, audio, **speaking)
        return ModaRender().run(pipeline, portrait, motion, fps, size)[0], audio, fps


NODES = (
    ModaLoadModel,
    ModaSpeechToMotion,
    ModaEditMotion,
    ModaMixMotion,
    ModaRender,
    ModaTalkingHead,
)


@lru_cache(maxsize=1)
def load(model: str, device: str, renderer: str) -> moda.Pipeline:
    """The networks of several workflows once."""
    return moda.Pipeline.load(model, device, renderer)


@contextmanager
def in_words() -> Iterator[None]:
    """Errors with their hints, for ComfyUI shows one text."""
    try:
        yield
    except moda.ModaError as error:
        raise RuntimeError(f"{error}\n{error.hint}".strip()) from error


def options(emotion: str, emotions: str = "", intensity: float = 1.0, **others: Any) -> Any:
    """Options of `generate`."""
    share = "" if emotion in ("none", "auto") or intensity == 1 else f"@{intensity:g}"
    return {"emotion": emotions.strip() or emotion + share, **others}


def picture(image: Tensor) -> np.ndarray:
    """The one picture of an IMAGE, uint8 (H, W, 3 or 4)."""
    if len(image) != 1:
        raise RuntimeError(f"portrait holds {len(image)} pictures\ngive one, by Image From Batch")
    return (image[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def sound(audio: Audio) -> tuple[np.ndarray, int]:
    """Samples (T, C) and their rate of an AUDIO."""
    return audio["waveform"][0].T.cpu().numpy(), int(audio["sample_rate"])
