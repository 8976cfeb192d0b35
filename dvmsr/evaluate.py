"""`dvmsr eval`: PSNR and SSIM of models on test sets, as the papers report them."""

from __future__ import annotations

import csv
import io
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dvmsr.cli_support import notice, stderr_console
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.metrics import psnr_y, ssim_y
from dvmsr.pairs import Dataset, Pixels, find_dataset
from dvmsr.resize import imresize

if TYPE_CHECKING:
    from rich.table import Table

BICUBIC = "bicubic"
DEFAULT_SCALE = 4
UNLIMITED_WIDTH = 10_000  # a number cut off would be worse than a line that wraps
GAP = 8  # white pixels between the images of a side-by-side picture


@dataclass(frozen=True)
class Method:
    """A named way to enlarge an image, uint8 RGB (h, w, 3) -> (scale*h, scale*w, 3)."""

    name: str
    enlarge: Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Score:
    """What one model reached on one image, or on average on a test set."""

    model: str
    dataset: str
    image: str
    psnr_y: float
    ssim_y: float


def load_methods(
    models: Sequence[str], backend: str = "auto", scale: int | None = None
) -> tuple[list[Method], int]:
    """The models by name, and the scale that they share.

    Args:
        models: `bicubic`, or whatever `dvmsr.runtime.Upscaler.from_file` takes: a checkpoint, an
            ONNX file or the name of a bundled model.
        backend: of `Upscaler.from_file`.
        scale: the scale to insist on; needed only for bicubic alone, where it is 4 by default.

    Raises:
        UsageError: if the models have different scales, or one is named twice.
        DvmsrError: if a model cannot be loaded.
    """
    if len(set(models)) < len(models):
        raise UsageError("a model is named twice; leave one out")
    enlargers: dict[str, Callable[[Pixels], Pixels]] = {}
    scales = {} if scale is None else {"--scale": scale}
    for model in models:
        if model == BICUBIC:
            continue
        from dvmsr.runtime import Upscaler

        upscaler = Upscaler.from_file(model, backend=backend)
        enlargers[model] = upscaler
        scales[model] = upscaler.scale
    if len(set(scales.values())) > 1:
        found = ", ".join(f"{name} has {value}" for name, value in scales.items())
        raise UsageError(f"the scales differ ({found}); evaluate one scale at a time")
    common = next(iter(scales.values()), DEFAULT_SCALE)
    enlargers[BICUBIC] = lambda image: imresize(image, common)
    files = [Path(model).name for model in models]
    return [
        Method(file if files.count(file) == 1 else model, enlargers[model])
        for file, model in zip(files, models, strict=True)
    ], common


def evaluate(
    methods: Sequence[Method],
    datasets: Sequence[Dataset],
    scale: int,
    side_by_side: Path | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Every method on every image, with a border of `scale` pixels left out.

    Args:
        side_by_side: folder for a picture per image: bicubic, each other method, the original.
        progress: called after each image.

    Raises:
        UsageError: if an image is too small for the SSIM window.
        DvmsrError: if an image is unreadable, or a picture cannot be written.
    """
    scores = []
    for dataset in datasets:
        for pair in dataset.pairs:
            lr, hr = pair.load(scale)
            shown = [imresize(lr, scale)] if side_by_side else []
            for method in methods:
                sr = method.enlarge(lr)
                try:
                    values = psnr_y(sr, hr, border=scale), ssim_y(sr, hr, border=scale)
                except UsageError as error:
                    raise UsageError(f"{pair.hr} cannot be measured: {error}") from None
                scores.append(Score(method.name, dataset.name, pair.hr.name, *values))
                if side_by_side and method.name != BICUBIC:
                    shown.append(sr)
            if side_by_side:
                path = side_by_side / dataset.name / f"{pair.hr.stem}.png"
                _save_side_by_side([*shown, hr], path)
            progress()
    return scores


def means(scores: Iterable[Score]) -> list[Score]:
    """The average of each model on each test set, in the order of the scores; `image` is empty."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.model, score.dataset), []).append(score)
    return [
        Score(
            *key,
            image="",
            psnr_y=float(np.mean([score.psnr_y for score in group])),
            ssim_y=float(np.mean([score.ssim_y for score in group])),
        )
        for key, group in groups.items()
    ]


def run(
    folders: Sequence[Path],
    models: Sequence[str],
    backend: str,
    scale: int | None,
    csv_file: Path | None,
    as_json: bool,
    side_by_side: Path | None,
) -> None:
    """The command: evaluate, print, write."""
    if csv_file is not None and not csv_file.parent.is_dir():
        raise UsageError(f"{csv_file.parent} is not a folder; create it before the evaluation")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: notice(f"warning: {message}")
        methods, scale = load_methods(models, backend, scale)
        datasets = [find_dataset(folder, scale) for folder in folders]
        names = [dataset.name for dataset in datasets]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two test sets are called {name}; rename one folder")
        images = sum(len(dataset.pairs) for dataset in datasets)
        with _progress_bar(images) as advance:
            scores = evaluate(methods, datasets, scale, side_by_side, advance)

    if as_json:
        print(json.dumps(_report(scores, scale), indent=2, allow_nan=False))
    else:
        from rich.console import Console

        print(f"PSNR in dB / SSIM on luma, scale {scale}, border {scale}")
        Console(width=UNLIMITED_WIDTH).print(_table(means(scores)))
    if csv_file is not None:
        _write_csv(scores, csv_file)
    if side_by_side is not None:
        order = [BICUBIC, *(method.name for method in methods if method.name != BICUBIC), "HR"]
        notice(f"pictures in {side_by_side}, from left to right: {', '.join(order)}")


@contextmanager
def _progress_bar(images: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal's stderr, and the function that moves it on by one image."""
    from rich.progress import Progress

    console = stderr_console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("evaluating", total=images)
        yield lambda: bar.advance(task)


def _table(averages: Sequence[Score]) -> Table:
    from rich.table import Table

    table = Table()
    table.add_column("model", no_wrap=True)
    rows: dict[str, list[str]] = {}
    for score in averages:
        if score.model == averages[0].model:
            table.add_column(score.dataset, justify="right", no_wrap=True)
        rows.setdefault(score.model, []).append(f"{score.psnr_y:.3f} / {score.ssim_y:.4f}")
    for model, cells in rows.items():
        table.add_row(model, *cells)
    return table


def _report(scores: Sequence[Score], scale: int) -> dict[str, Any]:
    """The content of `--json`; the infinite PSNR of equal images becomes null."""

    def entry(score: Score) -> dict[str, Any]:
        values = {key: value for key, value in asdict(score).items() if value != ""}
        return {key: None if value == math.inf else value for key, value in values.items()}

    return {
        "scale": scale,
        "border": scale,
        "means": [entry(score) for score in means(scores)],
        "images": [entry(score) for score in scores],
    }


def _write_csv(scores: Sequence[Score], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Score)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, scores))
    try:
        path.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise DvmsrError(f"{path} cannot be written ({error.strerror})") from None


def _save_side_by_side(images: Sequence[Pixels], path: Path) -> None:
    gap = np.full((images[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for image in images for part in (image, gap)][:-1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.hstack(row)).save(path)
    except OSError as error:
        raise DvmsrError(f"{path} cannot be written ({error.strerror})") from None
