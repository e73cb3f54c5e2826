"""ComfyUI's nodes: what it asks of a node, and its example workflow run through them."""

import importlib
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import moda_cli as moda
from moda_cli.media.pictures import read_image

EXAMPLES = Path(__file__).parents[1] / "examples"
WORKFLOW = json.loads((EXAMPLES / "comfyui" / "workflow.json").read_text())
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")
NAMES = {node["type"] for node in WORKFLOW["nodes"] if node["type"].startswith("Moda")}

STAND_IN = """
class ProgressBar:
    seen = []
    def __init__(self, total):
        self.total = total
    def update_absolute(self, value, total=None, preview=None):
        self.seen.append((value, total or self.total))

class Interrupted(Exception): ...

after = None

def throw_exception_if_processing_interrupted():
    if after is not None and len(ProgressBar.seen) >= after:
        raise Interrupted
"""


@pytest.fixture(scope="module")
def hooks() -> Iterator[ModuleType]:
    """What the nodes import of ComfyUI, which is no package of an index."""
    hooks = ModuleType("comfy")
    exec(STAND_IN, hooks.__dict__)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        for name in ("comfy", "comfy.utils", "comfy.model_management"):
            patch.setitem(sys.modules, name, hooks)
        yield hooks


@pytest.fixture(scope="module")
def nodes(hooks: ModuleType) -> dict[str, Any]:
    return importlib.import_module("comfyui").NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def portrait() -> torch.Tensor:
    return torch.from_numpy(read_image(EXAMPLES / "portrait.png"))[None].float() / 255


@pytest.fixture(scope="module")
def audio() -> dict[str, Any]:
    """0.8 s in two channels."""
    wave, rate = soundfile.read(EXAMPLES / "speech.wav", dtype="float32")
    return {
        "waveform": torch.from_numpy(wave[16_000:28_800]).expand(1, 2, -1),
        "sample_rate": rate,
    }


@pytest.fixture(scope="module")
def made(nodes: dict[str, Any], portrait: torch.Tensor, audio: dict[str, Any]) -> dict[str, Any]:
    """What every node of the workflow gave; ComfyUI's own read and write files."""
    given: dict[int, Any] = {}
    links = {link[0]: link[1:] for link in WORKFLOW["links"]}
    own = {"LoadImage": (portrait, None), "LoadAudio": (audio,)}

    def run(number: int) -> tuple[Any, ...]:
        node = next(node for node in WORKFLOW["nodes"] if node["id"] == number)
        if number not in given:
            given[number] = own.get(node["type"]) or nodes[node["type"]]().run(**inputs(node))
        return given[number]

    def inputs(node: dict[str, Any]) -> dict[str, Any]:
        kinds = nodes[node["type"]].INPUT_TYPES()
        kinds = {**kinds["required"], **kinds.get("optional", {})}
        linked = {i["name"]: links[i["link"]] for i in node["inputs"] if i.get("link")}
        asked = {name: run(source)[slot] for name, (source, slot, *_) in linked.items()}
        values = iter(node["widgets_values"])
        for name, (kind, *more) in kinds.items():
            if isinstance(kind, list) or kind in WIDGETS:
                asked[name] = next(values)
                if more and more[0].get("control_after_generate"):
                    assert next(values) == "fixed"
        assert list(values) == []
        return {**asked, "size": 64} if "size" in asked else asked

    for node in WORKFLOW["nodes"]:
        if node["type"] in NAMES:
            run(node["id"])
    return {node["type"]: given[node["id"]] for node in WORKFLOW["nodes"] if node["id"] in given}


def test_every_node_is_as_comfyui_wants_it(nodes: dict[str, Any]) -> None:
    package = sys.modules["comfyui"]
    assert set(package.NODE_DISPLAY_NAME_MAPPINGS) == set(nodes) >= NAMES
    for node in nodes.values():
        kinds = node.INPUT_TYPES()
        assert set(kinds) <= {"required", "optional"}
        signature = inspect.signature(getattr(node, node.FUNCTION))
        signature.bind(node(), **kinds["required"])
        signature.bind(node(), **kinds["required"], **kinds.get("optional", {}))
        assert len(node.RETURN_TYPES) == len(getattr(node, "RETURN_NAMES", node.RETURN_TYPES))
        for kind, *more in [*kinds["required"].values(), *kinds.get("optional", {}).values()]:
            if more and "min" in more[0]:
                assert more[0]["min"] <= more[0]["default"] <= more[0]["max"]
            assert isinstance(kind, list) or kind.isupper()


