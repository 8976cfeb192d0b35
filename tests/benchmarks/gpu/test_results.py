"""Results are on the disk as they come, predictions first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import results
from race import FEWEST, race


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DVMSR_GPU_RESULTS", str(tmp_path))
    monkeypatch.delenv("DVMSR_RUN", raising=False)
    return tmp_path


def test_predictions_come_before_measurements(folder: Path) -> None:
    results.Results("scan", "NVIDIA H200", None, "what")
    (path,) = folder.iterdir()
    assert path.name.startswith("nvidia-h200-2")
    stored = json.loads(path.read_text())
    assert stored["predicted"]["targets"]
    assert not stored["complete"]
    assert "scans" not in stored


def test_every_addition_is_on_the_disk(folder: Path) -> None:
    made = results.Results("correct", "gpu", None, "what")
    for count in (1, 2):
        made.add("checks", {"ok": True})
        stored = results.read("correct", "gpu")
        assert stored
        assert len(stored["checks"]) == count
    made.finish()
    stored = results.read("correct", "gpu")
    assert stored
    assert stored["complete"]
    assert results.read("plugin", "gpu") is None


def test_what_was_left_out_makes_it_incomplete(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = results.Results("correct", "gpu", None, "what")
    made.leave_out("a large one")
    made.finish()
    stored = results.read("correct", "gpu")
    assert stored
    assert (stored["complete"], stored["left_out"]) == (False, ["a large one"])
    assert capsys.readouterr().err == "left out for want of time: a large one\n"


class Clock:
    """A deadline with a number."""

    def __init__(self, left: float) -> None:
        self.seconds = left

    def left(self) -> float:
        return self.seconds

    def passed(self) -> bool:
        return self.seconds <= 0


def test_the_nearest_in_size_tells_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0, 0.5, 10, 20])
    monkeypatch.setattr(results.time, "monotonic", lambda: next(moments))
    clock = Clock(100)
    pace = results.Pace(clock)  # type: ignore[arg-type]
    assert pace.allows(1e9)
    with pace.timed(0):  # half a second, whatever little it was
        pass
    with pace.timed(1000):  # ten seconds
        pass
    assert pace.allows(9_000)
    assert not pace.allows(11_000)
    assert pace.allows(500)
    clock.seconds = 9
    assert not pace.allows(500)  # the nearest took ten
    assert pace.allows(2)
    clock.seconds = 0
    assert not pace.allows(1)


def test_no_deadline_is_never_passed() -> None:
    assert not results.Deadline(None).passed()
    assert results.Deadline(0).passed()


def test_a_slow_contestant_sits_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("race.time.perf_counter", lambda: now[0])

    def takes(seconds: float):
        def work() -> float:
            now[0] += seconds
            return seconds

        return work

    times = race({"quick": takes(0.01), "slow": takes(3)}, rounds=50, allowed=10)
    assert {name: len(found) for name, found in times.items()} == {"quick": 50, "slow": FEWEST}
    assert set(times["slow"]) == {3}


def test_contestants_take_turns() -> None:
    order: list[str] = []

    def notes(name: str):
        return lambda: (order.append(name), 0.0)[1]

    race({"a": notes("a"), "b": notes("b")}, rounds=20, allowed=60)
    pairs = [order[at : at + 2] for at in range(0, len(order), 2)]
    assert all(sorted(pair) == ["a", "b"] for pair in pairs)
    assert ["a", "b"] in pairs
    assert ["b", "a"] in pairs
