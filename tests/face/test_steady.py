"""What a film's face is given up to, where it is seen less and less."""

import numpy as np
import pytest

from moda_cli.face.steady import let_go


@pytest.mark.parametrize(
    ("share", "filmed"), [(0.0, 1.0), (0.125, 0.75), (0.25, 0.5), (0.4, 0.2), (0.5, 0), (1, 0)]
)
def test_below_half_a_share_the_film_is_mixed_in(share: float, filmed: float) -> None:
    drawn = np.full((4, 6, 3), 200, np.uint8)
    let_go(drawn, np.full((4, 6, 3), 100, np.uint8), share)
    np.testing.assert_allclose(drawn, 200 - 100 * filmed, atol=0.5)
