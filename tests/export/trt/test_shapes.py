"""The shapes that inputs of a network of others may have, and how large its tensors become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from dvmsr.errors import UsageError
from dvmsr.export.trt.command import parse_sizes
from dvmsr.export.trt.shapes import axes_at, profiles
from dvmsr.export.trt.tensor_sizes import largest
from dvmsr.runtime.backends.trt.profiles import InputProfile

FILE = Path("net.onnx")
IMAGE: dict[str, tuple[int | str, ...]] = {"x": ("batch", 3, "height", "width")}
EXAMPLE = {"x": (1, 3, 64, 40)}
PAIR: dict[str, tuple[int | str, ...]] = {
    "x": ("batch", 3, "height"), "mask": ("batch", "height"), "scale": (), "fixed": (2, 7),
}  # fmt: skip
PAIR_EXAMPLE = {"x": (2, 3, 16), "mask": (2, 16), "scale": (), "fixed": (2, 7)}


@pytest.mark.parametrize(
    ("asked", "shapes", "assumed"),
    [
        ({}, ((1, 3, 32, 40), (1, 3, 64, 40), (2, 3, 128, 80)), ["batch", "height", "width"]),
        (
            {"--max": (4, 3, 512, 30)},
            ((1, 3, 32, 30), (1, 3, 64, 30), (4, 3, 512, 30)),
            ["batch", "height", "width"],
        ),
        (
            {"--min": {"x": (3, 3, 100, 8)}},
            ((3, 3, 100, 8), (3, 3, 100, 40), (3, 3, 128, 80)),
            ["batch", "height", "width"],
        ),
        (
            {"--opt": (1, 3, 8, 300)},
            ((1, 3, 8, 40), (1, 3, 8, 300), (2, 3, 128, 300)),
            ["batch", "height", "width"],
        ),
        (
            {"--min": (1, 3, 8, 8), "--opt": (2, 3, 9, 9), "--max": (4, 3, 10, 10)},
            ((1, 3, 8, 8), (2, 3, 9, 9), (4, 3, 10, 10)),
            [],
        ),
    ],
    ids=str,
)
def test_what_is_not_given_follows_from_the_example(
    asked: dict[str, Any], shapes: tuple[tuple[int, ...], ...], assumed: list[str]
) -> None:
    found = profiles(FILE, IMAGE, EXAMPLE, asked)
    assert found == ({"x": InputProfile(*shapes)}, assumed)


def test_axes_of_one_name_move_together() -> None:
    found, assumed = profiles(FILE, PAIR, PAIR_EXAMPLE, {"--max": {"mask": (8, 20)}})
    assert found == {
        "x": InputProfile((1, 3, 8), (2, 3, 16), (8, 3, 20)),
        "mask": InputProfile((1, 8), (2, 16), (8, 20)),
        "scale": InputProfile((), (), ()),
        "fixed": InputProfile((2, 7), (2, 7), (2, 7)),
    }
    assert assumed == ["batch", "height"]
    assert axes_at(PAIR, {name: p.max for name, p in found.items()}) == {"batch": 8, "height": 20}


def test_of_a_file_without_an_example_what_is_given_is_usual() -> None:
    for option in ("--min", "--opt", "--max"):
        found, assumed = profiles(FILE, IMAGE, {}, {option: (2, 3, 8, 9)})
        assert found["x"].opt == (2, 3, 8, 9)
        assert assumed == ["batch", "height", "width"]
    with pytest.raises(UsageError, match="does not tell which batch is usual; say so with --opt x"):
        profiles(FILE, IMAGE, {}, {})


@pytest.mark.parametrize(
    ("declared", "asked", "message"),
    [
        (IMAGE, {"--min": {"y": (1, 3, 8, 8)}}, "net.onnx has no input y; it takes x"),
        (PAIR, {"--max": (1, 3, 8)}, "takes x, mask, scale, fixed; say whose shape --max 1x3x8 is"),
        (
            IMAGE,
            {"--min": (8, 8)},
            "--min gives x the shape 8x8, but net.onnx takes batchx3xheight",
        ),
        (IMAGE, {"--opt": (1, 4, 8, 8)}, "takes batchx3xheightxwidth; 3 is fixed in it"),
        (PAIR, {"--min": {"scale": (1,)}}, "but net.onnx takes one value; give 0 sizes"),
        (
            PAIR,
            {"--min": {"x": (1, 3, 8), "mask": (1, 9)}},
            "--min gives the height of x 8 and that of mask 9; axes of one name have one size",
        ),
        (IMAGE, {"--min": (1, 3, 9, 9), "--max": (1, 3, 8, 9)}, "height must be at least 1 and gr"),
        (IMAGE, {"--opt": (3, 3, 9, 9), "--max": (2, 3, 9, 9)}, "batch must .*, not 1, 3, 2"),
        ({}, {"--min": (1,)}, "takes no inputs; say whose"),
    ],
)
def test_what_does_not_fit_is_told(declared: Any, asked: Any, message: str) -> None:
    examples = EXAMPLE if declared is IMAGE else PAIR_EXAMPLE
    with pytest.raises(UsageError, match=message):
        profiles(FILE, declared, examples, asked)


def test_sizes_on_the_command_line() -> None:
    assert parse_sizes("--min", []) is None
    assert parse_sizes("--min", ["270x480"]) == (270, 480)
    assert parse_sizes("--min", ["8x8", "16X16"]) == (16, 16)
    assert parse_sizes("--min", ["x:1x3", "in:0:5", "x:2x3"]) == {"x": (2, 3), "in:0": (5,)}
    for bad in (["x:"], ["0x3"], ["1x"], ["axb"], ["x=1x3"], [""], ["1x3", "x:1x3"]):
        with pytest.raises(UsageError, match="--min"):
            parse_sizes("--min", bad)


def test_the_largest_tensor_that_a_graph_tells_of() -> None:
    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, 1, shape)

    graph = helper.make_graph(
        [],
        "g",
        [value("x", "batch", 3, "height")],
        [value("y", "batch", "2*height + 1")],
        value_info=[value("inner", "batch*height//2", 5), value("odd", "f(height)", 10**9)],
    )
    assert largest(graph, {"batch": 2, "height": 9}) == ("x", 54)
    assert largest(graph, {"batch": 10, "height": 1}) == ("x", 30)
    del graph.input[:]
    assert largest(graph, {"batch": 2, "height": 9}) == ("inner", 45)
    assert largest(graph, {"batch": 2, "height": 1}) == ("y", 6)
