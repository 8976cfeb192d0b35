"""How long a model takes to load and how much memory it takes, in a process of its own."""

import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from dvmsr.errors import DvmsrError
from dvmsr.runtime.backends.base import Enlarger
from dvmsr.runtime.backends.tensors import TensorNetwork
from dvmsr.utils import child_python, signals
from dvmsr.utils.arrays import read_arrays
from dvmsr.utils.console import notice, prints_aside
from dvmsr.utils.memory import peak_resident

Shape = tuple[int, int, int]
"""Batch, height and width."""


@dataclass(frozen=True)
class Probe:
    """What one fresh process took; memory in bytes, None where it is not known."""

    load_seconds: float
    """From a started Python to a network that is ready, its libraries' imports included."""
    loaded_bytes: int | None
    """Largest resident memory of the process until then."""
    peak_bytes: int | None
    """Largest resident memory of the process until the end of one run."""
    device_bytes: int | None
    """Peak memory on the GPU; None on a processor."""


def probe(
    spec: str,
    threads: int | None,
    given: Shape | Path,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> Probe:
    """Load a model in a new process, which ends with this one, and run it once.

    Args:
        given: the shape of an input of DVMSR, or an `.npz` file with arrays for any network.
        threads, trust_engine, time_limit: as of `spec.load`.

    Raises:
        DvmsrError: if that fails.
    """
    arguments = [spec, threads, given, trust_engine, time_limit]
    command = child_python.command(__name__, json.dumps(arguments, default=str))
    result = signals.run(command)
    if result.returncode:
        lines = result.stderr.strip().splitlines()
        reason = lines[-1].removeprefix("error: ") if lines else "it was ended from outside"
        raise DvmsrError(f"measuring the memory of {spec} failed ({reason})")
    return Probe(**json.loads(result.stdout))


def main() -> None:
    """In the new process: print a `Probe` as JSON, or one line that says what failed."""
    spec, threads, given, trust_engine, time_limit = json.loads(sys.argv[1])
    start = time.perf_counter()
    from dvmsr.runtime.spec import load, open_tensors

    network: Enlarger | TensorNetwork
    try:
        with prints_aside():
            if isinstance(given, str):
                network = open_tensors(spec, threads, trust_engine, time_limit)
            else:
                network = load(spec, threads, trust_engine, time_limit).network
            seconds = time.perf_counter() - start
            loaded = peak_resident()
            if isinstance(network, TensorNetwork):
                network(**read_arrays(Path(given)))
            else:
                batch, height, width = given
                network(np.full((batch, 3, height, width), 0.5, np.float32))
    except (DvmsrError, MemoryError) as error:
        notice(f"error: {error or 'not enough memory'}")
        sys.exit(1)
    found = Probe(seconds, loaded, peak_resident(), network.device_memory())
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
