"""A Ray cluster (extra `ray`): joined, asked what it holds, and left."""

from __future__ import annotations

import importlib
import logging
import os
import re
import signal
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dvmsr.errors import DvmsrError, MissingComponentError, UsageError
from dvmsr.utils import signals

_CLIENT = re.compile(r"ray://([^/:]+):(\d{1,5})")
_PATIENCE = 10.0
"""Seconds for a cluster to answer."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Against Ray's reports to its makers and a warning; what the user has set stays."""


class Membership:
    """Of this process in a Ray cluster.

    Args:
        address: `local` for one on this machine that ends with this, `auto` for one that runs on
            it, or `ray://host:port`.

    Raises:
        UsageError: if the address is none of these.
    """

    ray: Any
    """The module, once it is joined."""

    def __init__(self, address: str) -> None:
        found = _CLIENT.fullmatch(address)
        self._host = (found[1], int(found[2])) if found else None
        if address not in ("auto", "local") and self._host is None:
            raise UsageError(f"--ray must be auto, local or ray://host:port, not {address}")
        self._address = address

    def join(self, part: str) -> Any:
        """Begin it, until `leave`.

        Args:
            part: the module of Ray that is wanted.

        Returns:
            The module.

        Raises:
            MissingComponentError: if a library is missing.
            DvmsrError: if the cluster cannot be reached.
        """
        os.environ.update({**_SETTINGS, **os.environ})  # some are read when Ray is imported
        try:
            self.ray = importlib.import_module("ray")
            module = importlib.import_module(part)
        except ModuleNotFoundError as error:
            raise MissingComponentError(
                f"--ray needs {error.name}: pip install 'dvmsr[ray]'"
            ) from None
        handler = signal.getsignal(signal.SIGTERM)
        with self.reached(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if self._host is not None:
                socket.create_connection(self._host, _PATIENCE).close()
            own = {"include_dashboard": False} if self._address == "local" else {}
            with suppress(AttributeError):  # it has no switch for what it prints of lost workers
                self.ray._private.worker.print_to_stdstream = lambda *_, **__: None
            self.ray.init(self._address, log_to_driver=False, logging_level=logging.FATAL, **own)
        signal.signal(signal.SIGTERM, handler)  # Ray has one of its own
        return module

    def leave(self) -> None:
        """End it, and a `local` cluster."""
        self.ray.shutdown()

    def most_workers(self, processors: int, gpus: int) -> int:
        """How many that want so much each the cluster has room for.

        Raises:
            MissingComponentError: if none.
            DvmsrError: if the cluster does not answer.
        """
        with self.reached():
            there = self.ray.cluster_resources()
        wanted = {"CPU": processors, "GPU": gpus}
        for kind, number in wanted.items():
            if there.get(kind, 0) < number:
                raise MissingComponentError(
                    f"the Ray cluster {self._address} has {there.get(kind, 0):.0f} {kind}s where a "
                    f"worker needs {number}; name another cluster or model, or lower --threads"
                )
        return int(min(there[kind] // number for kind, number in wanted.items() if number))

    def get(self, answer: Any) -> Any:
        """What a reference stands for, when it is there.

        Raises:
            Ended: if a signal has come.
        """
        signals.wait(lambda seconds: self.ray.wait([answer], timeout=seconds)[0])
        return self.ray.get(answer)

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Whatever Ray raises in the block becomes a sentence.

        Raises:
            DvmsrError: with it.
        """
        try:
            yield
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = lines[-1].rstrip(".")[:300] if lines else type(error).__name__
            raise DvmsrError(
                f"the Ray cluster {self._address} cannot be used ({reason}); check that it runs, "
                "with the same versions of Python, Ray and dvmsr on every machine"
            ) from None
