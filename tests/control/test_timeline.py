"""Emotions and timelines: how they are written, and what the model makes of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bundled_motion import articulators, motion_of, speech
from moda_cli.config import EMOTIONS
from moda_cli.control.timeline import Entry, Timeline, parse_emotion
from moda_cli.errors import InputError, UsageError
from moda_cli.motion import ARTICULATORS, EXPRESSION

HAPPY, NEUTRAL, SAD = map(EMOTIONS.index, ("happy", "neutral", "sad"))


def said(text: str) -> list[tuple[float, int, float]]:
    return [(entry.at, *entry.values["emotion"]) for entry in parse_emotion(text).entries]


def test_names_and_the_releases_own() -> None:
    assert said("happy") == said("Happiness") == [(0.0, HAPPY, 1.0)]
    assert said("sadness") == [(0.0, SAD, 1.0)]
    assert said("0:neutral, 2.5:happy@0.8") == [(0.0, NEUTRAL, 1.0), (2.5, HAPPY, 0.8)]
    assert parse_emotion("Auto").auto


@pytest.mark.parametrize(
    "text",
    ["joy", "", "x:happy", "2:happy,1:sad", "-1:happy", "nan:happy", "happy@2", "happy@x", "sad@"],
)
def test_bad_timelines_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--emotion"):
        parse_emotion(text)


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=5, unique=True), st.integers(0, 200))
def test_shares_sum_to_one_and_follow_the_timeline(times: list[float], start: int) -> None:
    changes = ",".join(f"{at}:{EMOTIONS[k]}" for k, at in enumerate(sorted(times)))
    shares = parse_emotion(f"0:none,{changes}").emotion_shares(start, 80)
    torch.testing.assert_close(sum(shares.values()), torch.ones(80))
    assert all((share >= 0).all() for share in shares.values())
    if (start + 79) / 25 > max(times) + 1:
        assert shares[len(times) - 1][-1] > 0.99


def entry(at: float, until: float = float("inf"), **values: object) -> Entry:
    ease = values.pop("ease", None)
    return Entry(at, values, f"shot.toml, line {at:g}", until, ease)  # type: ignore[arg-type]


def test_what_has_an_end_gives_way_to_what_ruled_before() -> None:
    seconds = torch.arange(0, 10, 0.04, dtype=torch.float64)
    timeline = Timeline.of([entry(4, 6, pitch=-10), entry(1, pitch=20), entry(3, 8, yaw=5)])
    pitch = timeline.curve("pitch", seconds)
    assert [round(float(pitch[round(25 * t)])) for t in (0, 2, 5, 7, 9)] == [0, 20, -10, 20, 20]
    assert float(timeline.curve("yaw", seconds)[-1]) == 0
    assert (pitch[1:] - pitch[:-1]).abs().max() < 30 * 0.04 / 0.4 * 2  # eased over 0.4 s
    jump = Timeline.of([entry(4, pitch=10, ease=0)]).curve("pitch", seconds)
    assert set(jump.tolist()) == {0.0, 10.0}
    slow = Timeline.of([entry(4, pitch=10, ease=4)]).curve("pitch", seconds)
    assert 4.9 < float(slow[100]) < 5.1  # centred on its moment
    assert 0 < float(slow[60]) < float(slow[140]) < 10


def test_an_entry_past_the_end_is_named() -> None:
    timeline = Timeline.of([entry(0, pitch=1), entry(7, pitch=2)])
    timeline.check_within(7.5)
    with pytest.raises(
        InputError, match=r"shot\.toml, line 7: an entry at 7 s is past the end, 6\.00 s$"
    ):
        timeline.check_within(6)
    with pytest.raises(UsageError, match="an entry at 9 s is past the end"):
        parse_emotion("0:sad,9:happy").check_within(6)


# What the bundled model makes of them


def test_a_change_within_a_window_is_seen_and_has_no_jump() -> None:
    wave = speech(3.0)  # a window is 3.2 s
    changing = motion_of("0:neutral,1.5:happy", wave)
    still, happy = motion_of("neutral", wave), motion_of("happy", wave)

    def largest_step(motion: torch.Tensor) -> float:
        return float((motion[1:] - motion[:-1])[:, EXPRESSION].abs().max())

    assert largest_step(changing) < 1.15 * max(largest_step(still), largest_step(happy))
    smiles = [articulators(each)[:, ARTICULATORS.index("smile")] for each in (still, changing)]
    assert float((smiles[1] - smiles[0])[:25].abs().max()) < 0.1
    assert float(smiles[1][50:].mean()) > float(smiles[0][50:].mean()) + 0.4


@pytest.mark.parametrize(
    ("emotion", "name"), [("happy", "smile"), ("anger", "brow_frown"), ("surprise", "brow_up")]
)
def test_an_intensity_is_that_much_of_the_face(emotion: str, name: str) -> None:
    wave, column = speech(4.0), ARTICULATORS.index(name)
    none, some, more, all_of_it = (
        float(articulators(motion_of(text, wave))[25:, column].mean())
        for text in ("neutral", f"{emotion}@0.3", f"{emotion}@0.6", emotion)
    )
    assert abs(all_of_it - none) > 0.3
    assert (some - none) / (all_of_it - none) == pytest.approx(0.3, abs=0.17)
    assert (more - none) / (all_of_it - none) == pytest.approx(0.6, abs=0.12)
