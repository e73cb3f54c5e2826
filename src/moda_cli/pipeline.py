"""From a portrait and a sound to a video: the only module that knows every stage."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli import __version__, figures, media
from moda_cli.config import CROP_SIZE, FPS, MAX_SIDE, ClipConfig, RenderConfig
from moda_cli.emotion import parse_emotion
from moda_cli.errors import DeviceError, InputError, UsageError, WeightsError
from moda_cli.features import face as faces
from moda_cli.features.audio import num_frames
from moda_cli.features.crops import warp
from moda_cli.features.lips import mouth_gap
from moda_cli.generator import MotionGenerator, sample_motion
from moda_cli.landmarks import FaceLandmarks
from moda_cli.motion import (
    ARTICULATORS,
    EXPRESSION,
    POSE,
    decode,
    encode,
    load_motion,
    resample,
    save_motion,
)
from moda_cli.render.rig import Rig

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent / "assets" / "mini"
PREVIEW_FRAMES = 12
OPEN_MOUTH = 0.10  # IOD between the lips of the portrait

OnFrame = Callable[[int, int], None]  # (done, total)
Picture = NDArray[np.uint8]  # (H, W, 3) RGB


def resolve_device(name: str) -> torch.device:
    """The device `--device` names; auto is CUDA, else the CPU.

    Raises DeviceError where it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(
            f"device {name!r} cannot be used: {reason}", hint="try --device cpu"
        ) from None
    return device


def frame_portrait(
    picture: Picture, face: FaceLandmarks, config: RenderConfig
) -> tuple[Picture, FaceLandmarks]:
    """The portrait as the video shows it, even-sided, and its face: whole, or the face's crop."""
    height, width = picture.shape[:2]
    if not config.full_frame:
        side = config.size or CROP_SIZE
        affine = faces.face_crop(face, side)
        return warp(picture, affine, (side, side)), face.moved(affine)
    scale = (config.size or min(MAX_SIDE, max(height, width))) / max(height, width)
    new_width, new_height = (max(2, 2 * round(side * scale / 2)) for side in (width, height))
    if (new_width, new_height) == (width, height):
        return picture, face
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    framed = cv2.resize(picture, (new_width, new_height), interpolation=method)
    factors = np.array([new_width / width, new_height / height])
    affine = np.column_stack((np.diag(factors), (factors - 1) / 2))  # corner -0.5 stays in place
    return np.asarray(framed, dtype=np.uint8), face.moved(affine)


def edit_motion(motion: Tensor, neutral: Tensor, config: RenderConfig) -> Tensor:
    """Motion (T, 70) with head motion, expression and blinks as the user wants them."""
    motion = motion.clone()
    expression = motion[:, EXPRESSION] - neutral[EXPRESSION]
    if not config.blink:
        lids = decode(expression)
        lids[:, [k for k, name in enumerate(ARTICULATORS) if not name.startswith("lid")]] = 0
        expression = expression - encode(lids)
    motion[:, EXPRESSION] = neutral[EXPRESSION] + config.expression_scale * expression
    motion[:, POSE] = neutral[POSE] + config.head_motion * (motion[:, POSE] - neutral[POSE])
    return motion


