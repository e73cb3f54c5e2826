"""Networks by rule, installed as downloads are, and videos of faces that they can follow."""

import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from onnx import helper
from safetensors.torch import save_file
from torch import Tensor, nn

from by_rule import key_table, state_by_rule
from face_by_rule import MOUTH_DROP, draw_face, save, save_landmarks
from installed import install_weights
from liveportrait_by_rule import released_shapes
from moda_cli.config import SAMPLE_RATE
from moda_cli.face.extractors import MotionExtractor

SMALL_MOTION = {"depths": [1, 1, 1, 1], "widths": [8, 16, 24, 32]}
SMALL_HUBERT = {"conv_dim": 48, "hidden_dim": 32, "num_heads": 4, "mlp_dim": 96}
NAMES = ("face_landmarks", "motion_extractor", "speech_encoder")
NAMES += ("hsemotion", "s3fd", "syncnet")
SPEECH = Path(__file__).parents[2] / "examples" / "speech.wav"  # 10 s

Picture = NDArray[np.uint8]


def make_networks(folder: Path) -> dict[str, Path]:
    """Files of the components, the two large ones small."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.safetensors" for name in NAMES}
    paths["face_landmarks"] = folder / "points.onnx"
    save_landmarks(paths["face_landmarks"])
    save_file(motion_state(MotionExtractor(**SMALL_MOTION)), paths["motion_extractor"])
    save_file(state_by_rule(key_table("hubert_small.json")), paths["speech_encoder"])
    return {name: path for name, path in paths.items() if path.exists()}


def save_classifier(path: Path) -> None:
    """input (1, 3, 224, 224) to logits (1, 8) that say how red, green and blue it is."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Reshape", ["mean", "row"], ["colour"]),
        helper.make_node("MatMul", ["colour", "weights"], ["logits"]),
    ]
    weights = np.random.default_rng(0).standard_normal((3, 8))
    save(path, nodes, (1, 3, 224, 224), {"logits": (1, 8)}, {"row": [1, 3], "weights": weights})


def motion_state(network: nn.Module) -> dict[str, Tensor]:
    return state_by_rule(released_shapes(network))


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, files: Mapping[str, Path]) -> None:
    """A weights.toml and a cache in which these files are recorded as fetched."""
    configs = {"motion_extractor": SMALL_MOTION, "speech_encoder": SMALL_HUBERT}
    install_weights(monkeypatch, folder, files, NAMES, "train", configs)


def picture(grey: int, *faces: tuple[float, float], iod: float = 44.0) -> Picture:
    """640 x 360, with faces whose middles between pupils and mouth are there."""
    frame = np.full((360, 640, 3), grey, np.uint8)
    for x, y in faces:
        half = MOUTH_DROP * iod / 2
        feet = np.array([[x - iod / 2, y - half], [x + iod / 2, y - half], [x, y + half]])
        left, top = max(0, round(x) - 100), max(0, round(y) - 100)
        draw_face(frame[top : top + 200, left : left + 200], feet - [left, top])
    return frame


def talking(count: int, grey: int = 40, x: float = 320.0, sway: float = 12.0) -> Iterable[Picture]:
    """One face that sways."""
    for k in range(count):
        yield picture(grey, (x + sway * np.sin(k / 9), 180.0))


def speech(seconds: float) -> NDArray[np.float32]:
    """The example's 10 s, again and again."""
    wave, _ = soundfile.read(SPEECH, dtype="float32")
    return np.resize(wave, round(seconds * SAMPLE_RATE))


def write_video(
    path: Path, frames: Iterable[Picture], wave: NDArray[np.float32] | None, fps: float = 25
) -> Path:
    """A lossless Matroska file."""
    frames = list(frames)
    height, width = frames[0].shape[:2]
    path.parent.mkdir(parents=True, exist_ok=True)
    sound, codec = [], []
    if wave is not None:
        soundfile.write(path.with_suffix(".wav"), wave, SAMPLE_RATE)
        sound, codec = ["-i", str(path.with_suffix(".wav"))], ["-c:a", "pcm_s16le"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "rawvideo"]
    command += ["-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-", *sound]
    command += ["-c:v", "libx264rgb", "-qp", "0", "-preset", "ultrafast", *codec, str(path)]
    subprocess.run(command, input=b"".join(frame.tobytes() for frame in frames), check=True)
    path.with_suffix(".wav").unlink(missing_ok=True)
    return path


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
