"""`moda extract --motion mesh`: one speaker's own recordings, without a download."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from driving import asked, column, correlations, drawn
from extract_bench import speech, write_video
from moda_cli.choice import BUNDLED
from moda_cli.cli import app
from moda_cli.config import FPS
from moda_cli.control.blinks import CLOSED_LID, closure
from moda_cli.data.annotations import LAST_PIECE_S
from moda_cli.extract.index import write_index
from moda_cli.extract.stretches import Stretch
from moda_cli.face.mesh_motion import MEASURES
from moda_cli.motion import EXPRESSION, POSE, Stats, decode
from moda_cli.train.clip_files import read_index
from moda_cli.train.dataset import feature_stats
from moda_cli.train.presets import MINI

FRAMES = 100


@pytest.fixture(scope="module")
def wanted() -> np.ndarray:
    """A mouth that is shut now and then, two blinks and a head that sways."""
    t = np.arange(FRAMES) / FPS
    jaw = 30 * np.clip(np.sin(2 * np.pi * 1.9 * t), 0, 1) * (t > 0.4)
    lids = CLOSED_LID * closure([30, 70], 0, FRAMES).numpy()
    sway = 4 * np.sin(2 * np.pi * 0.5 * t)
    return asked(FRAMES, jaw=jaw, lid_a=lids, lid_b=lids, yaw=sway)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, wanted: np.ndarray) -> Path:
    """Extracted by the command from a video of our own rig's, with sound that speaks."""
    folder = tmp_path_factory.mktemp("mesh")
    write_video(folder / "me" / "take.mkv", drawn(wanted), speech(FRAMES / FPS))
    command = ["extract", str(folder / "me"), "--motion", "mesh", "-o", str(folder / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    return folder / "out"


def test_features_are_what_was_drawn_off_the_bundled_models_rest(
    features: Path, wanted: np.ndarray
) -> None:
    (path,) = features.glob("*.safetensors")
    clip, neutral = load_file(path), Stats.read(BUNDLED / "stats.json").neutral
    assert torch.equal(clip["neutral"], neutral)
    off = (clip["motion"] - neutral).double()
    found = np.column_stack(
        [decode(off[:, EXPRESSION]).numpy(), off[:, POSE].numpy(), np.zeros((len(off), 2))]
    )
    alike = correlations(wanted, found)
    assert all(alike[name] > 0.95 for name in ("jaw", "lid_a", "lid_b", "yaw")), alike
    still = np.abs(column(found, "jaw")[column(wanted, "jaw") == 0])
    assert np.median(still) < 3


def test_they_train_what_starts_from_the_bundled_model(features: Path) -> None:
    (row,) = [json.loads(line) for line in (features / "index.jsonl").read_text().splitlines()]
    assert (row["options"]["audio"], row["options"]["motion"]) == ("logmel", "mesh")
    assert row["options"]["networks"] == {}
    assert row["split"] == "train"  # a lone clip is for learning
    clips = read_index(features, "train", MINI.window)
    stats = feature_stats(clips, MINI)
    assert torch.equal(stats.neutral, Stats.read(BUNDLED / "stats.json").neutral)


def test_long_takes_become_pieces_of_which_the_last_are_held_out(tmp_path: Path) -> None:
    crops, measures = np.zeros((1501, 3)), np.zeros((1501, len(MEASURES)))
    long = Stretch(10, 1511, "", crops, crops[:, 0], measures)
    pieces = long.pieces(LAST_PIECE_S)
    assert [piece.start for piece in pieces[1:]] == [piece.stop for piece in pieces[:-1]]
    assert (pieces[0].start, pieces[-1].stop) == (10, 1511)
    assert {len(piece) for piece in pieces} <= {300, 301}
    assert all(len(p.crops) == len(p.openness) == len(p.measures) == len(p) for p in pieces)
    assert long.pieces(61) == [long]
    lost = Stretch(0, 1501, "no face", crops, crops[:, 0], measures)
    assert lost.pieces(1) == [lost]

    held = {}
    for count in (1, 2, 5, 11):
        out = tmp_path / str(count)
        (out / ".jobs").mkdir(parents=True)
        labels = {"speaker": "me", "split": "clips"}
        record = {
            "labels": labels,
            "rows": [{"clip": f"c{k}"} for k in range(count)],
            "dropped": [],
        }
        (out / ".jobs" / "take.json").write_text(json.dumps(record))
        made, _ = write_index(out, {}, {})
        held[count] = [row["split"] for row in made]
    assert held[1] == ["train"]
    assert held[2] == ["train", "test"]
    assert held[5] == ["train"] * 4 + ["test"]
    assert held[11] == ["train"] * 9 + ["test"] * 2
