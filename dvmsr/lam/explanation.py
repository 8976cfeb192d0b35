"""What is found of a network."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.data.pairs import Pixels


@dataclass(frozen=True)
class Explanation:
    """What was found of one network."""

    name: str
    diffusion_index: float
    gini: float
    detail: float
    """The detector's value: how much detail the network puts into the window."""
    detail_of_blurred: float
    """The same where it is given the blurred input."""
    attributed: float
    """The sum of all attributions, which would be the difference of these two if the path had
    infinitely many steps."""
    attribution: NDArray[np.float64]
    """(h, w), of the patch."""
    sr: Pixels
    """What the network makes of the patch, (s*h, s*w, 3)."""

    def figures(self) -> dict[str, Any]:
        """Without the pictures, JSON-ready."""
        pictures = ("attribution", "sr")
        return {key: value for key, value in vars(self).items() if key not in pictures}
