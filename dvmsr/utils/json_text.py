"""JSON that others may have written, and values that it has no words for."""

import json
import math
from typing import Any


def parse(text: str | bytes) -> Any:
    """What a JSON text stands for.

    Raises:
        ValueError: if it is none, or has brackets beyond measure.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many brackets within each other") from None


def finite(value: Any) -> Any:
    """The value with null in place of every number in it that is not finite."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
