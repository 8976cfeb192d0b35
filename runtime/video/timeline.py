"""Times of a stream that go on where those of its file start again."""

from fractions import Fraction

_BACK = Fraction(1, 2)
"""Seconds by which times may go back without being those of another recording."""


class Timeline:
    """Takes the times of one stream in their order; joined recordings begin again in the middle.

    Args:
        time_base: seconds.
        strict: whether equal times are not allowed.
    """

    def __init__(self, time_base: Fraction, strict: bool) -> None:
        self._back = _BACK / time_base
        self._strict = strict
        self._shift = 0
        self._last: int | None = None
        self._end = 0
        self.jumped: int | None = None
        """The first time at which another recording began."""

    def shift(self, time: int, duration: int) -> int:
        """What is to be added to a time; one that is too early is moved by one tick."""
        if self._last is not None and time + self._shift < self._last - self._back:
            self._shift = self._end - time
            self.jumped = self._end if self.jumped is None else self.jumped
        shift = self._shift
        if self._last is not None and time + shift < self._last + self._strict:
            shift = self._last + 1 - time
        self._last = time + shift
        self._end = self._last + max(1, duration)
        return shift
