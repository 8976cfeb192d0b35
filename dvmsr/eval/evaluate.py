"""`dvmsr eval`: PSNR and SSIM of models on test sets, as the papers report them."""

from __future__ import annotations

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dvmsr.data.imresize import imresize
from dvmsr.data.pairs import Dataset, Pixels, find_dataset
from dvmsr.errors import EXPECTED, DvmsrError, IncompatibleModelError, UsageError, explain
from dvmsr.eval.metrics import psnr_y, ssim_y
from dvmsr.runtime.images.encode import encode
from dvmsr.utils.atomic import check_folder, check_target, write_atomically
from dvmsr.utils.console import notice, stdout_console, warnings_to
from dvmsr.utils.paths import exists
from dvmsr.utils.progress import progress_bar

if TYPE_CHECKING:
    from rich.table import Table


BICUBIC = "bicubic"
DEFAULT_SCALE = 4
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


@dataclass(frozen=True)
class Failure:
    """An image that could not be measured, or whose picture could not be written."""

    dataset: str
    image: str
    error: str
    """One sentence."""


def load_methods(
    models: Sequence[str],
    backend: str = "auto",
    scale: int | None = None,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> tuple[list[Method], int]:
    """The models by name, and the scale that they share.

    Args:
        models: `bicubic`, or whatever `dvmsr.runtime.Upscaler.from_file` takes: a checkpoint, an
            ONNX file, of another network too, or the name of a bundled model.
        backend, trust_engine: of `Upscaler.from_file`.
        time_limit: most seconds for one run of an ONNX file; None for any.
        scale: the scale to insist on; needed only for bicubic alone, where it is 4 by default.

    Raises:
        UsageError: if the models have different scales, or one is named twice.
        IncompatibleModelError: if another network has another scale.
        DvmsrError: if a model cannot be loaded.
    """
    if len(set(models)) < len(models):
        raise UsageError("a model is named twice; leave one out")
    from dvmsr.runtime import Upscaler

    enlargers: dict[str, Callable[[Pixels], Pixels]] = {}
    scales = {} if scale is None else {"--scale": scale}
    foreign = False
    for model in models:
        if model == BICUBIC:
            continue
        upscaler = Upscaler.from_file(
            model, backend, trust_engine=trust_engine, time_limit=time_limit
        )
        foreign |= upscaler.config is None
        enlargers[model] = upscaler
        scales[model] = upscaler.scale
    if len(set(scales.values())) > 1:
        found = ", ".join(f"{name} has {value}" for name, value in scales.items())
        kind = IncompatibleModelError if foreign else UsageError
        raise kind(f"the scales differ ({found}); take one scale at a time")
    common = next(iter(scales.values()), DEFAULT_SCALE)
    enlargers[BICUBIC] = lambda image: imresize(image, common)
    names = short_names(models)
    return [
        Method(name, enlargers[model]) for name, model in zip(names, models, strict=True)
    ], common


def short_names(models: Sequence[str]) -> list[str]:
    """The models without their folders, unless two would then have one name."""
    files = [Path(model).name for model in models]
    return [
        file if files.count(file) == 1 else model for file, model in zip(files, models, strict=True)
    ]


def evaluate(
    methods: Sequence[Method],
    datasets: Sequence[Dataset],
    scale: int,
    side_by_side: Path | None = None,
    overwrite: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> tuple[list[Score], list[Failure]]:
    """Every method on every image, with a border of `scale` pixels left out.

    An image that fails for one method has no scores at all, so that means compare like with like.

    Args:
        side_by_side: folder for a picture per image: bicubic, each other method, the original.
        overwrite: whether pictures may replace files.
        progress: called after each image.
    """
    scores: list[Score] = []
    failures: list[Failure] = []
    for dataset in datasets:
        pictures = picture_paths(dataset, side_by_side) if side_by_side else {}
        for files in dataset.pairs:
            try:
                pair = files.load(scale)
                enlarged = {method.name: method.enlarge(pair.lr) for method in methods}
                scores += [
                    Score(name, dataset.name, files.hr.name, *measure(files.hr, sr, pair.hr, scale))
                    for name, sr in enlarged.items()
                ]
            except EXPECTED as error:
                text = str(explain(error, str(files.hr)))
                if str(files.hr) not in text:
                    text = f"{files.hr} failed: {text}"
                failures.append(Failure(dataset.name, files.hr.name, text))
            else:
                if pictures:
                    enlarged.pop(BICUBIC, None)
                    shown = [imresize(pair.lr, scale), *enlarged.values(), pair.hr]
                    picture = pictures[files.hr]
                    try:
                        _save_side_by_side(shown, picture, overwrite)
                    except EXPECTED as error:
                        text = str(explain(error, str(picture)))
                        failures.append(Failure(dataset.name, files.hr.name, text))
            progress()
    return scores, failures


def measure(name: Path | str, sr: Pixels, hr: Pixels, scale: int) -> tuple[float, float]:
    """PSNR and SSIM without a border of `scale` pixels.

    Raises:
        UsageError: if the picture, called `name`, is too small.
    """
    try:
        return psnr_y(sr, hr, border=scale), ssim_y(sr, hr, border=scale)
    except UsageError as error:
        raise UsageError(f"{name} cannot be measured: {error}") from None


def picture_paths(dataset: Dataset, folder: Path) -> dict[Path, Path]:
    """Where the side-by-side picture of each image goes: a.png for a.jpg, unless some other image
    of the set is called a too; then each picture has its image's whole name, a.jpg.png.
    """
    images = [files.hr for files in dataset.pairs]
    unique = len({image.stem.casefold() for image in images}) == len(images)
    return {
        image: folder / dataset.name / f"{image.stem if unique else image.name}.png"
        for image in images
    }


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
    overwrite: bool = False,
    trust_engine: bool = False,
    time_limit: float | None = None,
) -> None:
    """The command: evaluate, write, print; ends the process if an image or a file failed."""
    if csv_file is not None:
        check_target(csv_file, overwrite)
    with warnings_to():
        methods, scale = load_methods(models, backend, scale, trust_engine, time_limit)
        datasets = [find_dataset(folder, scale) for folder in folders]
        names = [dataset.name for dataset in datasets]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"two test sets are called {name}; rename one folder")
        if side_by_side is not None:
            _check_pictures(datasets, side_by_side, overwrite)
        images = sum(len(dataset.pairs) for dataset in datasets)
        with progress_bar("evaluating", images) as advance:
            scores, failures = evaluate(
                methods, datasets, scale, side_by_side, overwrite, progress=advance
            )

    lost = _write_csv(scores, csv_file, overwrite) if csv_file is not None else None
    if as_json:
        print(json.dumps(_report(scores, failures, scale), indent=2, allow_nan=False))
    elif scores:
        print(f"PSNR in dB / SSIM on luma, scale {scale}, border {scale}")
        stdout_console().print(_table(means(scores)))
    if side_by_side is not None:
        order = [BICUBIC, *(method.name for method in methods if method.name != BICUBIC), "HR"]
        notice(f"pictures in {side_by_side}, from left to right: {', '.join(order)}")
    for failure in failures:
        notice(f"error: {failure.error}")
    scored = {(score.dataset, score.image) for score in scores}
    unscored = sum((failure.dataset, failure.image) not in scored for failure in failures)
    if unscored:
        notice(f"{unscored} of {images} images failed; means leave them out")
    if pictures := len(failures) - unscored:
        notice(f"{pictures} of {images} pictures could not be written; their images have scores")
    if lost is not None:
        raise lost
    if failures:
        sys.exit(DvmsrError.exit_code)


