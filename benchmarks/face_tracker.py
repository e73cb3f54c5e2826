"""Face measurements of videos and pictures by mediapipe's face mesh, the benchmarks' judge.

`PYTHON face_tracker.py OUT_DIR FILE ...` writes OUT_DIR/STEM.npz per file. PYTHON is that of a
virtual environment with mediapipe 0.10.21, never the one moda is installed in.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mediapipe  # type: ignore[import-not-found, unused-ignore]
import numpy as np
from numpy.typing import NDArray

UPPER_LIP, LOWER_LIP = 13, 14  # inner edges, middle
MOUTH_CORNERS = (61, 291)
LIDS = ((159, 145), (386, 374))  # upper and lower, the picture's left eye first
IRISES = (468, 473)  # centres, the picture's left first


def measure(points: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Lengths in IOD and iris centres (2, 2) in pixels of mesh points (478, 2) in pixels."""
    irises = points[list(IRISES)]
    iod = np.linalg.norm(irises[1] - irises[0])

    def length(a: int, b: int) -> float:
        return float(np.linalg.norm(points[a] - points[b]) / iod)

    return {
        "gap": np.array(length(UPPER_LIP, LOWER_LIP)),
        "width": np.array(length(*MOUTH_CORNERS)),
        "eyes": np.array([length(*lids) for lids in LIDS]),
        "irises": irises,
        "mouth": (points[UPPER_LIP] + points[LOWER_LIP]) / 2,
    }


MISSING = {name: np.full_like(v, np.nan) for name, v in measure(np.eye(478, 2)).items()}


def frames_of(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Frames (H, W, 3) RGB of a video or a picture."""
    video = cv2.VideoCapture(str(path))
    while True:
        ok, frame = video.read()
        if not ok:
            return
        yield np.asarray(frame[..., ::-1], dtype=np.uint8)


def track(path: Path, mesh: Any) -> dict[str, NDArray[np.float64]]:
    """`found` (T) and the fields of `measure`, each (T, ...), NaN where no face was found."""
    rows = []
    for frame in frames_of(path):
        faces = mesh.process(np.ascontiguousarray(frame)).multi_face_landmarks
        if not faces:
            rows.append({"found": np.array(0.0), **MISSING})
            continue
        size = np.array([frame.shape[1], frame.shape[0]])
        points = np.array([(p.x, p.y) for p in faces[0].landmark]) * size
        rows.append({"found": np.array(1.0), **measure(points)})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def main() -> None:
    """Track files from the command line."""
    parser = argparse.ArgumentParser(description="Measure the faces in videos with mediapipe.")
    parser.add_argument("out", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    # every frame on its own: nothing is smoothed over time
    with mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True
    ) as mesh:
        for path in arguments.files:
            tracked: dict[str, Any] = track(path, mesh)
            np.savez(arguments.out / f"{path.stem}.npz", **tracked)


if __name__ == "__main__":
    main()
