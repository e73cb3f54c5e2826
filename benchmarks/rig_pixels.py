"""What a rig's frames show by their own pixels, without a face mesh.

The mesh has a leaning of its own on some pictures: of a face of pale stone it reads an opening of
0.22 as 0.27 and closed lids as half open. Here a lip is followed by what it looks like, an eye is
as open as what is left of it, and a point has moved as far as optical flow says.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from moda_cli.face.landmarks import LIP_MIDDLES, Points
from moda_cli.media.pictures import Picture
from moda_cli.render.rig.arrays import LUMA, Floats, floats, sample
from moda_cli.render.rig.frame import FaceFrame
from moda_cli.render.rig.lip_line import CLOSED
from moda_cli.render.rig.points import LOWER_LIDS, UPPER_LIDS

_TEXELS = 160  # per IOD of the strip down the middle of the mouth
_HALF, _ABOVE, _BELOW = 0.12, 0.5, 0.9  # of the strip, IOD
_LIP = 0.14  # IOD of a lip that is followed
_SEARCH = 0.12  # IOD beyond where it should be in which a lip is looked for


class LipTracker:
    """Follows the skin next to the lips' inner edges down the middle of one face."""

    def __init__(self, rest: Picture, mesh: Points) -> None:
        self._frame = FaceFrame.of(mesh)
        upper, lower = self._frame.plane(mesh[LIP_MIDDLES, :2])
        self._centre = (upper + lower) / 2
        self._gap = float(lower[1] - upper[1])
        away = 0.012 if self._gap < CLOSED else 0.02  # of a parted lip the edge shows teeth
        strip, height = self._strip(rest), round(_LIP * _TEXELS)
        self._top = round((upper[1] - self._centre[1] + _ABOVE - away) * _TEXELS) - height
        self._low = round((lower[1] - self._centre[1] + _ABOVE + away) * _TEXELS)
        self._lips = [strip[y : y + height, 3:-3] for y in (self._top, self._low)]

    def gap(self, shown: Picture, asked: float) -> float:
        """How far the lips are apart, IOD; looked for up to _SEARCH beyond what is `asked`."""
        strip = self._strip(shown)
        rise = self._found(strip, self._lips[0], self._top, -_SEARCH, 0.04)
        drop = self._found(strip, self._lips[1], self._low, -0.05, asked + _SEARCH)
        return self._gap + drop - rise

    def _strip(self, shown: Picture) -> Floats:
        box = self._centre + np.array([[-_HALF, -_ABOVE], [_HALF, -_ABOVE], [-_HALF, _BELOW]])
        width, height = round(2 * _HALF * _TEXELS), round((_ABOVE + _BELOW) * _TEXELS)
        corners = floats([[0, 0], [width, 0], [0, height]])
        to_strip = cv2.getAffineTransform(floats(self._frame.pixels(box)), corners)
        return floats(cv2.warpAffine(shown, to_strip, (width, height)) @ LUMA)

    @staticmethod
    def _found(strip: Floats, lip: Floats, at: int, least: float, most: float) -> float:
        """How far down `lip` has gone from row `at`, IOD, between two bounds."""
        likeness = cv2.matchTemplate(strip, lip, cv2.TM_CCOEFF_NORMED)
        likeness = likeness[:, likeness.shape[1] // 2]
        low = max(at + round(least * _TEXELS), 1)
        high = min(at + round(most * _TEXELS), len(likeness) - 1)
        best = low + int(likeness[low:high].argmax())
        before, peak, after = likeness[best - 1 : best + 2]
        bend = before - 2 * peak + after
        between = 0.5 * (before - after) / bend if bend < 0 else 0.0
        return float(best + between - at) / _TEXELS


def eyes_left(rest: Picture, shown: Picture, mesh: Points) -> Points:
    """Share of each open eye's contrast in `rest` that `shown` still has in its place, (2,)."""
    shares = []
    for upper, lower in zip(UPPER_LIDS, LOWER_LIDS, strict=True):
        outline = np.rint(mesh[[*upper, *lower[-2:0:-1]], :2]).astype(np.int32)
        inside = np.zeros(rest.shape[:2], np.uint8)
        cv2.fillPoly(inside, [outline], 1)
        before, after = (picture[inside > 0] @ LUMA for picture in (rest, shown))
        shares.append(float(np.cov(before, after)[0, 1] / max(np.var(before), 1e-6)))
    return np.array(shares)


def seam_distance(picture: Picture, seam: Points, frame: FaceFrame) -> float:
    """How far a seam (n, 2) in pixels lies from the darkest line between closed lips, IOD.

    The middle of its distances down the face, without the corners.
    """
    count = len(seam)
    down = frame.axes[1, :2] / np.linalg.norm(frame.axes[1, :2])
    away = np.linspace(-0.06, 0.06, 61)
    places = seam[count // 8 : -count // 8] + away[:, None, None] * frame.iod * down
    calm = cv2.GaussianBlur(picture, (0, 0), max(0.006 * frame.iod, 0.5))
    light = sample(calm.astype(np.float32), floats(places)) @ LUMA
    return float(np.median(np.abs(away[light.argmin(axis=0)])))


def moved(before: Picture, after: Picture, points: Points, iod: float) -> float:
    """How far optical flow sees `points` (n, 2) in pixels move, IOD: the mean of those it can hold.

    On a smooth forehead there is nothing to hold; a third of them must be found.
    """
    grey = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (before, after)]
    size = max(9, round(0.12 * iod) | 1)
    start: NDArray[np.float32] = floats(points)[:, None]
    end, found, _ = cv2.calcOpticalFlowPyrLK(*grey, start, start.copy(), winSize=(size, size))
    assert found.mean() > 1 / 3
    return float(np.linalg.norm(end - start, axis=-1)[found > 0].mean() / iod)
