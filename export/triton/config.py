"""A model's configuration for Triton: `ModelConfig` of model_config.proto, as protobuf text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Message = Mapping[str, Any]
"""Fields by name: text, numbers, `Symbol`, messages, and lists of numbers or messages."""


@dataclass(frozen=True)
class Symbol:
    """A value of an enumeration."""

    name: str


def to_text(message: Message) -> str:
    """The message as protobuf text, a field on each line."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, Mapping) for part in parts):
            yield f"{name}: {_scalar(value)}"
            continue
        for part in parts:
            yield f"{name} {{"
            yield from (f"  {line}" for line in _lines(part))
            yield "}"


def _scalar(value: object) -> str:
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, str | bool):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def parameters(**values: object) -> list[Message]:
    """The field `parameters`, which backends read: text by name."""
    return [{"key": name, "value": {"string_value": str(value)}} for name, value in values.items()]


def instances(count: int, kind: str) -> Message:
    """The field `instance_group`: how often a model is loaded, and on what.

    Args:
        kind: `CPU`, `GPU`, or `AUTO` for a GPU where there is one.
    """
    return {"count": count, "kind": Symbol(f"KIND_{kind}")}
