"""Edits of motion: each is seen, none without being asked for, and pieces do not matter."""

import itertools

import pytest
import torch
from torch import Tensor

from bundled_motion import articulators, bundled_model, motion_of, speech
from moda_cli.config import RenderConfig
from moda_cli.control.edits import Edits
from moda_cli.control.timeline import Entry, Timeline
from moda_cli.motion import ARTICULATORS, POSE

JAW, LID = ARTICULATORS.index("jaw"), ARTICULATORS.index("lid_a")


@pytest.fixture(scope="module")
def motion() -> Tensor:
    return motion_of("happy", speech(8.0))


def timeline(**entries: tuple[float, float, float]) -> Timeline:
    """Tracks by name: (at, until, value)."""
    return Timeline.of(
        Entry(at, {name: value}, name, until) for name, (at, until, value) in entries.items()
    )


def edited(
    motion: Tensor, asked: Timeline | None = None, cuts: tuple[int, ...] = (), **config: object
) -> Tensor:
    edits = Edits(
        bundled_model().stats.neutral,
        asked or Timeline(),
        RenderConfig(**config),  # type: ignore[arg-type]
        seed=7,
    )
    ends = [0, *cuts, len(motion)]
    return torch.cat(list(edits(motion[a:b] for a, b in itertools.pairwise(ends))))


def blinks(motion: Tensor) -> int:
    shut = articulators(motion)[:, LID] > 8
    return int((shut[1:] & ~shut[:-1]).sum())


def test_what_is_not_asked_for_changes_no_bit(motion) -> None:
    assert torch.equal(edited(motion), motion)
    asked = timeline(pitch=(6, 7, 9.0))
    assert torch.equal(edited(motion, asked)[:140], motion[:140])


@pytest.mark.parametrize("rate", [None, 30.0])
def test_pieces_do_not_matter(motion, rate) -> None:
    asked = timeline(smooth=(2, 4, 0.3), hold=(5, 6, 5), lips=(0, 9, 0.5), yaw=(1, 3, 9.0))
    whole = edited(motion, asked, blink_rate=rate)
    assert len(whole) == len(motion)
    pieces = edited(motion, asked, (3, 64, 70, 128, 199), blink_rate=rate)
    torch.testing.assert_close(pieces, whole, atol=1e-5, rtol=0)


def test_head_gaze_and_gains_follow_the_timeline(motion) -> None:
    asked = timeline(pitch=(2, 4, -9.0), roll=(2, 4, 5.0), lips=(4, 6, 0.2), head=(6, 9, 0.0))
    made = edited(motion, asked)
    turned = (made - motion)[:, POSE]
    torch.testing.assert_close(turned[70], torch.tensor([-9.0, 0, 5]), atol=1e-4, rtol=0)
    assert turned[:40].abs().max() == 0
    opened = [float(articulators(each)[110:140, JAW].std()) for each in (motion, made)]
    assert opened[1] == pytest.approx(0.2 * opened[0], rel=0.1)
    assert (made[160:, POSE] - bundled_model().stats.neutral[POSE]).abs().max() < 1e-4
    assert timeline(yaw=(1, 2, 3.0)).gaze(torch.arange(3.0)) is None
    looks = timeline(gaze_x=(1, 2, 0.5)).gaze(torch.tensor([0.5, 1.5, 2.5]))
    assert looks.tolist() == [[0, 0], [0.5, 0], [0, 0]]  # type: ignore[union-attr]


def test_idle_closes_the_mouth_and_leaves_the_smile(motion) -> None:
    made = articulators(edited(motion, timeline(idle=(2, 5, 1.0))))[60:115]
    spoken = articulators(motion)[60:115]
    assert spoken[:, JAW].std() > 5
    assert made[:, JAW].abs().max() < 0.5
    smile = ARTICULATORS.index("smile")
    torch.testing.assert_close(made[:, smile], spoken[:, smile], atol=1e-2, rtol=0)


def test_what_is_held_stands_still(motion) -> None:
    made = edited(motion, timeline(hold=(3, 5, 3)))
    held = made[80:120]
    assert (held - held[0]).abs().max() < 1e-4
    assert (motion[80:120] - motion[80]).abs().max() > 0.01
    assert (made[1:] - made[:-1]).abs().max() <= (motion[1:] - motion[:-1]).abs().max() * 2


def test_smoothing_is_only_where_it_is_asked_for(motion) -> None:
    made = edited(motion, timeline(smooth=(2, 5, 0.4)))
    assert torch.equal(made[:44], motion[:44])

    def wobble(part: Tensor) -> float:
        return float(torch.diff(articulators(part)[:, JAW], 2).abs().mean())

    assert wobble(made[60:110]) < 0.1 * wobble(motion[60:110])


def test_a_blink_comes_when_it_is_asked_for(motion) -> None:
    quiet = edited(motion, blink=False)
    made = edited(motion, timeline(blink=(3, float("inf"), True)), blink=False)
    lids = articulators(made)[:, LID]
    assert blinks(quiet) == 0
    assert blinks(made) == 1
    assert float(lids[75:82].max()) == pytest.approx(14, abs=0.5)


@pytest.mark.parametrize("rate", [0, 15, 40])
def test_blinks_come_at_the_rate_that_is_asked_for(rate: float) -> None:
    motion = motion_of("none", speech(10.0)).repeat(6, 1)  # a minute
    assert 6 <= blinks(motion) <= 24  # the model's own, at random
    made = edited(motion, blink_rate=rate)
    assert blinks(made) == pytest.approx(rate, abs=max(1, 0.15 * rate))
    still = torch.cat([bundled_model().stats.neutral[None]] * 1500)
    assert blinks(edited(still, blink_rate=rate)) == blinks(made)  # whatever is said
    others = [k for k in range(8) if not ARTICULATORS[k].startswith("lid")]
    torch.testing.assert_close(
        articulators(made)[:, others], articulators(motion)[:, others], atol=2e-3, rtol=0
    )
