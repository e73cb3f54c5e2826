"""What `--check` says of good clips and of spoilt ones, and how mouth and sound correlate in each.

python -m benchmarks.check_sync --media DIR

DIR holds portraits/*.jpg and audio/speech_*.wav. Every clip is the bundled model's, of another
portrait, part of a recording, emotion and seed than the one before.
"""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from moda_cli.config import FPS, SAMPLE_RATE, ClipConfig, RenderConfig, SamplerConfig
from moda_cli.device import use_threads
from moda_cli.evaluate.check import Check, check_clip
from moda_cli.media import read_audio, read_video, write_video
from moda_cli.media.pictures import Picture
from moda_cli.media.waves import Wave
from moda_cli.pipeline import Pipeline

EXAMPLES = Path(__file__).parents[1] / "examples"
LENGTHS_S = (2, 3, 4, 5, 7, 10)
EMOTIONS = ("none", "happy", "none", "sad", "anger")
LATE = 5  # frames
MIN_SYNC = 0.2

Frames = list[Picture]
Spoil = Callable[[Frames, Wave, Frames, Wave], tuple[Frames, Wave]]

# What is written of a clip's frames and speech, and of the frames and speech of another.
KINDS: dict[str, Spoil] = {
    "good": lambda frames, speech, *_: (frames, speech),
    "another's sound": lambda frames, _, __, other: (frames, other),
    "sound late": lambda frames, speech, *_: (
        frames,
        np.pad(speech, (LATE * SAMPLE_RATE // FPS, 0))[: len(speech)],
    ),
    "mouth late": lambda frames, speech, *_: ([frames[0]] * LATE + frames[:-LATE], speech),
    "frozen": lambda frames, speech, *_: ([frames[5]] * len(frames), speech),
    "another's mouth": lambda _, speech, other, __: (other, speech),
}


def clips(media: Path, folder: Path, count: int) -> Iterator[tuple[int, Frames, Wave]]:
    """Length in seconds, frames and speech of `count` clips of each length."""
    waves = [read_audio(EXAMPLES / "speech.wav")]
    waves += [read_audio(path) for path in sorted(media.glob("audio/speech_*.wav"))]
    portraits = [EXAMPLES / "portrait.png", *sorted(media.glob("portraits/*.jpg"))]
    pipeline, rng = Pipeline.load("mini", "cpu"), np.random.default_rng(0)
    sound, video = folder / "speech.wav", folder / "clip.mp4"
    for number in range(count * len(LENGTHS_S)):
        wave = waves[number % len(waves)]
        length = min(LENGTHS_S[number // count] * SAMPLE_RATE, len(wave))
        start = int(rng.integers(0, len(wave) - length + 1))
        speech = wave[start : start + length]
        soundfile.write(sound, speech, SAMPLE_RATE, subtype="FLOAT")
        clip = ClipConfig(
            portraits[(3 * number + number // len(portraits)) % len(portraits)],
            sound,
            video,
            emotion=EMOTIONS[number % len(EMOTIONS)],
            overwrite=True,
            sampler=SamplerConfig(seed=number),
            render=RenderConfig(size=256),
        )
        pipeline.generate(clip)
        yield LENGTHS_S[number // count], list(read_video(video)), speech


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--count", type=int, default=6, help="clips of each length")
    options = parser.parse_args()
    use_threads(1)
    seen: dict[tuple[str, int], list[Check]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        before: dict[int, tuple[Frames, Wave]] = {}
        for length, frames, speech in clips(options.media, folder, options.count):
            other = before.get(length)
            for kind, spoil in KINDS.items():
                if "another" in kind and (other is None or len(other[0]) != len(frames)):
                    continue
                pictures, sound = spoil(frames, speech, *(other or (frames, speech)))
                path = folder / "spoilt.mp4"
                write_video(iter(pictures), path, FPS, audio=sound)
                check = check_clip(path, speech, len(frames), FPS, MIN_SYNC)
                seen[kind, length].append(check)
            before[length] = frames, speech
    print("| what | seconds | passed | sync: least, median, most |\n| --- | --- | --- | --- |")
    for (kind, length), checks in sorted(
        seen.items(), key=lambda item: list(KINDS).index(item[0][0])
    ):
        syncs = [check.measures.sync for check in checks if check.measures]
        known = [sync for sync in syncs if sync is not None] or [np.nan]
        passed = sum(check.verdict == "passed" for check in checks)
        figures = f"{min(known):.2f}, {np.median(known):.2f}, {max(known):.2f}"
        print(f"| {kind} | {length} | {passed} of {len(checks)} | {figures} |")


if __name__ == "__main__":
    main()
