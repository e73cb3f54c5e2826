"""Emotion names and timelines."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moda_cli.config import EMOTIONS
from moda_cli.control import emotion_shares, parse_emotion
from moda_cli.errors import UsageError


def test_names_and_the_releases_own() -> None:
    assert parse_emotion("happy") == parse_emotion("Happiness") == ((0.0, 4),)
    assert parse_emotion("sadness") == ((0.0, EMOTIONS.index("sad")),)
    assert parse_emotion("0:neutral, 2.5:happy") == ((0.0, 5), (2.5, 4))


@pytest.mark.parametrize("text", ["joy", "", "x:happy", "2:happy,1:sad", "-1:happy", "nan:happy"])
def test_bad_timelines_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="--emotion"):
        parse_emotion(text)


@given(st.lists(st.floats(0.1, 9), min_size=1, max_size=5, unique=True), st.integers(0, 200))
def test_shares_sum_to_one_and_follow_the_timeline(times: list[float], start: int) -> None:
    timeline = [(0.0, 8), *((at, k % 8) for k, at in enumerate(sorted(times)))]
    shares = emotion_shares(timeline, start, 80)
    torch.testing.assert_close(sum(shares.values()), torch.ones(80))
    far = (start + 79) / 25
    if far > max(times) + 1:
        assert shares[timeline[-1][1]][-1] > 0.99