def _check_pictures(datasets: Sequence[Dataset], folder: Path, overwrite: bool) -> None:
    """Refuse beforehand what `evaluate` could not write after minutes of computing."""
    check_folder(folder)
    for dataset in datasets:
        check_folder(folder / dataset.name)
        for picture in picture_paths(dataset, folder).values():
            if exists(picture):
                check_target(picture, overwrite)


def _table(averages: Sequence[Score]) -> Table:
    """Names as `Text`, which rich takes literally."""
    from rich.table import Table
    from rich.text import Text

    table = Table()
    table.add_column("model", no_wrap=True)
    rows: dict[str, list[str]] = {}
    for score in averages:
        if score.model == averages[0].model:
            table.add_column(Text(score.dataset), justify="right", no_wrap=True)
        rows.setdefault(score.model, []).append(f"{score.psnr_y:.3f} / {score.ssim_y:.4f}")
    for model, cells in rows.items():
        table.add_row(Text(model), *cells)
    return table


def _report(scores: Sequence[Score], failures: Sequence[Failure], scale: int) -> dict[str, Any]:
    """The content of `--json`; the infinite PSNR of equal images becomes null."""

    def entry(score: Score) -> dict[str, Any]:
        values = {key: value for key, value in asdict(score).items() if value != ""}
        return {key: None if value == math.inf else value for key, value in values.items()}

    return {
        "scale": scale,
        "border": scale,
        "means": [entry(score) for score in means(scores)],
        "images": [entry(score) for score in scores],
        "failures": [asdict(failure) for failure in failures],
    }


def _write_csv(scores: Sequence[Score], path: Path, overwrite: bool) -> DvmsrError | None:
    """Write the file, or return why that failed: the scores are still to be printed."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Score)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, scores))
    try:
        write_atomically(path, text.getvalue().encode(errors="surrogateescape"), overwrite)
    except DvmsrError as error:
        return error
    return None


def _save_side_by_side(images: Sequence[Pixels], path: Path, overwrite: bool) -> None:
    gap = np.full((images[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for image in images for part in (image, gap)][:-1]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DvmsrError(f"{path.parent} cannot be made a folder ({error.strerror})") from None
    write_atomically(path, encode(Image.fromarray(np.hstack(row)), path), overwrite)
