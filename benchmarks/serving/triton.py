"""How fast a Triton server enlarges pictures, against `dvmsr bench`, and whether its memory stays.

    python benchmarks/serving/triton.py [--model student] [--size 256x256] [--clients 2 4]
        [--requests 2000] [--seconds 170]

Starts the server of the tests (`tests/helpers/triton_server.py`) with the Python backend's models.
For two thirds of `--seconds` images go through the one for tensors, from each number of `--clients`
in turn and by what `dvmsr bench` measures: `ratio` is the server's throughput relative to that,
which should be at least 0.9. Two clients keep the server busy, more of them wait. Then small
pictures' files go through the other until there were `--requests` or the time is over; resident
memory of the server and what it started is read at ten moments. Writes
benchmarks/results/serving-triton.json.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks" / "cpu"), str(ROOT / "tests" / "helpers")]

from measure import write  # noqa: E402
from triton_requests import inputs, picture_arrays  # noqa: E402
from triton_server import Installation, Server, triton_serving  # noqa: E402

from dvmsr.data.natural_image import natural_image  # noqa: E402
from dvmsr.export.triton.export import export_triton  # noqa: E402
from dvmsr.export.triton.layout import Request  # noqa: E402
from dvmsr.runtime import Upscaler  # noqa: E402
from dvmsr.runtime.bench import machine  # noqa: E402
from dvmsr.runtime.images.arrays import from_planes  # noqa: E402
from dvmsr.utils.sizes import parse_size  # noqa: E402

MOMENTS = 10
SMALL = (16, 16)
"""Height and width of the pictures that memory is watched with."""
PER_TURN = 16
"""Images of each between two turns of the others, about."""


def ask_all(
    pool: ThreadPoolExecutor, clients: list[Any], model: str, asked: list[Any], each: int
) -> list[float]:
    """Seconds of every request, when each client sends so many, one after the other."""

    def send(client: Any) -> list[float]:
        times = []
        for _ in range(each):
            start = time.perf_counter()
            client.infer(model, asked)
            times.append(time.perf_counter() - start)
        return times

    return [seconds for times in pool.map(send, clients) for seconds in times]


def throughput(
    pool: ThreadPoolExecutor,
    clients: dict[int, list[Any]],
    model: str,
    size: tuple[int, int],
    end: float,
) -> dict[str, Any]:
    """Images per second of the server and of what `dvmsr bench` measures, in turns until `end`.

    Args:
        clients: by their number.
    """
    network = Upscaler.from_file(model).network
    image = natural_image((1, *size))
    asked = inputs("grpc", {"input": image})
    latencies: dict[int, list[float]] = {number: [] for number in clients}
    served: dict[int, list[float]] = {number: [] for number in clients}
    alone: list[float] = []
    ask_all(pool, clients[max(clients)], "net", asked, 1)
    network.seconds(image)
    while time.monotonic() < end or not alone:
        for number, some in clients.items():
            each = max(1, PER_TURN // number)
            start = time.perf_counter()
            latencies[number] += ask_all(pool, some, "net", asked, each)
            served[number].append((time.perf_counter() - start) / (each * number))
        alone.append(sum(network.seconds(image) for _ in range(PER_TURN)) / PER_TURN)
    return {
        "size": f"{size[0]}x{size[1]}",
        "bench_per_second": 1 / float(np.median(alone)),
        "turns": len(alone),
        "by_clients": {
            number: {
                "per_second": 1 / float(np.median(served[number])),
                "ratio": float(np.median(np.divide(alone, served[number]))),
                "ratios": list(np.divide(alone, served[number])),
                "seconds": percentiles(latencies[number]),
            }
            for number in clients
        },
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{n}": float(np.percentile(seconds, n)) for n in (50, 95, 99)}


def memory(
    pool: ThreadPoolExecutor, clients: list[Any], server: Server, requests: int, end: float
) -> dict[str, Any]:
    """Resident memory while small pictures' files are enlarged."""
    buffer = io.BytesIO()
    pixels = from_planes(natural_image((1, *SMALL)), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    asked = inputs("grpc", picture_arrays(buffer.getvalue()))
    each = max(1, requests // (MOMENTS * len(clients)))
    latencies, resident = [], []
    while time.monotonic() < end and len(latencies) < requests:
        latencies += ask_all(pool, clients, "net-pictures", asked, each)
        resident.append(resident_mib(server))
    return {
        "clients": len(clients),
        "requests": len(latencies),
        "resident_mib": resident,
        "seconds": percentiles(latencies),
    }


def resident_mib(server: Server) -> int:
    """Of the server and its stubs; what they share counts for each."""
    total = 0
    for process in (server.process.pid, *server.children()):
        status = Path(f"/proc/{process}/status").read_text()
        total += int(status.split("VmRSS:")[1].split()[0])
    return total // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="student")
    parser.add_argument("--size", default="256x256")
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=170)
    told = parser.parse_args()
    size = parse_size("--size", told.size)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = folder / "models"
        export_triton([told.model], models, Request(models), "python", "net")
        (folder / "triton").mkdir()
        installation = Installation.make(folder / "triton")
        with (
            triton_serving(installation, models, folder / "log") as server,
            ThreadPoolExecutor(max(told.clients)) as pool,
        ):
            clients = {n: [server.client("grpc") for _ in range(n)] for n in told.clients}
            speed = throughput(pool, clients, told.model, size, start + told.seconds * 2 / 3)
            most = clients[max(clients)]
            watched = memory(pool, most, server, told.requests, start + told.seconds)
    write(
        "serving-triton",
        {
            "model": told.model,
            "throughput": speed,
            "memory": watched,
            "machine": machine.describe(),
        },
    )


if __name__ == "__main__":
    main()
