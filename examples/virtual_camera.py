"""A camera for meetings that speaks: `python examples/virtual_camera.py me.png speech.wav`.

Needs `pip install pyvirtualcam` and a virtual camera: on Linux `modprobe v4l2loopback`, elsewhere
OBS's. The speech is heard where `aplay` or another player takes it from standard output:
`... --play | aplay -r 16000 -f S16_LE`.
"""

import argparse
import sys
from pathlib import Path

import soundfile

import moda_cli as moda
from moda_cli.config import FPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("portrait", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--size", type=int, default=512, help="longer side of the camera's picture")
    parser.add_argument("--play", action="store_true", help="the sound to standard output")
    asked = parser.parse_args()
    try:
        import pyvirtualcam
    except ImportError:
        sys.exit("error: pyvirtualcam is not here\nhint: pip install pyvirtualcam")
    samples, rate = soundfile.read(asked.speech, dtype="float32")
    pipeline = moda.Pipeline.load()
    with pipeline.live(asked.portrait, size=asked.size) as session:
        frames = session.frames()
        height, width = next(frames).picture.shape[:2]
        try:
            camera = pyvirtualcam.Camera(width, height, FPS)
        except RuntimeError as error:  # of every platform's own kind
            sys.exit(f"error: there is no virtual camera: {error}\nhint: modprobe v4l2loopback")
        with camera:
            print(camera.device, file=sys.stderr)
            session.push(samples, rate)
            for frame in frames:
                camera.send(frame.picture)
                if asked.play:
                    sys.stdout.buffer.write((frame.sound * 32767).astype("<i2").tobytes())
                if not session.pace.speaking:
                    return


if __name__ == "__main__":
    main()
