"""Which pictures are drawn where there is no time for all of them: every n-th, evenly."""

LEAST = 1 / 6  # of the pictures is drawn however late it is: at 25 a second still a little over 4,
LEAST_TIME = 0.25  # or as many as take this share of the time
SMOOTHED = 0.3  # share of the last hop in what a picture costs
ROUNDING = 1e-9


class Fluency:
    """Chooses so that a hop's pictures fit into the time that is left for them.

    What is left out is spread: at a share of a half every second picture is drawn, whatever the
    length of a hop.
    """

    def __init__(self, picture_s: float) -> None:
        """picture_s: seconds from one picture to the next."""
        self._picture_s = picture_s
        self._cost_s = 0.0  # of a picture
        self._credit = 0.0  # of pictures; at 1 one is drawn

    def choose(self, count: int, room_s: float) -> list[bool]:
        """Which of the next `count` pictures are drawn, where `room_s` is left for them all."""
        share, needed_s = 1.0, count * self._cost_s
        if needed_s > max(room_s, 0):
            least = min(LEAST, LEAST_TIME * self._picture_s / self._cost_s)
            share = max(least, room_s / needed_s)
        chosen = []
        for _ in range(count):
            self._credit += share
            drawn = self._credit > 1 - ROUNDING
            self._credit -= drawn
            chosen.append(drawn)
        return chosen

    def spent(self, count: int, seconds: float) -> None:
        """So long took `count` pictures."""
        if count:
            known = self._cost_s or seconds / count
            self._cost_s = known + SMOOTHED * (seconds / count - known)
