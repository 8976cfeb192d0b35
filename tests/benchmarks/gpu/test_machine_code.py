"""The script's report and exit codes; and, where there are the tools, what the compiler makes of
the kernels, which is held to limits."""

from __future__ import annotations

import json
from typing import Any

import disassembly
import machine_code
import pytest
from cuda_emulation import PLUGINS

from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.kernels.nvcc import Nvcc


def tools_lack() -> str:
    """What is missing to read machine code here; empty if nothing is."""
    try:
        for name in disassembly.PACKAGES:
            disassembly.tool(name)
    except MissingComponentError as error:
        return str(error)
    return ""


LACKING = tools_lack()
needs_tools = pytest.mark.skipif(bool(LACKING), reason=LACKING)


def made_up(kernel: str, **changed: Any) -> dict[str, Any]:
    """A kernel as `survey` describes it."""
    about = {
        "capability": "9.0", "kernel": f"dvmsr::cuda::{kernel}", "states": 16, "spills": 0,
        "reg": 100, "stack": 0, "shared": 5120, "local": 0, "blocks": 4, "threads": 128,
        "instructions": 100.0, "classes": {"fma": 60.0, "ex2": 40.0},
        "cycles": {"issue": 100.0, "special": 80.0}, "bound": "issue",
        "hot": 400, "passes": 1.0, "tokens": 4.0,
    }  # fmt: skip
    return {**about, **changed}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`main` on given arguments, where the compiler makes given kernels."""
    monkeypatch.setattr(disassembly, "tool", lambda name: name)
    monkeypatch.setattr(machine_code.nvcc, "find", lambda: Nvcc("nvcc", (13, 0, 88)))

    def call(kernels: list[dict[str, Any]], *arguments: str) -> int:
        monkeypatch.setattr(machine_code, "survey", lambda *_: kernels)
        monkeypatch.setattr(machine_code.sys, "argv", ["machine_code.py", *arguments])
        return machine_code.main()

    return call


SOUND = [
    made_up("scan_chunks<__half, 16, false>", cycles={"issue": 120.0}, bound="issue"),
    made_up("scan_chunks<__half, 16, true>"),
    made_up("add_initial<__half, 16, true>"),
]


def test_predicts_a_scan_by_its_kernels(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SOUND, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["nvcc"] == "13.0.88"
    assert [one["length"] for one in told["predicted_us"]] == [16_384, 65_536, 172_890]
    last = told["predicted_us"][-1]  # by the faster form of scan_chunks
    assert last["card"] == "H100"
    assert last["kernels"] == pytest.approx({"scan_chunks": 74.6, "add_initial": 74.6}, abs=0.1)
    assert last["scans"] == {"chunks": pytest.approx([74.6, 149.3], abs=0.1)}


def test_tells_it_to_be_read(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(SOUND) == 0
    told = capsys.readouterr().out
    assert "4 x 128" in told
    assert "100 issue    60.0    40.0\n" in told
    assert "H100, float16, L = 172890: predicted microseconds at least\n" in told
    assert "scan by chunks 75 to 149, floor: exponentials 90" in told
    assert "spills" not in told


def test_loops_that_do_not_fit_are_told(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    odd = made_up("relay::relay<__half, 1, true>", states=1, unread="the loops of it do not fit")
    del odd["cycles"], odd["classes"]
    assert run([*SOUND, odd]) == 0
    assert " 9.0 the loops of it do not fit\n" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["spills", "stack", "local"])
@pytest.mark.parametrize(("states", "code"), [(16, 3), (None, 3), (64, 0)])
def test_spills_up_to_16_states_are_off(
    run: Any, capsys: pytest.CaptureFixture[str], where: str, states: int | None, code: int
) -> None:
    bad = made_up("scan_chunks<__half, 64, true>", states=states, **{where: 8})
    assert run([*SOUND, bad]) == code
    said = "off: dvmsr::cuda::scan_chunks<__half, 64, true> (9.0) spills\n"
    assert capsys.readouterr().err == (said if code else "")


def test_no_compilers_are_wrong_usage(run: Any) -> None:
    with pytest.raises(UsageError, match="--jobs 0 is below 1"):
        run(SOUND, "--jobs", "0")


def test_without_the_tools_nothing_is_compiled(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise MissingComponentError(f"no {name}")

    monkeypatch.setattr(disassembly, "tool", missing)
    with pytest.raises(MissingComponentError, match="no cuobjdump") as caught:
        run(SOUND)
    assert caught.value.exit_code == 4


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    """The kernels for FP16 on compute capability 9.0."""
    return machine_code.survey(["9.0"], ["float16"], 2)


def named(compiled: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    found = [one for one in compiled if f"::{name}<" in one["kernel"] and one["states"] <= 16]
    assert found, name
    return found


@pytest.mark.slow
@needs_tools
def test_nothing_spills_up_to_16_states(compiled: list[dict[str, Any]]) -> None:
    assert not [one["kernel"] for one in compiled if machine_code.spilled(one)]


@pytest.mark.slow
@needs_tools
@pytest.mark.parametrize("name", ["scan_chunks", "add_initial"])
def test_chunks_leave_room_for_16_warps(compiled: list[dict[str, Any]], name: str) -> None:
    for one in named(compiled, name):
        assert one["reg"] <= 128
        assert one["blocks"] >= 4
        assert one["classes"]["ex2"] == 18


@pytest.mark.slow
@needs_tools
def test_gradients_fit(compiled: list[dict[str, Any]]) -> None:
    """Two blocks of 256 threads up to 16 states; up to 64, too, nothing spills."""
    found = [one for one in compiled if "chunk_gradients<" in one["kernel"]]
    assert [(one["states"], one["blocks"]) for one in found] == [(16, 2), (64, 1)]
    assert all((one["spills"], one["stack"], one["local"]) == (0, 0, 0) for one in found)


RELAY = pytest.mark.skipif(
    not (PLUGINS / "scan_relay.cuh").is_file(), reason="there is no relay in plugins/cuda"
)


@pytest.mark.slow
@needs_tools
@RELAY
def test_the_relay_is_as_short_as_it_was_designed(compiled: list[dict[str, Any]]) -> None:
    forms = [one for one in named(compiled, "relay") if one["states"] == 16]
    assert min(one["instructions"] for one in forms) <= 155
    assert all(one["reg"] <= 128 and one["classes"]["ex2"] == 18 for one in forms)
