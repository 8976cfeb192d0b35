"""JSON that others may have written."""

import json
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
