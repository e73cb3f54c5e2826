"""A video as the portrait: its frames as the clip shows them, and one face followed in them."""

import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from moda_cli import media
from moda_cli.config import CROP_SIZE, DRIVEN, FPS, TRANSPARENT, ClipConfig, RenderConfig
from moda_cli.errors import InputError, UsageError, did_you_mean
from moda_cli.face.crops import crop_image, halve, portrait_crop
from moda_cli.face.extractors import Extractors
from moda_cli.face.kept import extract_once
from moda_cli.face.landmarks import FaceLandmarks
from moda_cli.face.landmarks203 import LandmarkNetwork
from moda_cli.face.mesh import Mesh
from moda_cli.face.portrait import Portrait, find_face, frame_portrait, warn_small
from moda_cli.face.search import face_crop, find_faces
from moda_cli.face.steady import Steady, steadied
from moda_cli.face.track import FaceTracker, Sight
from moda_cli.media.pictures import Picture, opaque

SEARCHED_S = 0.2  # from one search for the first face to the next; later up to a second
NEARBY_S = 3.0  # round a frame in which a person's mouth is looked for at rest
ROW = 478 * 3 + 2  # numbers that a face is kept as


def parse_redrive(text: str | None) -> frozenset[str]:
    """What of a filmed face the speech moves: `lips,brows`. Raises UsageError."""
    parts = frozenset(part.strip().lower() for part in (text or DRIVEN[0]).split(","))
    if unknown := sorted(parts - {*DRIVEN}):
        hint = did_you_mean(unknown[0], DRIVEN, f"some of {','.join(DRIVEN)}")
        raise UsageError(f"no part of a face is called {unknown[0]!r}", hint=hint)
    return parts


def frame_rate(clip: ClipConfig) -> float:
    """A clip's frames a second: what is asked for, else those of a video as its portrait.

    Raises InputError for a video that cannot be read.
    """
    if clip.render.fps:
        return clip.render.fps
    return media.usual_fps(clip.portrait) if media.is_video(clip.portrait) else FPS


class Faces(Sequence[Steady | None]):
    """The faces of consecutive frames, found as they are asked for and kept in a file.

    The next one is looked for while those before are used.
    """

    def __init__(self, faces: Iterator[Steady | None]) -> None:
        self._coming, self._count, self._ended = faces, 0, False
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed with this
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._next = self._pool.submit(self._one)

    def _one(self) -> list[Steady | None]:
        return list(islice(self._coming, 1))

    def __len__(self) -> int:
        """How many are known."""
        return self._count

    def __getitem__(self, number: int) -> Steady | None:  # type: ignore[override]
        """Raises IndexError where the video has ended before."""
        while self._count <= number and not self._ended:
            found = self._next.result()
            self._ended = not found
            if found:
                self._next = self._pool.submit(self._one)
                self._file.seek(0, 2)
                self._file.write(_row(found[0]).tobytes())
                self._count += 1
        if not 0 <= number < self._count:
            raise IndexError(number)
        self._file.seek(4 * ROW * number)
        row = np.frombuffer(self._file.read(4 * ROW), np.float32)
        if not row[-2]:
            return None
        return Steady(row[:-2].reshape(478, 3).astype(np.float64), float(row[-2]), int(row[-1]))


def _row(face: Steady | None) -> np.ndarray:
    if face is None:
        return np.zeros(ROW, np.float32)
    return np.concatenate((face.mesh.ravel(), (face.share, face.person))).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Film:
    """A video's frames at a rate, and its face in each of them.

    first: the face in the first frame that has it; frames are cut and sized by it as `render` says.
    parts: of DRIVEN, what speech moves; all else stays as filmed.
    """

    path: Path
    fps: float
    first: FaceLandmarks
    render: RenderConfig
    parts: frozenset[str]
    faces: Faces

    def frames(self) -> Iterator[tuple[int, Picture, Steady | None]]:
        """Number, picture (H, W, 3) and face of each frame, to the end, back, and so on."""
        for number, picture in media.read_to_and_fro(self.path, self.fps):
            yield number, picture, self.faces[number]

    def shown(self, frame: Picture) -> Picture:
        """A frame as the clip shows it, even-sided."""
        return frame_portrait(frame, self.first, self.render)[0]

    def resting(self, number: int, person: int, most: int) -> dict[int, Steady]:
        """A person's faces near a frame with the mouth most closed, at most so many, by frame."""
        near = self._nearby(number, person)
        closed = sorted(near, key=lambda k: FaceLandmarks(near[k].mesh).opening)[:most]
        return {k: near[k] for k in closed}

    def _nearby(self, number: int, person: int) -> dict[int, Steady]:
        """A person's faces seconds before and after a frame, those that are wholly there first."""
        reach = round(NEARBY_S * self.fps)
        found = {}
        for k in range(max(0, number - reach), number + reach + 1):
            try:
                face = self.faces[k]
            except IndexError:
                break
            if face and face.person == person:
                found[k] = face
        whole = {k: face for k, face in found.items() if face.share == 1}
        return whole or found

    def picture(self, number: int) -> Picture:
        """One frame of it."""
        part = {"start_s": number / self.fps, "duration_s": 1 / self.fps}
        return next(media.read_video(self.path, self.fps, **part))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilmedPortrait(Portrait):
    """The first frame of a video that shows the face, and the film."""

    film: Film


