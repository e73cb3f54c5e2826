"""A clip that would spoil a run is named before the run begins."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from moda_cli.cli import app
from moda_cli.data.feature_files import content_fault
from moda_cli.errors import InputError
from moda_cli.train.clip_files import check_clips, clips_key, read_index
from moda_cli.train.loop import train
from toy_features import TINY, short, write_features


def altered(root: Path, clip: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    path = root / f"{clip}.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def labelled(root: Path, clip: str, **labels: Any) -> Path:
    rows = [json.loads(line) for line in (root / "index.jsonl").read_text().splitlines()]
    rows = [{**row, **labels} if row["clip"] == clip else row for row in rows]
    (root / "index.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root / f"{clip}.safetensors"


def put(name: str, place: tuple[int, ...], value: float) -> Callable[[dict[str, Any]], None]:
    return lambda tensors: tensors[name].__setitem__(place, value)


FAULTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a NaN in one frame": (
        lambda root: altered(root, "c2", put("motion", (57, 3), math.nan)),
        "motion is not finite at frame 57",
    ),
    "a NaN in a validation clip": (
        lambda root: altered(root, "c5", put("audio", (119, 1, 7), math.nan)),
        "audio is not finite at frame 119",
    ),
    "an infinite keypoint": (
        lambda root: altered(root, "c1", put("kp", (9,), -math.inf)),
        "kp is not finite",
    ),
    "another width": (
        lambda root: altered(root, "c3", lambda t: t.update(motion=t["motion"][:, :69])),
        "motion is 120 x 69, not 120 x 70",
    ),
    "fewer frames": (
        lambda root: altered(root, "c4", lambda t: t.update(motion=t["motion"][:100])),
        "it has 100 frames, and the index says 120",
    ),
    "sound of fewer frames": (
        lambda root: altered(root, "c4", lambda t: t.update(audio=t["audio"][:100])),
        "audio is 100 x 4 x 80 for 120 frames",
    ),
    "another kind in a later row": (
        lambda root: labelled(root, "c3", options={"audio": "hubert"}),
        "it holds hubert features of 4 x 80, and the model hears logmel of 4 x 80",
    ),
    "another size in a later row": (
        lambda root: altered(root, "c3", lambda t: t.update(audio=torch.zeros(120, 12, 768))),
        "it holds audio features of 12 x 768, and the model hears logmel of 4 x 80",
    ),
    "half a file": (
        lambda root: labelled(root, "c2") if truncate(root / "c2.safetensors") else root,
        "damaged: ",
    ),
    "no file": (
        lambda root: labelled(root, "c2") if not (root / "c2.safetensors").unlink() else root,
        "No such file",
    ),
}


def truncate(path: Path) -> int:
    return path.write_bytes(path.read_bytes()[:9000])


@pytest.mark.parametrize("fault", FAULTS)
def test_the_clip_is_named_and_nothing_starts(tmp_path: Path, fault: str) -> None:
    root = write_features(tmp_path / "features")
    spoil, words = FAULTS[fault]
    path = spoil(root)
    with pytest.raises(InputError) as caught:
        train(root, tmp_path / "run", short(), workers=0)
    assert str(caught.value).startswith(f"cannot train on {path}: ")
    assert words in str(caught.value)
    assert "take its line out of index.jsonl" in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_the_command_says_so_in_two_lines(tmp_path: Path) -> None:
    root = write_features(tmp_path / "features")
    for clip in ("c1", "c4"):
        altered(root, clip, put("motion", (3, 3), math.inf))
    run = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", str(root), "-o", str(run), "--config", "mini", "-q"])
    assert done.exit_code == 3
    error, hint = done.stderr.splitlines()
    assert error == (
        f"error: cannot train on {root / 'c1.safetensors'}: motion is not finite at frame 3; "
        "1 more cannot be used either"
    )
    assert hint.startswith("hint: extract it again")
    assert not run.exists()


def test_features_of_another_kind_throughout_are_the_model_s_fault(tmp_path: Path) -> None:
    clips = read_index(write_features(tmp_path), "train", 80)
    with pytest.raises(InputError, match="the model hears logmel of 2 x 80") as caught:
        check_clips(clips, replace(TINY, audio_layers=2))
    assert "--set model.audio" in caught.value.hint


def test_a_run_that_goes_on_reads_only_what_has_changed(tmp_path: Path) -> None:
    root, run, said = write_features(tmp_path / "features"), tmp_path / "run", []
    train(root, run, short(steps=2), workers=0, say=said.append)
    train(root, run, short(steps=2), workers=0, say=said.append)
    assert sum("checking 6 clips" in line for line in said) == 1
    altered(root, "c2", put("motion", (57, 3), math.nan))
    with pytest.raises(InputError, match="not finite at frame 57"):
        train(root, run, short(steps=2), workers=0, say=said.append)


def test_the_key_of_clips_follows_their_files(tmp_path: Path) -> None:
    clips = read_index(write_features(tmp_path), "train", 80)
    before = clips_key(clips)
    assert clips_key(clips) == before
    clips[3].path.write_bytes(b"")
    assert clips_key(clips) != before


def test_large_values_are_finite(tmp_path: Path) -> None:
    """Sums of half precision would overflow; their ends do not."""
    root = write_features(tmp_path)
    path = altered(root, "c0", lambda t: t["audio"].fill_(65504))
    assert content_fault(path, 120) is None