def test_the_example_workflow_makes_frames_that_speak(made: dict[str, Any]) -> None:
    frames, fps = made["ModaRender"]
    assert (frames.shape, frames.dtype, fps) == ((20, 64, 64, 3), torch.float32, 25)
    assert 0 <= frames.min() < 0.2
    assert 0.8 < frames.max() <= 1
    assert (frames[1:] - frames[:-1]).abs().amax(dim=(1, 2, 3)).max() > 0.1


def test_all_in_one_makes_the_same_and_hands_the_sound_on(
    nodes: dict[str, Any], made: dict[str, Any], portrait: torch.Tensor, audio: dict[str, Any]
) -> None:
    asked = {"emotion": "happy", "intensity": 1.0, "head_motion": 1.0, "seed": 42}
    (pipeline,) = made["ModaLoadModel"]
    frames, heard, fps = nodes["ModaTalkingHead"]().run(
        pipeline, portrait, audio, fps=50.0, size=64, **asked
    )
    assert (len(frames), fps, heard) == (40, 50, audio)
    assert torch.equal(frames[::2][1:-1], made["ModaRender"][0][1:-1])


def test_motion_is_edited_and_mixed(nodes: dict[str, Any], made: dict[str, Any]) -> None:
    (motion,), edit = made["ModaSpeechToMotion"], nodes["ModaEditMotion"]()
    (still,) = edit.run(motion, lips=0, face=0, head=0, smooth=0, speed=1)
    offset = (still.motion - still.neutral)[:, [*range(63), 67, 68, 69]]
    assert offset.abs().max() < 1e-6
    (fast,) = edit.run(motion, lips=1, face=1, head=1, smooth=0, speed=2)
    assert len(fast.motion) == 10
    mix = nodes["ModaMixMotion"]()
    (mixed,) = mix.run(motion, still, share=1, lips=False, face=False, head=True)
    assert torch.equal(mixed.motion[:, :63], motion.motion[:, :63])
    assert torch.allclose(mixed.motion[:, 67:], still.motion[:, 67:])


def test_faults_are_told_in_words(
    nodes: dict[str, Any], made: dict[str, Any], portrait: torch.Tensor
) -> None:
    (pipeline,), (motion,) = made["ModaLoadModel"], made["ModaSpeechToMotion"]
    render = nodes["ModaRender"]()
    with pytest.raises(RuntimeError, match="2 pictures\ngive one"):
        render.run(pipeline, portrait.expand(2, -1, -1, -1), motion, 25, 64)
    with pytest.raises(RuntimeError, match="no face"):
        render.run(pipeline, torch.zeros(1, 96, 96, 3), motion, 25, 64)
    with pytest.raises(RuntimeError, match="nowhere"):
        nodes["ModaLoadModel"]().run("mini", "auto", "cpu", run="nowhere")


def test_its_bar_is_moved_and_its_interruption_heard(
    nodes: dict[str, Any], made: dict[str, Any], portrait: torch.Tensor, hooks: ModuleType
) -> None:
    (pipeline,), (motion,) = made["ModaLoadModel"], made["ModaSpeechToMotion"]
    hooks.ProgressBar.seen.clear()
    nodes["ModaRender"]().run(pipeline, portrait, motion, 25, 64)
    assert hooks.ProgressBar.seen == [(n, 20) for n in range(1, 21)]
    hooks.after = 23
    with pytest.raises(hooks.Interrupted):
        nodes["ModaRender"]().run(pipeline, portrait, motion, 25, 64)
    hooks.after = None
    assert len(hooks.ProgressBar.seen) == 23


def test_an_opaque_and_a_cut_out_portrait_are_taken(
    nodes: dict[str, Any], made: dict[str, Any], portrait: torch.Tensor
) -> None:
    (pipeline,), (motion,) = made["ModaLoadModel"], made["ModaSpeechToMotion"]
    short = moda.Recording(motion.motion[:2], motion.neutral, motion.absolute)
    alpha = torch.cat((portrait, torch.ones_like(portrait[..., :1])), dim=-1)
    plain, cut = (
        nodes["ModaRender"]().run(pipeline, p, short, 25, 64)[0] for p in (portrait, alpha)
    )
    np.testing.assert_allclose(plain, cut, atol=1 / 255)