def read_film(
    clip: ClipConfig,
    landmarks: LandmarkNetwork | None,
    extractors: Extractors | None,
    *,
    seen_before: Path,
) -> FilmedPortrait:
    """A clip's portrait that is a video; as `read_portrait`, which says what the arguments are.

    Raises InputError for what cannot be read or never shows a usable face, UsageError for malformed
    points or choices.
    """
    if clip.background == TRANSPARENT:
        hint = "leave --background out"
        raise InputError(f"{clip.portrait} has nothing transparent", hint=hint)
    fps = frame_rate(clip)
    start, frame, face = first_face(clip, fps, seen_before)
    if extractors is not None:
        assert landmarks is not None
        face = replace(face, cloud=landmarks.cloud(frame, face))
    warn_small(clip, face)
    if clip.save_crop:
        media.write_image(clip.save_crop, crop_image(frame, face_crop(face, CROP_SIZE)))
    source = None
    if extractors is not None:
        assert face.cloud is not None
        crop = halve(crop_image(frame, portrait_crop(face.cloud)[0]))
        _, source = extract_once(extractors, crop, seen_before)
    render = clip.render
    if render.full_frame and not (render.size or render.aspect):
        render = replace(render, size=max(frame.shape))  # no frame is made smaller unasked
    faces = Faces(steadied(_sights(clip.portrait, fps, start, face), fps))
    film = Film(clip.portrait, fps, face, render, parse_redrive(render.redrive), faces)
    return FilmedPortrait(*frame_portrait(frame, face, render), source, film=film)


def first_face(
    clip: ClipConfig, fps: float, seen_before: Path
) -> tuple[int, Picture, FaceLandmarks]:
    """The first frame of a clip's video that shows a face, its number, and the face that is meant.

    Where its points are given or a doubtful one is allowed, it is in the first frame of all.
    Raises InputError where there is none, UsageError for malformed points or choices.
    """
    told = clip.face_points is not None or clip.force
    number, frame, due = 0, None, 0.0
    for number, frame in enumerate(media.read_video(clip.portrait, fps)):
        if number < due:
            continue
        if told or find_faces(frame, quick=True).faces:
            return number, frame, find_face(frame, clip, seen_before)
        due = number + min(max(SEARCHED_S * fps, number / 20), fps)
    assert frame is not None
    reason = f"{clip.portrait} shows no usable face in any of its {number + 1} frames"
    hint = (
        "use a video that shows a face from the front, or give its pupils and mouth centre in the"
        ' first frame: --face-points "xL,yL xR,yR xM,yM"'
    )
    raise InputError(reason, hint=hint)


def find_portrait(clip: ClipConfig, seen_before: Path) -> FaceLandmarks:
    """The face of a clip's portrait, a picture or a video, as it is found before anything is made.

    Raises InputError for what cannot be read or shows no usable face, UsageError for malformed
    points or choices.
    """
    if media.is_video(clip.portrait):
        return first_face(clip, frame_rate(clip), seen_before)[2]
    picture = media.read_image(clip.portrait, clip.background)
    return find_face(opaque(picture), clip, seen_before)


def _sights(path: Path, fps: float, start: int, face: FaceLandmarks) -> Iterator[Sight | None]:
    """The face of each frame of a video, followed from where it was found."""
    tracker = FaceTracker(Mesh(face.mesh))
    for number, frame in enumerate(media.read_video(path, fps)):
        yield tracker.look(frame) if number >= start else None
