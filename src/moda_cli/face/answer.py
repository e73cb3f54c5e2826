"""Whether a drawn mouth answers what is asked of it, looked at once in a clip's first seconds."""

import logging

from torch import Tensor

from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.mesh import Mesh, follow_mesh
from moda_cli.media.pictures import Picture
from moda_cli.motion import lips_asked

log = logging.getLogger(__name__)

WATCHED_S = 3.0
LEAST_ASKED = 0.08  # IOD between the frames that ask for most and for least
LEAST_SHARE = 0.3  # of what was asked; real clips of good portraits show 0.7 and more
LEAST_FLAG = 0.9  # probability that the network still looks at a face


class MouthAnswer:
    """The frames of the first seconds in which least and most opening is asked for."""

    def __init__(self, face: FaceLandmarks, neutral: Tensor, fps: float) -> None:
        """face: in pixels of the frames. neutral: (70) the motion that shows the portrait."""
        self._face, self._neutral = face, neutral
        self._left = round(WATCHED_S * fps)
        self._frames: dict[float, Picture] = {}  # by the opening that is asked for, two at most

    def see(self, row: Tensor, frame: Picture) -> None:
        """The next frame (H, W, 3) and the motion (70) it shows."""
        if self._left == 0:
            self.judge()
        self._left -= 1
        if self._left < 0:
            return
        asked = max(float(lips_asked(row, self._neutral)), 0.0)
        known = self._frames
        if len(known) < 2 or asked < min(known) or asked > max(known):
            known[asked] = frame.copy()  # whoever draws may use the array again
            self._frames = {each: known[each] for each in {min(known), max(known)}}

    def judge(self) -> None:
        """Warn, once, of lips that fell short."""
        if fault := self.fault():
            log.warning("%s; see --show-landmarks for where the lips are taken to be", fault)
        self._left, self._frames = min(self._left, -1), {}

    def fault(self) -> str | None:
        """How the lips fell short, None where they moved or too little was asked to tell."""
        least, most = min(self._frames, default=0.0), max(self._frames, default=0.0)
        if self._face.score is None or most - least < LEAST_ASKED:
            return None
        meshes = [follow_mesh(self._frames[at], Mesh(self._face.mesh)) for at in (least, most)]
        if min(mesh.flag for mesh in meshes) < LEAST_FLAG:
            return None
        shut, opened = (FaceLandmarks(mesh.points).opening for mesh in meshes)
        if opened - shut >= LEAST_SHARE * (most - least):
            return None
        return (
            f"the lips part by {max(opened - shut, 0):.2f} of the distance between the eyes where"
            f" {most - least:.2f} is asked"
        )
