"""How much the service takes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of one service."""

    pixels: int = 16_000_000
    """Of a picture, all its frames or pages together."""
    bytes: int = 64 << 20
    """Of a picture's file."""
    queue: int = 16
    """Pictures that are received, wait, are computed or are sent back at one time."""
    per_client: int = 8
    """Of these, those of one address."""
    seconds: float = 600.0
    """That a picture may be received, and that it may be computed."""
    stall: float = 30.0
    """Seconds in which a client must send or take something."""
