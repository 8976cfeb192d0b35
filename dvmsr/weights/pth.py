"""The tensors of a `.pth` file without PyTorch.

Such a file is a zip archive: a pickle that tells names and shapes, and the raw numbers of every
storage. This pickle is read with three names alone, of which none runs code of the file.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Weights = dict[str, NDArray[np.float32]]


def read(path: Path) -> Weights:
    """The FP32 tensors of a state dict, alone or under `params_ema` or `params`.

    For files whose content is known; `dvmsr.checkpoint` says of others what is wrong with them.

    Raises:
        ValueError: if there is anything else in it.
    """
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        content = _Reader(archive, index.removesuffix("data.pkl")).load()
    for key in ("params_ema", "params"):
        if key in content:
            return dict(content[key])
    return dict(content)


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        known = {
            "collections.OrderedDict": OrderedDict,
            "torch.FloatStorage": np.dtype("<f4"),
            "torch._utils._rebuild_tensor_v2": _tensor,
        }
        if f"{module}.{name}" not in known:
            raise ValueError(f"{module}.{name} is no part of a tensor")
        return known[f"{module}.{name}"]

    def persistent_load(self, identity: Any) -> NDArray[np.float32]:
        """A storage, in one dimension."""
        _, dtype, key, *_ = identity
        return np.frombuffer(self.archive.read(f"{self.folder}data/{key}"), dtype)


def _tensor(
    storage: NDArray[np.float32], offset: int, shape: tuple[int, ...], strides: object, *_: object
) -> NDArray[np.float32]:
    """
    Raises:
        ValueError: if its numbers do not lie one after the other.
    """
    values = storage[offset : offset + math.prod(shape)].reshape(shape)
    if tuple(step // values.itemsize for step in values.strides) != strides:
        raise ValueError(f"a tensor has the strides {strides}")
    return values
