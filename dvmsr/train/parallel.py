"""Several processes that train one network, each on its part of every batch, as torchrun starts
them. The first one logs, validates and saves."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError

AUTO = "auto"
PATIENCE = timedelta(hours=2)
"""How long the others wait for the first one, which validates meanwhile."""


@dataclass(frozen=True)
class Group:
    """This process among all of them; by default it is alone."""

    device: str = "cpu"
    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process logs, validates and saves."""
        return self.rank == 0

    def part(self, batch: int) -> slice:
        """Which patches of a batch are this process's.

        Raises:
            UsageError: if there are not equally many for each.
        """
        if batch % self.size:
            raise UsageError(
                f"--batch {batch} cannot be shared by {self.size} processes; "
                f"make it a multiple of {self.size}"
            )
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module, its gradients averaged over the processes."""
        if self.size == 1:
            return module
        with warnings.catch_warnings():
            # The option has a new name, which older versions of PyTorch do not know.
            warnings.simplefilter("ignore", FutureWarning)
            # The only buffers are constants, equal everywhere.
            return DistributedDataParallel(module, broadcast_buffers=False)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Averages over the processes, which call this with equal keys."""
        if self.size == 1:
            return dict(values)
        tensor = torch.tensor(list(values.values()), device=self.device)
        dist.all_reduce(tensor)
        return dict(zip(values, (tensor / self.size).tolist(), strict=True))

    def first(self, value: float) -> float:
        """The value of the first process."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(tensor, 0)
        return tensor.item()

    def largest(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor.item())


@contextmanager
def join(device: str) -> Iterator[Group]:
    """The group that the environment describes (RANK, WORLD_SIZE, LOCAL_RANK, as torchrun sets
    them), or one of this process alone. What others than the first tell on stderr is dropped.

    Args:
        device: `auto` becomes `cuda` where there is some, else `cpu`; `cuda` becomes one GPU for
            each process of a machine.

    Raises:
        UsageError: if it makes no sense.
        MissingComponentError: if the processes or their GPUs cannot be had.
        DvmsrError: if another process ends while the block waits for it.
    """
    if device == AUTO:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    told = os.environ.get("WORLD_SIZE", "1")
    if not told.isdecimal():
        raise UsageError(f"WORLD_SIZE is {told!r}, which is no number; unset it or use torchrun")
    size = int(told)
    if size == 1:
        yield Group(device)
        return
    on_gpu = device.startswith("cuda")
    try:
        if device == "cuda":
            device = f"cuda:{os.environ['LOCAL_RANK']}"
        if on_gpu:
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    except (KeyError, ValueError, RuntimeError, AssertionError) as error:
        raise MissingComponentError(
            f"{size} processes cannot train together ({str(error).splitlines()[0]}); "
            "start them with torchrun, at most one for each GPU"
        ) from None
    try:
        group = Group(device, dist.get_rank(), size)
        if group.is_first:
            yield group
        else:
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
                yield group
    except RuntimeError as error:
        if isinstance(error, dist.DistBackendError) or "gloo" in str(error):
            raise DvmsrError(
                "another process of the run has ended; mend what it told, then add --resume, or "
                "start anew if nothing was saved yet"
            ) from None
        raise
    finally:
        dist.destroy_process_group()
