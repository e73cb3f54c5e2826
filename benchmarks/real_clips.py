"""Do LivePortrait's real motion clips render through the rig as they were filmed?

`python -m benchmarks.real_clips --judge PYTHON --media DIR --out DIR` renders the ten clips of
`DIR/liveportrait_motion_clips.safetensors` on a few portraits, neutral = the clip's frame 0, tracks
the frames, correlates them with the ratios measured in the original videos, and looks for folds.
"""

import argparse
import json
import subprocess
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from moda_cli import media
from moda_cli.config import RenderConfig
from moda_cli.face.portrait import frame_portrait
from moda_cli.face.search import choose_face, find_faces
from moda_cli.media import figures
from moda_cli.motion import Motion, pack
from moda_cli.render.rig.rig import Rig

EXAMPLE = Path(__file__).parents[1] / "examples" / "portrait.png"
JUDGED = {"d5": "lip_ratio", "d8": "lip_ratio", "d7": "eye_ratio"}
SHEET_FRAMES = 8


def pose_from_rotation(rotation: Tensor) -> Tensor:
    """Pitch, yaw, roll in degrees (..., 3) of LivePortrait rotation matrices (..., 3, 3)."""
    m = rotation.mT
    pitch = torch.atan2(m[..., 2, 1], m[..., 2, 2])
    yaw = torch.asin((-m[..., 2, 0]).clamp(-1, 1))
    roll = torch.atan2(m[..., 1, 0], m[..., 0, 0])
    return torch.rad2deg(torch.stack((pitch, yaw, roll), dim=-1))


def clip_motion(tensors: dict[str, Tensor], name: str) -> Tensor:
    """Motion (T, 70) of one clip."""
    fields = (tensors[f"{name}.{part}"].float() for part in ("exp", "scale", "t"))
    expression, scale, translation = fields
    pose = pose_from_rotation(tensors[f"{name}.R"].float())
    return pack(Motion(expression, scale, translation, pose))


def correlations(track: dict[str, np.ndarray], name: str, ratio: np.ndarray) -> list[float]:
    """r of the tracked gap (or each eye) with the clip's own measured ratio."""
    seen = track["found"] > 0
    measured = track["gap"] if name == "lip_ratio" else track["eyes"]
    columns = measured.reshape(len(seen), -1).T
    truth = ratio.reshape(len(seen), -1).T
    return [
        float(np.corrcoef(a[seen], b[seen])[0, 1]) for a, b in zip(columns, truth, strict=False)
    ]


def main() -> None:
    """Render, track, print a table and write `real_clips.json` and contact sheets."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--judge", type=Path, required=True, help="Python with mediapipe")
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    tensors = load_file(arguments.media / "liveportrait_motion_clips.safetensors")
    names = sorted({key.split(".")[0] for key in tensors})

    rows = []
    for portrait in [EXAMPLE, *arguments.portraits]:
        picture = media.read_image(portrait)
        face = choose_face(find_faces(picture), "largest")
        picture, face = frame_portrait(picture, face, RenderConfig(full_frame=False))
        files = []
        for name in names:
            motion = clip_motion(tensors, name)
            rig = Rig(picture, face, motion[0])
            frames = list(rig.render(motion))
            files.append(arguments.out / f"{portrait.stem}_{name}.mp4")
            media.write_video(frames, files[-1], 25, crf=10)
            shown = np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int)
            sheet = figures.contact_sheet([frames[k] for k in shown], SHEET_FRAMES, [""] * 8)
            media.write_image(arguments.out / f"{portrait.stem}_{name}.png", sheet)
        tracker = Path(__file__).with_name("face_tracker.py")
        subprocess.run([arguments.judge, tracker, arguments.out, *files], check=True)
        for name in names:
            with np.load(arguments.out / f"{portrait.stem}_{name}.npz") as loaded:
                track = dict(loaded)
            row = {"portrait": portrait.stem, "clip": name, "found": float(track["found"].mean())}
            if name in JUDGED:
                ratio = tensors[f"{name}.{JUDGED[name]}"].numpy()
                row[JUDGED[name]] = correlations(track, JUDGED[name], ratio)
            rows.append(row)
            print(row)
    (arguments.out / "real_clips.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
