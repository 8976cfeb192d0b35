"""`dvmsr serve` under 20 users at a time for a minute: is each answered, and does its memory stay?

    python benchmarks/serving/serve.py [--users 20] [--seconds 60] [--size 96x128]

Every user sends a picture, waits for the answer, and sends the next; after 429 and 503 when
`Retry-After` says. Half of them share an address, the others have one each. Prints how many
answers of each status there were, how long those with a picture took (p50, p95, p99), and the
resident memory of the service at the start (after one picture), in the middle
and at the end. Stores that in benchmarks/results/serving.json, and ends with 1 if a request had no
answer, an answer was none of 200, 429 and 503, a refusal did not say when to come back, or a
picture was not that of `dvmsr-infer`.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from dvmsr.runtime import Upscaler
from dvmsr.runtime.bench import machine
from dvmsr.utils.sizes import parse_size

RESULT = Path(__file__).resolve().parents[1] / "results" / "serving.json"
COMMAND = [sys.executable, "-c", "from dvmsr.entry import dvmsr; dvmsr()", "serve", "--port", "0"]
MODEL = "student"
BUSY = (429, 503)
PATIENCE = 300
"""Seconds for an answer."""


@dataclass
class Record:
    """What the users met; its lists and counters are shared by their threads."""

    expected: bytes
    statuses: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Of answers with a picture."""
    faults: Counter[str] = field(default_factory=Counter)


def picture(height: int, width: int) -> bytes:
    """A smooth one with some noise, as PNG."""
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).normal(0, 8, (height, width, 3))
    waves = [128 + 90 * np.sin((x + y) / length) for length in (5, 11, 23)]
    pixels = np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels_of(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.tobytes()


def ask(url: str, body: bytes, address: str) -> http.client.HTTPResponse:
    """The answer to a picture, on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    headers = {"X-Forwarded-For": address, "Connection": "close"}
    connection.request("POST", f"/enlarge?model={MODEL}", body, headers)
    return connection.getresponse()


def use(url: str, body: bytes, address: str, end: float, record: Record) -> None:
    """One user until that moment."""
    while (start := time.monotonic()) < end:
        try:
            answer = ask(url, body, address)
            data = answer.read()
        except OSError as error:
            record.faults[f"no answer: {type(error).__name__}"] += 1
            continue
        record.statuses[str(answer.status)] += 1
        if answer.status == 200:
            record.seconds.append(time.monotonic() - start)
            if pixels_of(data) != record.expected:
                record.faults["another picture"] += 1
        elif answer.status not in BUSY:
            record.faults[f"{answer.status}: {data[:200]!r}"] += 1
        elif (wait := answer.headers["Retry-After"]) is None:
            record.faults[f"{answer.status} without Retry-After"] += 1
        else:
            time.sleep(max(0, min(int(wait), end - time.monotonic())))


def resident(url: str) -> int:
    """Bytes that the service holds."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    found = (line.split() for line in lines if line.startswith("process_resident_memory_bytes "))
    return int(float(next(found)[1]))


def measure(url: str, users: int, seconds: float, size: tuple[int, int]) -> dict[str, Any]:
    """A minute of all users, and what they met."""
    body = picture(*size)
    with Image.open(io.BytesIO(body)) as image:
        record = Record(Upscaler.from_file(MODEL)(image).tobytes())
    assert ask(url, body, "192.0.2.1").status == 200
    memory = {"start": resident(url)}
    end = time.monotonic() + seconds
    addresses = [f"192.0.2.{1 if number % 2 else number + 2}" for number in range(users)]
    threads = [
        threading.Thread(target=use, args=(url, body, address, end, record))
        for address in addresses
    ]
    for thread in threads:
        thread.start()
    time.sleep(seconds / 2)
    memory["middle"] = resident(url)
    for thread in threads:
        thread.join()
    memory["end"] = resident(url)
    quantiles = {f"p{each}": np.percentile(record.seconds, each) for each in (50, 95, 99)}
    return {
        "users": users,
        "seconds": seconds,
        "size": list(size),
        "answers": dict(sorted(record.statuses.items())),
        "seconds_to_a_picture": {name: round(float(value), 3) for name, value in quantiles.items()},
        "resident_bytes": memory,
        "faults": dict(record.faults),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", default="96x128", metavar="HEIGHTxWIDTH")
    arguments = parser.parse_args()
    size = parse_size("--size", arguments.size)
    command = [*COMMAND, "--model", MODEL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            met = measure(url, arguments.users, arguments.seconds, size)
        finally:
            process.terminate()
    text = json.dumps(
        {"what": __doc__.splitlines()[0], "machine": machine.describe(), **met}, indent=1
    )
    RESULT.write_text(text + "\n")
    print(text)
    sys.exit(bool(met["faults"]))


if __name__ == "__main__":
    main()
