"""What a backend is that defines nothing but the call."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from dvmsr.errors import IncompatibleModelError, UsageError
from dvmsr.runtime.backends.base import Network

IMAGE = np.zeros((1, 3, 2, 2), np.float32)


class Plain(Network):
    calls = 0

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        return image.repeat(2, 2).repeat(2, 3)


def test_it_is_timed_by_one_call() -> None:
    network = Plain()
    assert network.seconds(IMAGE) > 0
    assert (network.calls, network.clock) == (1, "wall clock")


def test_it_says_what_it_cannot() -> None:
    network = Plain()
    assert not network.streams
    with pytest.raises(IncompatibleModelError, match="whole images only"):
        network.stream([IMAGE])
    with pytest.raises(UsageError, match="leave out --layers"):
        network.layers()
    with pytest.raises(UsageError, match="leave out --layers"):
        network.layer_values(IMAGE, ["output"])


def test_what_it_has_not_is_not_told() -> None:
    network = Plain()
    assert (network.device_memory(), network.details()) == (None, {})
    assert network.usual_shape == (None, None, None)
