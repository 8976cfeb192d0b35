"""Arrays that a command line describes, or a file holds."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dvmsr.errors import DvmsrError, IncompatibleModelError, UsageError
from dvmsr.utils.paths import check_input, unreadable

_SHAPE = re.compile(r"(?:(?P<name>[^\W\d]\w*)=)?(?P<sizes>\d+(?:x\d+)*)(?::(?P<type>\w+))?")
_MOST = 2**31
"""Elements of an array."""
TYPES = ("float32", "float16", "int64", "int32", "bool")
"""Of arrays that the command line describes."""


def parse_arrays(
    shapes: Sequence[str], given: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """The inputs that `--input` describes, and those of `--inputs`, by name.

    Args:
        shapes: `[NAME=]1x3x64x64[:TYPE]` each; those without a name take `names` in turn. Their
            values are uniform in [0, 1), whole numbers 0 or 1.
        given: what a file holds.
        names: of the inputs that there are.

    Raises:
        UsageError: if one of them makes no sense.
    """
    arrays = dict(given)
    generator = np.random.default_rng(0)
    for text in shapes:
        match = _SHAPE.fullmatch(text)
        if match is None or (match["type"] or "float32") not in TYPES:
            raise UsageError(
                f"--input {text} is not [NAME=]SIZES[:TYPE], such as 1x3x64x64 or "
                f"mask=1x64:int64, with a TYPE of {', '.join(TYPES)}"
            )
        name = match["name"] or next((n for n in names if n not in arrays), None)
        if name in arrays:
            raise UsageError(f"--input {text} gives {name} once more; give every input once")
        if name is None:
            raise UsageError(
                f"--input {text} is one too many: the inputs are {', '.join(names) or 'none'}"
            )
        sizes = [int(size) for size in match["sizes"].split("x")]
        if 0 in sizes or math.prod(sizes) > _MOST:
            raise UsageError(f"--input {text} has {math.prod(sizes)} elements; give 1 to {_MOST:,}")
        arrays[name] = random_array(tuple(sizes), match["type"] or "float32", generator)
    return arrays


def random_array(
    shape: tuple[int, ...],
    dtype: str,
    generator: np.random.Generator,
    low: float = 0.0,
    high: float = 1.0,
) -> NDArray[Any]:
    """Values uniform in [low, high), whole numbers one of low to high, truth values either."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        values = generator.random(shape, np.float32)
        return (np.float32(low) + np.float32(high - low) * values).astype(kind)
    return generator.integers(int(low), int(high), shape, endpoint=True).astype(kind)


def read_arrays(file: Path | None) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz` file by name; none of no file.

    Raises:
        UsageError: if there is no such file, or it holds something other than arrays of numbers by
            name.
        DvmsrError: if it cannot be read.
        IncompatibleModelError: if it is no such file.
    """
    if file is None:
        return {}
    check_input(file)
    try:
        arrays = np.load(file, allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile):
            raise UsageError(
                f"{file} is a single array without a name; write it with numpy.savez, by its name"
            )
        with arrays:
            return {name: _array(file, name, arrays) for name in arrays.files}
    except (DvmsrError, MemoryError):
        raise
    except OSError as error:
        raise unreadable(file, error) from None
    except Exception:  # what zipfile, pickle and NumPy make of other files
        raise IncompatibleModelError(
            f"{file} is no .npz file with arrays; write one with numpy.savez"
        ) from None


def _array(file: Path, name: str, arrays: Mapping[str, Any]) -> NDArray[Any]:
    """In the byte order of this machine."""
    try:
        array = np.array(arrays[name])
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        array = np.array(None)
    if array.dtype.kind not in "biufc":
        kind = {"O": "Python objects", "U": "text", "S": "text"}.get(array.dtype.kind, "no numbers")
        raise UsageError(f"{name} in {file} holds {kind}; give an array of numbers")
    return array.astype(array.dtype.newbyteorder("="), order="C")
