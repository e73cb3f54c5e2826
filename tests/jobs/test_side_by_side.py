"""Clips sampled side by side, or on other numbers of threads, are those made one by one."""

import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import soundfile
import torch

from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.device import use_threads
from moda_cli.errors import InputError
from moda_cli.jobs.clips import sample_ahead
from moda_cli.media import read_video
from moda_cli.motion import load_motion
from moda_cli.pipeline import Pipeline

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"
BASE = ClipConfig(Path(), Path(), Path(), render=RenderConfig(size=64))
SECONDS = (0.4, 3.5, 1.0)
TOLERANCE = 2e-5  # of motion, which docs/trust.md states


def clips(folder: Path) -> list[ClipConfig]:
    rng = np.random.default_rng(0)
    made = []
    for number, seconds in enumerate(SECONDS):
        audio = folder / f"speech{number}.wav"
        soundfile.write(audio, 0.1 * rng.standard_normal(round(16_000 * seconds)), 16_000)
        made.append(
            replace(
                BASE,
                portrait=PORTRAIT,
                audio=audio,
                output=folder / f"alone{number}.mp4",
                save_motion=folder / f"alone{number}.safetensors",
                emotion=("happy", "none", "0:sad,0.5:anger")[number],
                sampler=SamplerConfig(steps=3, seed=number),
                overwrite=True,
            )
        )
    return made


def test_where_memory_is_short_fewer_are_sampled_at_once(tmp_path: Path) -> None:
    pipeline = Pipeline.load("mini", "cpu")
    seen: list[int] = []

    def short_of_memory(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append(len(inputs[0]))
        if seen[-1] > 2 * 2:  # with and without the speech
            raise torch.OutOfMemoryError

    pipeline.model.network.register_forward_pre_hook(short_of_memory)
    alone = [replace(clip, emotion="none") for clip in clips(tmp_path)]
    more = replace(alone[0], output=tmp_path / "more.mp4")
    assert set(sample_ahead(pipeline, [*alone, more])) == {*alone, more}
    assert seen[:2] == [8, 4]


def test_a_voice_that_is_heard_ahead_is_heard_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    auto = [replace(clip, emotion="auto") for clip in clips(tmp_path)[:2]]
    pipeline = Pipeline.load("mini", "cpu")
    with caplog.at_level(logging.INFO):
        for settled, motion in sample_ahead(pipeline, auto).values():
            pipeline.generate(settled, sampled=motion)
    heard = [record for record in caplog.records if "heard in the voice" in record.message]
    assert len(heard) == 2  # of two clips


def test_what_is_taken_of_a_recording_is_sampled_ahead_too(tmp_path: Path) -> None:
    plain, other, _ = clips(tmp_path)
    pipeline = Pipeline.load("mini", "cpu")
    pipeline.generate(plain)
    whole = replace(other, motion=plain.save_motion)
    part = replace(whole, take="head", save_motion=tmp_path / "part.safetensors")
    ahead = sample_ahead(pipeline, [whole, part, replace(part, output=tmp_path / "b.mp4")])
    assert whole not in ahead
    settled, motion = ahead[part]
    pipeline.generate(settled, sampled=motion)
    assert part.save_motion is not None
    assert len(load_motion(part.save_motion).motion) == len(motion)  # the sound's length


def test_side_by_side_is_one_by_one(tmp_path: Path) -> None:
    alone = clips(tmp_path)
    (tmp_path / "broken.wav").write_text("no sound")
    broken = replace(alone[0], audio=tmp_path / "broken.wav", output=tmp_path / "broken.mp4")
    other_steps = replace(alone[0], sampler=SamplerConfig(steps=2), output=tmp_path / "two.mp4")
    together = [
        replace(clip, output=clip.output.with_stem(f"t{k}"), save_motion=tmp_path / f"t{k}.st")
        for k, clip in enumerate(alone)
    ]
    pipeline = Pipeline.load("mini", "cpu")
    seen: list[int] = []
    hook = pipeline.model.network.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    ahead = sample_ahead(pipeline, [broken, *together, other_steps])
    assert set(ahead) == set(together)
    evaluations = [2, 2, 4]  # with and without the speech; two emotions meet in the last
    # without the speech at high noise only
    assert seen[:3] == [sum(evaluations)] * 2 + [sum(evaluations) // 2]
    assert seen[3:] == [2, 2, 1]  # the one long clip's second window
    seen.clear()
    for clip in together:
        settled, motion = ahead[clip]
        pipeline.generate(settled, sampled=motion)
    assert not seen
    with pytest.raises(InputError, match=r"broken\.wav"):
        pipeline.generate(broken)
    hook.remove()

    plain = Pipeline.load("mini", "cpu")
    for one, other in zip(alone, together, strict=True):
        plain.generate(one)
        motions = [load_motion(clip.save_motion).motion for clip in (one, other)]  # type: ignore[arg-type]
        torch.testing.assert_close(*motions, atol=TOLERANCE, rtol=0)
        frames = [np.stack(list(read_video(clip.output))).astype(float) for clip in (one, other)]
        assert np.square(frames[0] - frames[1]).mean() < 255**2 / 10**5  # 50 dB


def test_another_number_of_threads_changes_no_pixel_by_more_than_a_level(tmp_path: Path) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    motions, frames = [], []
    try:
        for threads in (1, 2):
            use_threads(threads)
            clip = replace(clips(tmp_path)[2], output=tmp_path / f"{threads}" / "%06d.png")
            Pipeline.load("mini", "cpu").generate(clip)
            motions.append(load_motion(tmp_path / "alone2.safetensors").motion)
            pictures = [cv2.imread(str(path)) for path in sorted(clip.output.parent.iterdir())]
            frames.append(np.stack(pictures).astype(int))
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    torch.testing.assert_close(*motions, atol=TOLERANCE, rtol=0)
    assert np.abs(frames[0] - frames[1]).max() <= 1
