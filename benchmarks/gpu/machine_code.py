"""What the compiler makes of the scan's kernels, and the least time that it can take.

    python benchmarks/gpu/machine_code.py [--architectures 9.0 ...] [--dtypes float16 ...] [--json]

Needs nvcc, cuobjdump and nvdisasm, and no GPU. Registers, spills and shared memory of every
kernel; of those that walk tokens the instructions per warp and token and, from the model in
issue_model.py, cycles and microseconds. Exit code 3 if a kernel for N <= 16 spills.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import disassembly
import issue_model
from issue_model import CARDS, CLASSES, LENGTHS, MULTIPROCESSORS, VARIANTS
from results import OFF, step

from dvmsr.errors import DvmsrError, UsageError
from dvmsr.kernels import nvcc
from dvmsr.utils.threads import cores

DTYPES = {
    "float32": (4, "f32", "float"),
    "float16": (2, "f16", "__half"),
    "bfloat16": (2, "bf16", "__nv_bfloat16"),
}
"""The bytes of each, and what it is called in files and in kernels."""
UNITS = (
    "cuda/scan_relay_{}.cu",
    "cuda/scan_chunks_{}.cu",
    "cuda_library/selective_scan_backward.cu",
)


def compile_unit(source: Path, capability: str, folder: Path) -> Path:
    """A cubin of the kernels in a file below `plugins`, in the folder.

    Raises:
        MissingComponentError: if there is no compiler.
        DvmsrError: if that fails.
    """
    root, compiler = nvcc.sources(), nvcc.find()
    target = folder / f"{source.stem}_{capability}.cubin"
    command = [str(compiler.path), "-std=c++17", "-O3", "-cubin"]
    command += [f"-arch=sm_{capability.replace('.', '')}", f"-I{root / 'cuda'}"]
    done = subprocess.run(
        [*command, str(source), "-o", str(target)],
        capture_output=True,
        text=True,
        env=compiler.environment(),
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"nvcc ended with {done.returncode}"]
        reason = next((line for line in said if "error" in line), said[-1])
        raise DvmsrError(f"{source} does not compile for compute capability {capability}: {reason}")
    return target


def kernels(compiled: Path, capability: str) -> list[dict[str, Any]]:
    """What a cubin's kernels take and, if they walk, do per warp-token."""
    codes = disassembly.functions(compiled)
    found = []
    for usage in disassembly.resources(compiled):
        kernel, code = usage["kernel"], codes[usage["kernel"]]
        one = {"capability": capability, **usage, "states": issue_model.states_of(kernel)}
        one["spills"] = sum(issue_model.kind(instruction)[0] == "local" for instruction in code)
        if one["states"]:
            one["blocks"] = issue_model.blocks_per_multiprocessor(
                kernel, usage["reg"], usage["shared"], capability
            )
            one["threads"] = issue_model.threads_of(kernel)
            try:
                walked = issue_model.walked(kernel, code, capability)
                one |= {**vars(walked), "instructions": walked.instructions, "bound": walked.bound}
            except DvmsrError as error:
                one["unread"] = str(error)
        found.append(one)
    return found


def survey(capabilities: Sequence[str], dtypes: Sequence[str], jobs: int) -> list[dict[str, Any]]:
    """The kernels for these types, by compute capability and name."""
    sources = dict.fromkeys(unit.format(DTYPES[dtype][1]) for unit in UNITS for dtype in dtypes)
    pairs = [(capability, source) for capability in capabilities for source in sources]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:

        def one(pair: tuple[str, str]) -> list[dict[str, Any]]:
            capability, source = pair
            compiled = compile_unit(nvcc.sources() / source, capability, Path(folder))
            return kernels(compiled, capability)

        found = [kernel for several in pool.map(one, pairs) for kernel in several]
    names = tuple(DTYPES[dtype][2] for dtype in dtypes)
    kept = {
        (one["capability"], one["kernel"]): one
        for one in found
        if not one["states"] or any(f"<{name}," in one["kernel"] for name in names)
    }
    return sorted(
        kept.values(), key=lambda one: (capabilities.index(one["capability"]), one["kernel"])
    )


def spilled(one: dict[str, Any]) -> bool:
    """Whether a kernel keeps something in local memory that N <= 16 leaves room for."""
    spills = one["spills"] or one["stack"] or one["local"]
    return bool(spills) and (one["states"] or 0) <= issue_model.STATES


