"""What a network asks of PyTorch while it runs, operator by operator."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """In its block every operator goes through `call`."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        """Of the network's code, where there was something to note."""

    def __torch_dispatch__(
        self,
        function: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.call(function, args, dict(kwargs or {}))

    @abstractmethod
    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Returns what the operator does, or another in its place."""
