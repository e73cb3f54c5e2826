"""Every emotion on the same speech, one frame each: `python examples/emotions.py OUT.jpg`."""

import sys
from pathlib import Path

import torch

from moda_cli import media
from moda_cli.config import EMOTIONS, SamplerConfig
from moda_cli.face.search import choose_face, find_faces
from moda_cli.generator.takes import causal_take, sample
from moda_cli.media import figures
from moda_cli.pipeline import Pipeline
from moda_cli.render.rig.rig import Rig

HERE = Path(__file__).parent
MOMENT = 60  # frame shown: an open vowel of the example's speech


def main() -> None:
    """Sample the motion of each class with one seed and render one frame of it."""
    model = Pipeline.load("mini", "cpu").model
    picture = media.read_image(HERE / "portrait.png")
    wave = media.read_audio(HERE / "speech.wav")
    rig = Rig(picture, choose_face(find_faces(picture), "largest"), model.stats.neutral)
    shots = []
    for label in range(len(EMOTIONS) - 1):
        take = causal_take(model, wave, [(0.0, label)], SamplerConfig())
        motion = torch.cat(list(sample(model, take)))
        (frame,) = rig.render(motion[MOMENT : MOMENT + 1])
        shots.append(frame[90:440, 81:431])
    sheet = figures.contact_sheet(shots, 4, EMOTIONS[:-1])
    media.write_image(Path(sys.argv[1]), sheet)


if __name__ == "__main__":
    main()
