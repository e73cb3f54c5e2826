"""Networks published as ONNX, run by OpenCV."""

from pathlib import Path

import cv2

from moda_cli.errors import WeightsError


def read_network(path: Path, profile: str) -> cv2.dnn.Net:
    """The network of a file that `moda download PROFILE` fetches.

    Raises WeightsError for one OpenCV cannot run.
    """
    try:
        return cv2.dnn.readNetFromONNX(str(path))
    except cv2.error as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{path} is not a network OpenCV can run: {reason}",
            hint=f"run `moda download --verify`, then `moda download {profile}`",
        ) from None
