"""What the mesh's measures are worth: asked motion, drawn by the rig, measured and read again.

    python -m benchmarks.mesh_motion PORTRAIT...

prints the table of `face/mesh_motion.py` for these portraits, and the correlation of what was asked
with what is read by tables of the others: each articulator alone, and all of them at once as the
bundled model moves them in speech with emotions, and at random.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from moda_cli import media
from moda_cli.choice import BUNDLED
from moda_cli.config import RenderConfig, SamplerConfig
from moda_cli.control.timeline import parse_emotion
from moda_cli.data.synthetic.behaviour import gaussian
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.face.mesh_motion import MEASURES, TABLE, measure_face, off_rest, rest_motion
from moda_cli.face.portrait import frame_portrait
from moda_cli.face.search import choose_face, find_faces
from moda_cli.generator.model import MotionGenerator
from moda_cli.generator.takes import causal_take, sample
from moda_cli.media.pictures import Picture
from moda_cli.motion import ARTICULATORS, EXPRESSION, POSE, decode, encode
from moda_cli.render.rig.rig import Rig

ASKED = (*ARTICULATORS, "pitch", "yaw", "roll", "gaze_x", "gaze_y")
READ = (*ARTICULATORS, "gaze_x")
LOW = np.array([-8, -20, -3, -0.3, -4, -4, -8, -14, -7, -9, -7, -0.9, -0.9])
HIGH = np.array([60, 15, 9, 0.9, 13, 13, 14, 2, 7, 9, 7, 0.9, 0.9])
USUAL = np.array([12, 4, 2, 0.2, 1, 1, 4, 3, 3, 5, 3, 0.4, 0.25])  # standard deviations
MIDDLE = np.array([12, -2, 1, 0.1, 0, 0, 1, -2, 0, 0, 0, 0, 0])
ALONE = 48  # frames of each articulator
EMOTIONS = (
    "0:neutral,2.5:happy,5:surprise,7.5:anger",
    "0:sad,2.5:none,5:anger,7.5:happy",
    "0:happy,2.5:sad,5:disgust,7.5:none",
    "0:none,2.5:fear,5:happy@.6,7.5:contempt",
)
SMOOTHED = 0.75  # frames, standard deviation
RIDGE = 3e-3
MOUTH = ("gap", "width", "corners", "upper_lip", "upper_thick", "lower_thick", "chin")
BROWS = ("outer_brows", "inner_brows", "brows_apart", "cheeks")
TOGETHER = ("spread", "round")  # both narrow the mouth: what one lacks the other has
FROM = {  # what each may be read from
    **dict.fromkeys(("jaw", "spread", "round"), MOUTH),
    "smile": (*MOUTH, "cheeks"),
    "lid_a": ("eye_a",),
    "lid_b": ("eye_b",),
    **dict.fromkeys(("brow_up", "brow_frown"), BROWS),
    "gaze_x": ("look_x",),
}

Rows = NDArray[np.float64]
Sets = dict[str, tuple[Rows, Rows]]  # by kind: what was asked (T, 13), measured off rest (T, 18)
Table = Mapping[str, Mapping[str, float]]


def wander(length: int, width: float, columns: int, rng: Generator) -> Rows:
    """Smooth noise (length, columns) of deviation 1."""
    reach = int(4 * width)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
    kernel /= np.sqrt(np.square(kernel).sum())
    noise = rng.standard_normal((length + 2 * reach, columns))
    return np.stack([np.convolve(column, kernel, mode="valid") for column in noise.T], axis=1)


def alone(rng: Generator) -> Rows:
    """Each of ASKED by itself, from rest and back."""
    fade = np.minimum(1, np.minimum(np.arange(ALONE), np.arange(ALONE)[::-1]) / 6)
    rows = np.zeros((len(ASKED), ALONE, len(ASKED)))
    for k, (low, high) in enumerate(zip(LOW, HIGH, strict=True)):
        share = np.clip(0.5 + 0.33 * wander(ALONE, 4, 1, rng)[:, 0], 0, 1)
        rows[k, :, k] = (low + (high - low) * share) * fade
    return rows.reshape(-1, len(ASKED))


def at_once(rng: Generator, length: int = 220) -> Rows:
    """All of them, none bound to another, and blinks."""
    rows = wander(length, 3, len(ASKED), rng) * USUAL + MIDDLE
    blinks = np.clip((wander(length, 2, 1, rng) - 0.8) * 14, 0, 13)
    rows[:, [ARTICULATORS.index("lid_a"), ARTICULATORS.index("lid_b")]] += blinks
    rows[:, -2:] = rows[:, -2:].clip(-1, 1)
    return rows * np.minimum(np.arange(length) / 12, 1)[:, None]


def spoken(speech: Path, number: int, rng: Generator) -> Rows:
    """As the bundled model moves them, and a gaze."""
    model = MotionGenerator.load(BUNDLED, torch.device("cpu"))
    wave = media.read_audio(speech)[: 10 * 16_000]
    timeline = parse_emotion(EMOTIONS[number % len(EMOTIONS)])
    take = causal_take(model, wave, timeline, SamplerConfig(seed=number))
    offset = torch.cat(list(sample(model, take))) - model.stats.neutral
    units = decode(offset[:, EXPRESSION].double()).numpy()
    gaze = wander(len(units), 4, 2, rng) * USUAL[-2:]
    return np.column_stack((units, offset[:, POSE].numpy(), gaze.clip(-1, 1)))


def drawn(picture: Picture, face: FaceLandmarks, asked: Rows) -> Rows:
    """The measures (T, 18) off rest of a portrait that moves as asked (T, 13)."""
    rest = rest_motion()
    motion = rest.repeat(len(asked), 1)
    count = len(ARTICULATORS)
    motion[:, EXPRESSION] += encode(torch.from_numpy(asked[:, :count])).float()
    motion[:, POSE] += torch.from_numpy(asked[:, count : count + 3]).float()
    mesh = follow_mesh(picture, follow_mesh(picture, Mesh(face.mesh)))
    still = measure_face(mesh.points)
    rows = []
    for frame in Rig(picture, face, rest).render(motion, torch.from_numpy(asked[:, -2:])):
        mesh = follow_mesh(frame, mesh)
        rows.append(measure_face(mesh.points))
    smooth = np.stack([gaussian(column, SMOOTHED) for column in np.array(rows).T], axis=1)
    return off_rest(smooth, still)


def draw(portrait: Path, speech: Path, number: int) -> Sets:
    """All that is asked of one portrait."""
    picture = media.read_image(portrait, "white")[..., :3]
    face = choose_face(find_faces(picture), "largest")
    picture, face = frame_portrait(picture, face, RenderConfig(full_frame=False, size=320))
    rng = np.random.default_rng(number)
    asked = {"alone": alone(rng), "speech": spoken(speech, number, rng), "random": at_once(rng)}
    return {kind: (rows, drawn(picture, face, rows)) for kind, rows in asked.items()}


def fit(sets: Sequence[Sets]) -> dict[str, dict[str, float]]:
    """The table for what was drawn: ridge regression on the measures that each is read from.

    Uncertain measures make a regression timid; each is enlarged to what was asked on the whole.
    """
    asked, off = (np.vstack([rows[k] for one in sets for rows in one.values()]) for k in (0, 1))
    table = {}
    for name in READ:
        columns = off[:, [MEASURES.index(measure) for measure in FROM[name]]]
        scale = columns.std(axis=0)
        columns = columns / scale
        gram = columns.T @ columns + RIDGE * len(columns) * np.eye(len(scale))
        wanted = asked[:, ASKED.index(name)]
        worth = np.linalg.solve(gram, columns.T @ wanted)
        if name not in TOGETHER:
            worth = worth / np.polyfit(wanted, columns @ worth, 1)[0]
        worth = worth / scale
        table[name] = dict(zip(FROM[name], worth.tolist(), strict=True))
    return {**table, "gaze_y": TABLE["gaze_y"]}  # the rig hardly moves eyes up and down


def read(table: Table, name: str, off: Rows) -> Rows:
    """What a table makes of measures (T, 18) off rest."""
    if name in ("pitch", "yaw", "roll"):
        return off[:, MEASURES.index(name)] * (-1 if name == "yaw" else 1)
    return np.asarray(sum(worth * off[:, MEASURES.index(m)] for m, worth in table[name].items()))


def agreement(table: Table, sets: Sets) -> dict[str, list[float]]:
    """Correlation of asked with read by kind, in the order of ASKED; nan where little is asked."""
    found = {}
    for kind, (asked, off) in sets.items():
        values = []
        for k, name in enumerate(ASKED):
            rows = slice(k * ALONE, (k + 1) * ALONE) if kind == "alone" else slice(None)
            moved = asked[rows, k].std() >= USUAL[k] / 4
            pair = asked[rows, k], read(table, name, off[rows])
            values.append(float(np.corrcoef(*pair)[0, 1]) if moved else float("nan"))
        found[kind] = values
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("portraits", nargs="+", type=Path)
    examples = Path(__file__).parents[1] / "examples"
    parser.add_argument("--speech", type=Path, default=examples / "speech.wav")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    sets = [draw(path, given.speech, k) for k, path in enumerate(given.portraits)]
    tables = [fit(sets[:k] + sets[k + 1 :]) if sets[1:] else TABLE for k in range(len(sets))]
    report(list(map(agreement, tables, sets)))
    print_table(fit(sets))


def report(found: Sequence[dict[str, list[float]]]) -> None:
    """Means over the portraits, and the least."""
    print(" " * 14 + " ".join(f"{name:>10}" for name in ASKED))
    for kind in found[0]:
        values = np.array([one[kind] for one in found])
        for word, rows in (("", np.nanmean(values, axis=0)), ("least", np.nanmin(values, axis=0))):
            print(f"{kind:8}{word:6}" + " ".join(f"{value:10.2f}" for value in rows))


def print_table(table: Table) -> None:
    for name, row in table.items():
        cells = ", ".join(f'"{measure}": {worth:.4g}' for measure, worth in row.items())
        print(f'    "{name}": {{{cells}}},')


if __name__ == "__main__":
    main()