def prefetch(items: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same items, each made in a thread while the one before is used; the first begins now."""
    iterator = iter(items)
    pool = ThreadPoolExecutor(max_workers=1)
    first = pool.submit(next, iterator, None)

    def rest() -> Iterator[Tensor]:
        ahead = first
        with pool:
            while (item := ahead.result()) is not None:
                ahead = pool.submit(next, iterator, None)
                yield item

    return rest()


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished clip was made of."""

    output: Path
    frames: int
    fps: float
    width: int
    height: int
    seconds: float  # from reading the inputs to the finished file
    rtf: float  # seconds over the video's duration
    face_score: float


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A motion generator and a renderer, loaded once, for any number of clips."""

    model: MotionGenerator
    name: str  # of the model, as the user chose it

    @classmethod
    def load(cls, model: str = "auto", device: str = "auto") -> "Pipeline":
        """The bundled model (`auto`, `mini`) or a model directory, on a device.

        Raises WeightsError for a model that is not there or corrupt, DeviceError for the device.
        """
        chosen = resolve_device(device)
        if model == "moda":
            raise WeightsError(
                "this version cannot load the official MoDA weights",
                hint="use --model mini, the bundled model, or a directory written by training",
            )
        directory = BUNDLED if model in ("auto", "mini") else Path(model)
        name = "mini" if directory == BUNDLED else str(directory)
        log.info("model %s on %s", name, chosen)
        return cls(MotionGenerator.load(directory, chosen), name)

    def generate(self, clip: ClipConfig, on_frame: OnFrame | None = None) -> Result:
        """Make one video and the side files `clip` asks for.

        on_frame(done, total) is called for every finished frame. Raises UsageError for what cannot
        be written, InputError for what cannot be read or shows no usable face.
        """
        started = time.perf_counter()
        timeline = parse_emotion(clip.emotion)
        check_outputs(clip)
        given = load_motion(clip.motion) if clip.motion else None
        wave = media.read_audio(clip.audio)
        motion, neutral = given or (None, self.model.stats.neutral)
        length = num_frames(len(wave)) if motion is None else len(motion)

        kept: list[Tensor] = []  # motion at 25 fps, for its file and its plot

        def pieces() -> Iterator[Tensor]:
            made = (
                sample_motion(self.model, wave, timeline, clip.sampler)
                if motion is None
                else iter([motion])
            )
            for piece in made:
                kept.append(edit_motion(piece, neutral, clip.render))
                yield kept[-1]

        ahead = prefetch(pieces())  # while the portrait is looked at
        picture = media.read_image(clip.portrait, clip.background)
        face = find_face(picture, clip)
        if mouth_gap(picture, face) > OPEN_MOUTH:
            log.warning("the mouth in %s looks open; a closed one animates better", clip.portrait)
        picture, face = frame_portrait(picture, face, clip.render)
        total = math.ceil(length * clip.render.fps / FPS)
        shown = {round((k + 0.5) * total / PREVIEW_FRAMES - 0.5) for k in range(PREVIEW_FRAMES)}
        shots: list[Picture] = []
        rig = Rig(picture, face, neutral)

        def frames() -> Iterator[Picture]:
            done = 0
            for piece in resample(ahead, clip.render.fps):
                for frame in rig.render(piece):
                    if clip.preview and done in shown:
                        shots.append(frame)
                    done += 1
                    yield frame

        sound = (wave if str(clip.audio) == "-" else clip.audio) if clip.sound else None
        origin = {"model": self.name, "seed": str(clip.sampler.seed)}
        count = media.write_video(
            frames(),
            clip.output,
            clip.render.fps,
            audio=sound,
            codec=clip.codec,
            crf=clip.crf,
            metadata=origin,
            on_frame=(lambda done: on_frame(done, total)) if on_frame else None,
        )
        whole = torch.cat(kept)
        if clip.save_motion:
            with media.whole_file(clip.save_motion) as path:
                save_motion(path, whole, neutral, {**origin, "version": __version__})
        if clip.plot:
            media.write_image(clip.plot, figures.plot_motion(whole, neutral, wave))
        if clip.preview:
            moments = [f"{frame / clip.render.fps:.2f} s" for frame in sorted(shown)]
            media.write_image(clip.preview, figures.contact_sheet(shots, 4, moments[: len(shots)]))
        seconds = time.perf_counter() - started
        height, width = picture.shape[:2]
        rtf = seconds / (count / clip.render.fps)
        return Result(clip.output, count, clip.render.fps, width, height, seconds, rtf, face.score)


def check_outputs(clip: ClipConfig) -> None:
    """Refuse before any work what could not be written at its end. Raises UsageError."""
    media.check_output(clip.output, clip.codec, clip.crf)
    side = (clip.save_motion, clip.plot, clip.preview, clip.show_landmarks)
    written = [clip.output, *(path for path in side if path)]
    inputs = [path for path in (clip.portrait, clip.audio, clip.motion) if path]
    for position, path in enumerate(written):
        resolved = path.resolve()
        if resolved in [other.resolve() for other in inputs]:
            raise UsageError(f"{path} is an input of this clip", hint="give another output name")
        if resolved in [other.resolve() for other in written[:position]]:
            raise UsageError(f"{path} is named for two outputs", hint="give each its own name")
        if not path.parent.is_dir() and path != clip.output:
            raise UsageError(f"cannot write {path}", hint="choose a folder that exists")
        taken = path.parent if path.suffix == ".png" and "%" in path.name else path
        if taken.exists() and taken != Path() and not clip.overwrite:
            raise UsageError(f"{taken} exists", hint="pass -y to overwrite it")


def find_face(picture: Picture, clip: ClipConfig) -> FaceLandmarks:
    """The face to animate, and the overlay of what was found where `clip` asks for one.

    Raises InputError where there is no face, UsageError for malformed points or choices.
    """
    if clip.face_points is not None:
        face = faces.face_from_points(picture, clip.face_points)
        found = faces.FaceSearch((face,))
    else:
        found = faces.find_faces(picture)
    if clip.show_landmarks:
        drawn = faces.draw_landmarks(picture, found.faces, found.refused)
        media.write_image(clip.show_landmarks, drawn)
    if clip.face_points is not None:
        return face
    try:
        return faces.choose_face(found, clip.face)
    except InputError as error:
        raise InputError(f"{clip.portrait}: {error}", hint=error.hint) from None
