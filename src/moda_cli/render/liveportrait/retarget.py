"""LivePortrait's networks on a video: each frame keeps all but the lips, which speak anew.

F and M look at every frame, whose expression stays outside the keypoints that speech moves (the
release's `animation_region`); what is drawn goes back into the frame. Unlike there, the lips come
from a frame in which they rest, not from the frame itself: what it said before is not seen.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moda_cli.face.crops import crop_image, halve, portrait_crop
from moda_cli.face.extractors import Extractors
from moda_cli.face.film import Film
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.steady import Steady, let_go
from moda_cli.media.pictures import Picture
from moda_cli.motion import LIP_KEYPOINTS, POSE
from moda_cli.render.liveportrait.engine import Engine
from moda_cli.render.liveportrait.keypoints import drive_relative, source_keypoints
from moda_cli.render.liveportrait.paste import PasteBack

BROW_KEYPOINTS = (1, 2)
RESTING = 3  # frames in which a mouth is most closed: their mean is its rest


def channels(keypoints: tuple[int, ...]) -> list[int]:
    """Of a motion vector, those of keypoints."""
    return [3 * keypoint + axis for keypoint in keypoints for axis in range(3)]


LIPS = channels(LIP_KEYPOINTS)
PARTS = {"lips": LIPS, "brows": channels(BROW_KEYPOINTS), "head": [*range(70)[POSE]]}


class RedrivenLivePortrait:
    """Draws speech on a film, frame after frame.

    neutral: (70) the motion of a mouth at rest, and of a head that turns nowhere. absolute: the
    lips of a motion are taken as they are, not off that.
    """

    def __init__(
        self,
        engine: Engine,
        landmarks: LandmarkNetwork,
        extractors: Extractors,
        film: Film,
        neutral: Tensor,
        *,
        absolute: bool,
    ) -> None:
        self._engine, self._landmarks, self._extractors = engine, landmarks, extractors
        self._film, self._neutral, self._absolute = film, neutral.float(), absolute
        self._frames = film.frames()
        self._rest: dict[int, Tensor] = {}
        self._moved = sorted(channel for part in film.parts for channel in PARTS[part])

    def render(self, motion: Tensor, gaze: Tensor | None = None) -> Iterator[Picture]:
        """One frame (H, W, 3) uint8 RGB per row of physical motion (T, 70), the film's next ones.

        gaze: of no use here, a filmed face looks where it looks.
        """
        for row in motion.float():
            number, picture, face = next(self._frames)
            drawn = picture if face is None else self._draw(number, picture, face, row)
            yield self._film.shown(drawn)

    @torch.inference_mode()
    def _draw(self, number: int, picture: Picture, face: Steady, row: Tensor) -> Picture:
        crop, from_crop = self._crop(picture, face)
        volume, source = self._extractors.extract(crop)
        motion, neutral = self._neutral.clone(), self._neutral.clone()
        motion[self._moved] = row[self._moved]
        if "lips" in self._film.parts:
            own = source.motion[LIPS]
            rest = self._neutral[LIPS] if self._absolute else self._rest_of(number, face.person)
            neutral[LIPS] += own - rest
        kp_source = source_keypoints(source)[None]
        kp_driving = drive_relative(source, motion[None], neutral)
        device = self._engine.device
        kp_source, kp_driving = kp_source.to(device), kp_driving.to(device)
        kp_driving = self._engine.retargeting.stitch(kp_source, kp_driving)
        kp_driving = torch.lerp(kp_source, kp_driving, face.share)
        made = self._engine.pixels(self._engine.prepare(volume, kp_source), kp_driving)
        pasted = PasteBack(picture, from_crop)(made[0].cpu().numpy())
        let_go(pasted, picture, face.share)
        return pasted

    def _crop(self, picture: Picture, face: Steady) -> tuple[Picture, NDArray[np.float32]]:
        """What the networks see of a face (256, 256, 3), and the (3, 3) map back of twice its
        size."""
        cloud = self._landmarks.cloud(picture, FaceLandmarks(face.mesh))
        to_crop, from_crop = portrait_crop(cloud)
        return halve(crop_image(picture, to_crop)), from_crop

    def _rest_of(self, number: int, person: int) -> Tensor:
        """The lips of a person at rest (18)."""
        if person not in self._rest:
            closed = self._film.resting(number, person, RESTING)
            crops = [self._crop(self._film.picture(k), near)[0] for k, near in closed.items()]
            seen = [self._extractors.motions(crop[None])[0] for crop in crops]
            self._rest[person] = torch.cat(seen)[:, LIPS].mean(dim=0)
        return self._rest[person]