def predictions(found: Sequence[dict[str, Any]], dtypes: Sequence[str]) -> list[dict[str, Any]]:
    """The least microseconds at N = 16 of each kernel's fastest form, by card, type and length."""
    rows = []
    for card, dtype, length in itertools.product(CARDS, dtypes, LENGTHS):
        about, (width, _, name) = CARDS[card], DTYPES[dtype]
        times: dict[str, float] = {}
        for one in found:
            if (
                "cycles" in one
                and one["capability"] == about.capability
                and one["states"] == issue_model.STATES
                and f"<{name}," in one["kernel"]
            ):
                kernel = issue_model.name_of(one["kernel"])
                us = issue_model.microseconds(max(one["cycles"].values()), about, length)
                times[kernel] = min(us, times.get(kernel, us))
        scans = {
            variant: [times[parts[0]], sum(times[part] for part in parts)]
            for variant, parts in VARIANTS.items()
            if times.keys() >= set(parts)
        }
        if times:
            floors = issue_model.floors(about, length, width)
            row = {"card": card, "dtype": dtype, "length": length, "kernels": times}
            rows.append({**row, "scans": scans, "floors": floors})
    return rows


def lines(found: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Everything, to be read."""
    classes = [name for name in CLASSES if any(one.get("classes", {}).get(name) for one in found)]
    yield "registers, bytes of stack and shared memory, blocks x threads per multiprocessor"
    for one in found:
        room = f"{one['blocks']} x {one['threads']}" if one["states"] else ""
        yield (
            f"{one['capability']:>4} {one['kernel'].rpartition('::')[2]:40} {one['reg']:>3} "
            f"{one['stack']:>4} {one['shared']:>6} {room:8}{' spills' if spilled(one) else ''}"
        )
    yield ""
    yield "instructions per warp-token, and cycles per scheduler of the unit that takes longest"
    yield f"{'':45} {'all':>6} {'cycles':>16} " + " ".join(f"{name:>7}" for name in classes)
    for one in found:
        if "unread" in one:
            yield f"{one['capability']:>4} {one['unread']}"
        elif one["states"]:
            cycles = f"{one['cycles'][one['bound']]:.0f} {one['bound']}"
            counts = " ".join(f"{one['classes'].get(name, 0):7.1f}" for name in classes)
            name = f"{one['capability']:>4} {one['kernel'].rpartition('::')[2]:40}"
            yield f"{name} {one['instructions']:6.1f} {cycles:>16} {counts}"
    for row in rows:
        yield ""
        times = row["kernels"]
        scans = [f"scan by {key} {a:.0f} to {b:.0f}" for key, (a, b) in row["scans"].items()]
        floors = [f"floor: {key} {us:.0f}" for key, us in row["floors"].items()]
        yield f"{row['card']}, {row['dtype']}, L = {row['length']}: predicted microseconds at least"
        yield "  " + ", ".join([*(f"{key} {us:.0f}" for key, us in times.items()), *scans, *floors])


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument(
        "--architectures", nargs="+", choices=MULTIPROCESSORS, default=list(MULTIPROCESSORS),
        metavar="CC", help=f"compute capabilities (default: {' '.join(MULTIPROCESSORS)})",
    )  # fmt: skip
    options.add_argument("--dtypes", nargs="+", choices=DTYPES, default=["float16"])
    options.add_argument("--jobs", type=int, default=cores(), help="compilers at a time")
    options.add_argument("--json", action="store_true", help="print JSON")
    arguments = options.parse_args()
    if arguments.jobs < 1:
        raise UsageError(f"--jobs {arguments.jobs} is below 1; name how many compilers may run")
    for name in disassembly.PACKAGES:
        disassembly.tool(name)  # before minutes of compiling
    found = survey(arguments.architectures, arguments.dtypes, arguments.jobs)
    rows = predictions(found, arguments.dtypes)
    if arguments.json:
        print(
            json.dumps({"nvcc": str(nvcc.find()), "kernels": found, "predicted_us": rows}, indent=1)
        )
    else:
        print("\n".join(lines(found, rows)))
    bad = [f"{one['kernel']} ({one['capability']})" for one in found if spilled(one)]
    if bad:
        print(f"off: {', '.join(bad)} spills", file=sys.stderr)
    return OFF if bad else 0


if __name__ == "__main__":
    step(main)
