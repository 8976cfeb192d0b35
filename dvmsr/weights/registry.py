"""Model names and files."""

import os
from collections.abc import Iterable
from pathlib import Path

import dvmsr
from dvmsr.errors import MissingComponentError, UsageError
from dvmsr.utils import cache
from dvmsr.utils.paths import check_encodable, check_input, exists, is_file, is_import_path
from dvmsr.weights import paper

DEFAULT = "student"
_HALF = "-fp16"
STUDENTS = {DEFAULT: 4, f"{DEFAULT}-x2": 2, f"{DEFAULT}-x3": 3}
"""Names of the bundled networks that users give, and what they upscale by. Each has three files in
the package's folder `weights`: weights in FP32 and, exported from these, steps over strips of rows
in FP32, and whole images in FP16, by the name with `-fp16`."""
BUNDLED_CHECKPOINTS = {name: f"dvmsr_x{scale}.safetensors" for name, scale in STUDENTS.items()}
BUNDLED_STREAMING = {name: f"dvmsr_x{scale}.streaming.onnx" for name, scale in STUDENTS.items()}
BUNDLED_HALF = {f"{name}{_HALF}": f"dvmsr_x{scale}.fp16.onnx" for name, scale in STUDENTS.items()}
_WHOLE_IMAGE = "dvmsr_x4.onnx"
"""The default network for whole images in FP32; of the others, such a file is made of it."""
MODELS = (*STUDENTS, *BUNDLED_HALF, *paper.FILES)
"""All names of models."""
CHECKPOINT_NAMES = (*BUNDLED_CHECKPOINTS, *paper.FILES)
"""Those whose weights can be had in FP32, as a checkpoint."""

CHECKPOINTS = (".safetensors", ".pth", ".pt")
ENGINE = ".engine"
SUFFIXES = (".onnx", *CHECKPOINTS, ENGINE)

PEAKS = (1, 255)
"""The brightest value that another program's network may take and give."""


def split_range(model: str) -> tuple[str, int | None]:
    """`rlfn.onnx@255` -> (`rlfn.onnx`, 255); None where no range of values is named.

    Raises:
        UsageError: for another range.
    """
    name, at, peak = model.rpartition("@")
    if not at or not name.lower().endswith(".onnx") or exists(Path(model)):
        return model, None
    if peak not in map(str, PEAKS):
        raise UsageError(
            f"{model} names no range of values; write @1 for 0 to 1 or @255 for 0 to 255"
        )
    return name, int(peak)


def find_model(model: str | os.PathLike[str], streaming: bool = False) -> Path:
    """The file of one of `MODELS`, or the file itself; what is not bundled is fetched or made of
    what is, and kept.

    Args:
        streaming: of a model by name the file that streams, if there is one.

    Raises:
        UsageError: if it is neither a known name nor looks like a model file, or does not exist.
        DvmsrError: if that cannot be found out, or the file not be fetched or kept.
        MissingComponentError: if the bundled file is not installed, or one may not be fetched.
    """
    name = os.fspath(model)
    if name in paper.FILES:
        return paper.onnx_file(name, find_model(DEFAULT, streaming))
    if name in BUNDLED_HALF:
        return _bundled(name, BUNDLED_HALF[name])
    if name in STUDENTS:
        return _bundled(name, BUNDLED_STREAMING[name]) if streaming else _whole_image(name)
    return model_file(name, MODELS)


def at_scale(model: str | None, scale: int) -> str:
    """The name of the bundled network that upscales by so much, in the precision of `model`.

    Raises:
        UsageError: if there is none, or `model` is another one.
    """
    name = DEFAULT if model is None else model
    base, half = name.removesuffix(_HALF), _HALF if name.endswith(_HALF) else ""
    if base != DEFAULT and STUDENTS.get(base) != scale:
        raise UsageError(
            f"--scale chooses among the networks of dvmsr, and {name} has a scale of its own; "
            "leave out one of the two"
        )
    for student, its in STUDENTS.items():
        if its == scale:
            return student + half
    known = ", ".join(str(its) for its in sorted(STUDENTS.values()))
    raise UsageError(f"--scale must be one of {known}, not {scale}")


def find_checkpoint(model: str | os.PathLike[str]) -> Path:
    """The weights of one of `CHECKPOINT_NAMES`, or the checkpoint itself; what is not bundled is
    fetched once.

    Raises:
        UsageError: if it is neither such a name nor that of a checkpoint, or does not exist.
        DvmsrError: if that cannot be found out, or the file not be fetched.
        MissingComponentError: if the bundled file is not installed, or one may not be fetched.
    """
    name = os.fspath(model)
    if name in paper.FILES:
        return paper.checkpoint(name)
    if name in BUNDLED_CHECKPOINTS:
        return _bundled(name, BUNDLED_CHECKPOINTS[name])
    path = Path(name)
    if not path.suffix:
        raise UsageError(
            f"no checkpoint named {name}; there is {', '.join(CHECKPOINT_NAMES)}, or name a "
            f"file ending in {', '.join(CHECKPOINTS)}"
        )
    check_checkpoint(path)
    return path


def _whole_image(name: str) -> Path:
    """The file of one of `STUDENTS` that takes whole images in FP32."""
    from dvmsr.weights import refill

    template = _bundled(name, _WHOLE_IMAGE)
    if name == DEFAULT:
        return template
    streaming = _bundled(name, BUNDLED_STREAMING[name])
    data = refill.whole_image(template.read_bytes(), streaming.read_bytes())
    return cache.keep_onnx(name, data)


def _bundled(name: str, file: str) -> Path:
    for folder in dvmsr.__path__:
        path = Path(folder) / "weights" / file
        if is_file(path):
            return path
    raise MissingComponentError(
        f"the bundled model {name} is not installed; reinstall dvmsr or name a file"
    )


def check_checkpoint(path: Path) -> None:
    """Whether this can be a checkpoint; it is not opened, and needs no torch.

    Raises:
        UsageError: if its name is not that of one, or it does not exist.
        DvmsrError: if that cannot be found out.
    """
    if path.suffix.lower() not in CHECKPOINTS:
        raise UsageError(f"{path} is no checkpoint; name a file ending in {', '.join(CHECKPOINTS)}")
    check_encodable(path)
    check_input(path)


def model_file(name: str, others: Iterable[str]) -> Path:
    """The file of that name; `others` are the names that could have been meant.

    Raises:
        UsageError: if it does not look like a model file, or does not exist.
        DvmsrError: if that cannot be found out.
    """
    path = Path(name)
    if path.suffix.lower() not in SUFFIXES:
        if is_import_path(name):
            raise UsageError(
                f"no model named {name}; if that function returns a network, export it with "
                f"`dvmsr-export onnx {name} --input SIZES` and name the file"
            )
        raise UsageError(
            f"no model named {name}; there is {', '.join(others)}, "
            f"or name a file ending in {', '.join(SUFFIXES)}"
        )
    check_encodable(path)
    check_input(path)
    return path
