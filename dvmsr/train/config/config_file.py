"""Options of a run from three places: a recipe, a TOML file and the command line, each overriding
what comes before.

    batch = 64
    lr = 5e-4
    [network]
    channels = 48
    depths = [2, 2]
"""

import reprlib
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from dvmsr.config import DVMSRConfig
from dvmsr.errors import UsageError
from dvmsr.train.config.recipes import recipe
from dvmsr.train.config.settings import Distillation, Settings
from dvmsr.utils.paths import check_input, unreadable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NETWORK = "network"
OTHERS: dict[str, Any] = {
    "data": list, "val": Path, "cache": Path, "teacher": Path, "init": Path, "preset": str,
    "scale": int, "threads": int, "device": str, NETWORK: dict,
}  # fmt: skip
"""What a file may hold besides the fields of `Settings` and `Distillation`, with its type."""
COMMAND_LINE = ("output", "resume", "recipe", "config")
"""What only the command line tells."""


def resolve(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run: those of its recipe, then of its file, then those given themselves.

    Args:
        given: options by name, `recipe` and `config` among them.

    Raises:
        UsageError: if there is no such recipe or file, or the file holds anything unknown.
    """
    values: dict[str, Any] = {}
    layers = [recipe(given["recipe"])] if given.get("recipe") else []
    if given.get("config"):
        layers.append(read_config(given["config"]))
    for layer in (*layers, given):
        if "steps" in layer or "minutes" in layer:
            values.pop("steps", None)
            values.pop("minutes", None)
        if "preset" in layer:
            values.pop(NETWORK, None)
        if "scale" in layer and NETWORK in values:
            values[NETWORK] = {k: v for k, v in values[NETWORK].items() if k != "scale"}
        merged = {**values.get(NETWORK, {}), **layer.get(NETWORK, {})}
        values |= layer
        if merged:
            values[NETWORK] = merged
    return values


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file. Paths in it are relative to the working directory.

    Raises:
        UsageError: if it is missing, no TOML, or holds something unknown or of a wrong type.
        DvmsrError: if it cannot be read.
    """
    check_input(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    except (ValueError, RecursionError) as error:  # also what is no UTF-8
        raise UsageError(f"{path} is no TOML file ({error}); correct it") from None
    types = OTHERS | get_type_hints(Settings) | get_type_hints(Distillation)
    values = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in COMMAND_LINE:
            raise UsageError(f"{path} holds {key}; give that on the command line instead")
        if name not in types:
            raise UsageError(f"{path} holds {key}, which is no option of training; remove it")
        values[name] = _typed(path, key, value, types[name])
    unknown = sorted(set(values.get(NETWORK, {})) - {field.name for field in fields(DVMSRConfig)})
    if unknown:
        raise UsageError(f"{path} holds {NETWORK}.{unknown[0]}, which no network has; remove it")
    return values


def _typed(path: Path, key: str, value: Any, kind: Any) -> Any:
    """The value as the command line would give it."""
    if value == "" or (kind is list and isinstance(value, list) and "" in value):
        raise UsageError(f"{path} has nothing for {key}; name something or remove it")
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is list:
        names = [value] if isinstance(value, str) else value
        if isinstance(names, list) and all(isinstance(name, str) for name in names):
            return [Path(name) for name in names]
    elif isinstance(value, kind) and isinstance(value, bool) == (kind is bool):
        return value
    elif type(value) is int and isinstance(0.5, kind):
        return float(value)
    raise UsageError(
        f"{path} has a wrong kind of value for {key}, {reprlib.repr(value)}; correct it"
    )
