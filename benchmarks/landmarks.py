"""How good the face landmarks that need no weights are, against mediapipe's face mesh.

    python benchmarks/landmarks.py --media DIR --judge PYTHON [--output FILE.json]

DIR (default: MODA_MEDIA) holds `portraits/`; PYTHON is an interpreter with mediapipe, which judges
but is no dependency. Errors are in IOD, the distance between the pupils.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

HERE = Path(__file__).parent
DRAWN = HERE.parent / "examples" / "portrait.png"
POINTS = ("pupils", "mouth", "corners", "chin")
WRONG = 0.15  # IOD off at a pupil or the mouth centre


def variants(picture: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Names, pictures and the (2, 3) affine maps that lead to them."""
    height, width = picture.shape[:2]
    same = np.eye(2, 3)
    yield "as is", picture, same
    yield "mirrored", picture[:, ::-1].copy(), np.array([[-1.0, 0, width - 1], [0, 1, 0]])
    for angle in (10, -10):
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1)
        turned = cv2.warpAffine(picture, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
        yield f"rotated {angle}", turned, turn
    yield "x0.55", (picture * 0.55).astype(np.uint8), same
    s = 256 / max(height, width)
    small = cv2.resize(picture, None, fx=s, fy=s, interpolation=cv2.INTER_AREA)
    yield "256 px", small, np.array([[s, 0, (s - 1) / 2], [0, s, (s - 1) / 2]])


def judge(folder: Path) -> None:
    """Print mediapipe's landmarks of every picture of a folder, as JSON."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    mesh = FaceMesh(static_image_mode=True, refine_landmarks=True, min_detection_confidence=0.3)
    found = {}
    for path in sorted(folder.glob("*.png")):
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        faces = mesh.process(picture).multi_face_landmarks
        if faces:
            size = picture.shape[1], picture.shape[0]
            mark = np.array([(p.x, p.y) for p in faces[0].landmark]) * size - 0.5
            found[path.stem] = {
                "pupils": mark[[468, 473]].tolist(),
                "mouth": mark[[13, 14]].mean(axis=0).tolist(),
                "corners": mark[[61, 291]].tolist(),
                "chin": mark[152].tolist(),
            }
    json.dump(found, sys.stdout)


def errors(face: object, truth: dict[str, list]) -> dict[str, float]:
    """Mean distance of each kind of point in IOD, and the larger one of the pupils."""
    reference = {name: np.array(truth[name], float).reshape(-1, 2) for name in POINTS}
    iod = np.linalg.norm(np.subtract(*reference["pupils"]))
    off = {
        name: np.linalg.norm(getattr(face, name) - reference[name], axis=1) / iod for name in POINTS
    }
    worst = max(off["pupils"].max(), off["mouth"].max())
    return {**{name: float(value.mean()) for name, value in off.items()}, "worst": float(worst)}


def run(media: Path, judge_python: str) -> dict[str, object]:
    import skimage

    from moda_cli.face.search import find_faces

    def load(path: Path) -> np.ndarray:
        return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)

    cv2.setNumThreads(1)
    data = Path(skimage.__file__).parent / "data"
    sources = {path.stem: path for path in sorted((media / "portraits").iterdir())}
    sources |= {"drawn": DRAWN, "astronaut": data / "astronaut.png"}
    pictures = {}
    exact = json.loads(DRAWN.with_suffix(".json").read_text())
    exact_of = {}
    for name, path in sources.items():
        for variant, picture, affine in variants(load(path)):
            pictures[name, variant] = picture
            if name == "drawn":
                moved = {
                    k: (np.array(exact[k]) @ affine[:, :2].T + affine[:, 2]).reshape(-1, 2)
                    for k in POINTS
                }
                flip = slice(None, None, -1 if variant == "mirrored" else 1)
                exact_of[variant] = {k: v[flip].tolist() for k, v in moved.items()}
    with tempfile.TemporaryDirectory() as folder:
        for (name, variant), picture in pictures.items():
            path = Path(folder) / f"{name}@{variant}.png"
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        command = [judge_python, str(Path(__file__).resolve()), "--as-judge", folder]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    reference = json.loads(answer)

    rows = []
    for (name, variant), picture in pictures.items():
        start = time.perf_counter()
        found = find_faces(picture)
        row: dict[str, object] = {"picture": name, "variant": variant}
        row["seconds"] = time.perf_counter() - start
        row["accepted"] = bool(found.faces)
        best = max(found.faces, key=lambda face: face.iod, default=found.refused)
        row["score"] = best.score if best else None
        truth = reference.get(f"{name}@{variant}")
        row["errors"] = errors(best, truth) if best and truth else None
        if name == "drawn" and best:
            row["exact"] = errors(best, exact_of[variant])
        rows.append(row)
    nonfaces = {}
    for path in sorted(data.iterdir()):
        picture = cv2.imread(str(path)) if path.suffix in (".png", ".jpg", ".tif") else None
        if picture is not None and path.stem != "astronaut":
            found = find_faces(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))
            nonfaces[path.name] = {
                "accepted": bool(found.faces),
                "score": found.refused.score if found.refused else None,
            }
    return {"faces": rows, "nonfaces": nonfaces}


def summary(result: dict) -> dict[str, object]:
    """The figures of decision 24; the astronaut is shown but not counted."""
    rows = [row for row in result["faces"] if row["picture"] != "astronaut"]
    accepted = [row for row in rows if row["accepted"]]
    judged = [row["errors"] for row in accepted if row["errors"]]
    drawn = [row["exact"] for row in rows if "exact" in row]
    return {
        "pictures": len(rows),
        "accepted": len(accepted),
        "accepted and judged": len(judged),
        "accepted but wrong": sum(e["worst"] > WRONG for e in judged),
        "refused as they are": [
            row["picture"] for row in rows if row["variant"] == "as is" and not row["accepted"]
        ],
        "median": {k: float(np.median([e[k] for e in judged])) for k in POINTS},
        "90th percentile": {k: float(np.percentile([e[k] for e in judged], 90)) for k in POINTS},
        "drawn, worst variant": {k: max(e[k] for e in drawn) for k in POINTS},
        "seconds, median": float(np.median([row["seconds"] for row in rows])),
        "non-faces": len(result["nonfaces"]),
        "non-faces accepted": [k for k, v in result["nonfaces"].items() if v["accepted"]],
        "best non-face score": max(v["score"] or 0 for v in result["nonfaces"].values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--media", type=Path, default=os.environ.get("MODA_MEDIA"))
    parser.add_argument("--judge", help="an interpreter with mediapipe")
    parser.add_argument("--output", type=Path, default=HERE / "landmarks.json")
    parser.add_argument("--as-judge", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.as_judge:
        judge(options.as_judge)
        return
    if not (options.media and options.judge):
        parser.error("--media (or MODA_MEDIA) and --judge are needed")
    result = run(options.media, options.judge)
    print("picture     variant      score  pupils  mouth corners   chin  seconds")
    for row in result["faces"]:
        off = row["errors"] or dict.fromkeys((*POINTS, "worst"), float("nan"))
        state = ("WRONG" if off["worst"] > WRONG else "") if row["accepted"] else "refused"
        figures = " ".join(f"{off[name]:7.3f}" for name in POINTS)
        score = f"{row['score']:6.2f}" if row["score"] is not None else "     -"
        label = f"{row['picture']:<11} {row['variant']:<11}"
        print(label, score, figures, f"{row['seconds']:7.2f}", state)
    result["summary"] = summary(result)
    print(json.dumps(result["summary"], indent=1))
    options.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
