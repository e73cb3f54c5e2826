"""Clips of several jobs sampled side by side are those made one by one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from moda_cli.config import ClipConfig, RenderConfig, SamplerConfig
from moda_cli.errors import InputError
from moda_cli.jobs.clips import sample_ahead
from moda_cli.media import read_video
from moda_cli.motion import load_motion
from moda_cli.pipeline import Pipeline

PORTRAIT = Path(__file__).parents[2] / "examples" / "portrait.png"
BASE = ClipConfig(Path(), Path(), Path(), render=RenderConfig(size=64))
SECONDS = (0.4, 3.5, 1.0)


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
    assert seen[:3] == [sum(evaluations)] * 3
    assert seen[3:] == [2] * 3  # the one long clip's second window
    seen.clear()
    for clip in together:
        pipeline.generate(clip, sampled=ahead[clip])
    assert not seen
    with pytest.raises(InputError, match=r"broken\.wav"):
        pipeline.generate(broken)
    hook.remove()

    plain = Pipeline.load("mini", "cpu")
    for one, other in zip(alone, together, strict=True):
        plain.generate(one)
        motions = [load_motion(clip.save_motion).motion for clip in (one, other)]  # type: ignore[arg-type]
        torch.testing.assert_close(*motions, atol=1e-3, rtol=1e-4)
        frames = [np.stack(list(read_video(clip.output))).astype(float) for clip in (one, other)]
        assert np.square(frames[0] - frames[1]).mean() < 255**2 / 10**5  # 50 dB
