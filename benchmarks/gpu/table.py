#!/usr/bin/env python3
"""A run's archive as a table, what was predicted beside what was measured.

    python benchmarks/gpu/table.py ARCHIVE [--unpack DIR]

Needs Python alone. --unpack also puts the results and logs into DIR, where none of them may be yet.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

CARDS = "predicted (H100, H200)"
Row = tuple[str, str, str, str]
"""Step, what, predicted, measured."""
Content = dict[str, Any]


def fail(text: str, code: int) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(code)


def read(path: Path) -> dict[str, Content]:
    """The JSON files of an archive by step.

    Raises:
        ValueError: if it is no archive of a run.
    """
    found = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            names = archive.getnames()
            index = [name for name in names if name.endswith("-run.json")]
            if len(index) != 1:
                raise ValueError(f"{path} is no archive of a run; name one that run.sh wrote")
            run = index[0].removesuffix("-run.json")
            for name in names:
                if name.startswith(f"{run}-") and name.endswith(".json"):
                    file = archive.extractfile(name)
                    if file:
                        step = name.removeprefix(f"{run}-").removesuffix(".json")
                        found[step] = json.loads(file.read())
    except (OSError, EOFError, zlib.error, tarfile.TarError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({error}); name an archive of run.sh's") from None
    return found


def number(value: Any) -> str:
    """To three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def between(limits: Any) -> str:
    if not limits:
        return ""
    low, high = limits
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def outcomes(content: Content) -> Iterator[Row]:
    for name, step in content["steps"].items():
        said = f": {step['said']}" if step["said"] else ""
        yield name, "outcome", "", f"{step['outcome']} after {step['seconds']:.0f} s{said}"


def build(content: Content) -> Iterator[Row]:
    predicted = content["predicted"]["registers"]
    for kernel in content["kernels"]:
        name = kernel["kernel"].rpartition("::")[2]
        if name in predicted:
            yield "build", f"registers, {name}", number(predicted[name]), str(kernel["reg"])
    if content["kernels"]:
        stack = sum(kernel["stack"] for kernel in content["kernels"])
        yield "build", "bytes of stack, all kernels", "0", str(stack)


def facts(content: Content) -> Iterator[Row]:
    predicted = content["predicted"]
    for name, rate in content.get("rates", {}).items():
        known = predicted.get(name)
        yield "facts", name.replace("_", " "), number(known) if known else "", number(rate)
    for name in ("largest_mean_ulp", "largest_ulp"):
        if "ex2" in content:
            what = f"ex2.approx on [-0.2, 0], {name.replace('_', ' ')}"
            promised = "at most 2" if name == "largest_ulp" else ""
            yield "facts", what, promised, number(content["ex2"][name])


def checks(step: str, content: Content) -> Iterator[Row]:
    found = content["checks"]
    off = [check for check in found if not check["ok"]]
    yield step, "checks off", "0", f"{len(off)} of {len(found)}"
    for dtype in dict.fromkeys(check["dtype"] for check in found):
        own = [check for check in found if check["dtype"] == dtype and "error" in check]
        if own:
            worst = max(own, key=lambda check: check["error"] / check["limit"])
            what = f"{dtype}, nearest to its limit: {worst['operator']} {worst.get('case', '')}"
            limit = f"at most {number(worst['limit'])}"
            yield step, what.strip(), limit, number(worst["error"])


def sanitize(content: Content) -> Iterator[Row]:
    for tool in content["tools"]:
        yield "sanitize", tool["tool"], "exit code 0", f"exit code {tool['exit_code']}"


def scan(content: Content) -> Iterator[Row]:
    for one in content["scans"]:
        shape = "B{batch} L{length} {dtype} {inputs}".format(**one)
        for name, us in one["median_us"].items():
            variant = (one["plan"] if name == "dvmsr" else name).split()[0]
            predicted = between((one["predicted_us"] or {}).get(variant))
            yield "scan", f"{shape}, {name}, µs", predicted, number(us)
        if "times_faster_than_mamba_ssm" in one:
            wanted = "5 wanted" if one["batch"] == 1 and one["length"] >= 65_536 else ""
            times = number(one["times_faster_than_mamba_ssm"])
            yield "scan", f"{shape}, times faster than mamba-ssm", wanted, times
        if "fraction_of_floor" in one:
            yield (
                "scan",
                f"{shape}, fraction of floor",
                "0.5 wanted",
                number(one["fraction_of_floor"]),
            )


def network(content: Content) -> Iterator[Row]:
    for one in content["runs"]:
        what = "{size} {dtype}, {name}".format(**one)
        times = one["times"]
        small = one["size"] == "256x256" and one["dtype"] == "float16" and "graph" in one["name"]
        wanted = "1 wanted" if small and one["name"].startswith("dvmsr") else ""
        spread = f"{number(times['p50_ms'])} ({number(times['p95_ms'])}, {number(times['p99_ms'])})"
        yield "network", f"{what}, ms p50 (p95, p99)", wanted, spread
        off = one["against_cpu_fp32"]
        half = one["dtype"] == "float16"
        wanted = "at least 60" if half else "at most 2e-4"
        measured = off["psnr_db"] if half else off["max_abs"]
        yield "network", f"{what}, {'PSNR dB' if half else 'max abs'}", wanted, number(measured)


def profile(content: Content) -> Iterator[Row]:
    for kernel in content["network_256x256_fp16"][:10]:
        yield "profile", kernel["kernel"][:60], "", f"{number(kernel['us'])} µs"


ROWS = {
    "run": outcomes,
    "build": build,
    "facts": facts,
    "correct": lambda content: checks("correct", content),
    "plugin": lambda content: checks("plugin", content),
    "sanitize": sanitize,
    "scan": scan,
    "network": network,
    "profile": profile,
}
"""By step; `models` and `train` have tables of their own in their logs."""


def rows(contents: dict[str, Content]) -> Iterator[Row]:
    """All rows, in the order of the steps; what was left out for want of time, too."""
    for step, make in ROWS.items():
        if step in contents:
            yield from make(contents[step])
            for what in contents[step].get("left_out", ()):
                yield step, what, "", "left out for want of time"


def text(found: list[Row]) -> str:
    """A Markdown table."""
    head: list[Row] = [("step", "what", CARDS, "measured"), ("---", "---", "---", "---")]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in head + found
    )


def unpack(path: Path, folder: Path) -> None:
    """The files of an archive.

    Raises:
        ValueError: if one of that name is there already.
    """
    with tarfile.open(path) as archive:
        for member in archive.getmembers():
            if (folder / member.name).exists():
                raise ValueError(f"{folder / member.name} exists; unpack into another folder")
        folder.mkdir(parents=True, exist_ok=True)
        archive.extractall(folder, filter="data")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--unpack", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    try:
        print(text(list(rows(read(arguments.archive)))))
        if arguments.unpack:
            unpack(arguments.archive, arguments.unpack)
    except ValueError as error:
        fail(str(error), 1)


if __name__ == "__main__":
    main()
