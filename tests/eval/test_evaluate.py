"""Scores of test sets: the published figures, the reports, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from shared import official_weights, shared_dir

from dvmsr.config import DVMSRConfig
from dvmsr.data.imresize import imresize
from dvmsr.data.natural_image import natural_image
from dvmsr.data.pairs import find_dataset
from dvmsr.errors import DvmsrError, UsageError
from dvmsr.eval.evaluate import GAP, Method, Score, _table, evaluate, load_methods, means, run
from dvmsr.eval.metrics import psnr_y, ssim_y

# PyTorch FP32, measured independently of this code.
OFFICIAL = {
    ("bicubic", "Set5"): (28.429, 0.8111),
    ("bicubic", "Set14"): (26.088, 0.7048),
    ("dvmsr_df2k", "Set5"): (32.213, 0.8951),
    ("dvmsr_ntire", "Set5"): (32.181, 0.8946),
}


def check_official(name: str, model: str, backend: str, dataset: str = "Set5") -> None:
    methods, scale = load_methods([model], backend)
    assert scale == 4
    scores, _ = evaluate(methods, [find_dataset(shared_dir() / "eval" / dataset, scale)], scale)
    (mean,) = means(scores)
    psnr, ssim = OFFICIAL[name, dataset]
    assert mean.psnr_y == pytest.approx(psnr, abs=0.005)
    assert mean.ssim_y == pytest.approx(ssim, abs=0.0003)


@pytest.mark.parametrize("dataset", ["Set5", "Set14"])
def test_official_figures_of_bicubic(dataset: str) -> None:
    check_official("bicubic", "bicubic", "auto", dataset)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dvmsr_df2k", "dvmsr_ntire"])
def test_official_figures_through_torch(name: str) -> None:
    check_official(name, str(official_weights(name)), "torch")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "backend"),
    [("dvmsr_df2k", "native"), ("dvmsr_ntire", "portable")],  # the smaller one where it is slow
)
def test_official_figures_through_onnx(name: str, backend: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from dvmsr.export import export_onnx

    export_onnx(official_weights(name), tmp_path / "official.onnx", verify=False)
    check_official(name, str(tmp_path / "official.onnx"), backend)


@pytest.fixture
def test_sets(tmp_path: Path) -> list[Path]:
    """Two small sets of two images each, one of the images gray."""
    rng = np.random.default_rng(0)
    for dataset in ("one", "two"):
        (tmp_path / dataset).mkdir()
        for name in ("a.png", "b.png"):
            pixels = imresize(rng.integers(0, 256, (8, 10, 3), np.uint8), 4)
            picture = Image.fromarray(pixels)
            if (dataset, name) == ("two", "b.png"):
                picture = picture.convert("L")
            picture.save(tmp_path / dataset / name)
    return [tmp_path / "one", tmp_path / "two"]


NEAREST = Method("nearest", lambda image: image.repeat(4, axis=0).repeat(4, axis=1))


def test_scores_are_those_of_each_image(test_sets: list[Path]) -> None:
    datasets = [find_dataset(folder, 4) for folder in test_sets]
    (bicubic,), _ = load_methods(["bicubic"])
    done: list[None] = []
    scores, failures = evaluate([bicubic, NEAREST], datasets, 4, progress=lambda: done.append(None))
    expected = []
    for dataset in datasets:
        for pair in dataset.pairs:
            loaded = pair.load(4)
            lr = loaded.lr
            for name, sr in (("bicubic", imresize(lr, 4)), ("nearest", NEAREST.enlarge(lr))):
                values = psnr_y(sr, loaded.hr, 4), ssim_y(sr, loaded.hr, 4)
                expected.append(Score(name, dataset.name, pair.hr.name, *values))
    assert scores == expected and not failures
    assert len(done) == 4


def test_means_are_per_model_and_set() -> None:
    scores = [
        Score("m", "one", "a", 30.0, 0.8),
        Score("n", "one", "a", 10.0, 0.1),
        Score("m", "one", "b", 32.0, 0.9),
        Score("m", "two", "a", math.inf, 1.0),
    ]
    assert means(scores) == [
        Score("m", "one", "", 31.0, pytest.approx(0.85)),
        Score("n", "one", "", 10.0, 0.1),
        Score("m", "two", "", math.inf, 1.0),
    ]


def test_side_by_side(test_sets: list[Path], tmp_path: Path) -> None:
    dataset = find_dataset(test_sets[0], 4)
    (bicubic,), _ = load_methods(["bicubic"])
    evaluate([bicubic, NEAREST], [dataset], 4, side_by_side=tmp_path / "pictures")
    files = sorted(path.name for path in (tmp_path / "pictures" / "one").iterdir())
    assert files == ["a.png", "b.png"]
    pair = dataset.pairs[1].load(4)
    picture = np.asarray(Image.open(tmp_path / "pictures/one/b.png"))
    assert picture.shape == (32, 3 * 40 + 2 * GAP, 3)
    for k, image in enumerate((imresize(pair.lr, 4), NEAREST.enlarge(pair.lr), pair.hr)):
        left = k * (40 + GAP)
        np.testing.assert_array_equal(picture[:, left : left + 40], image)


def test_pictures_of_images_with_one_stem_have_names_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("a.png", "A.bmp", "b.png"):
        Image.new("RGB", (40, 40), "red").save(folder / name)
    evaluate([NEAREST], [find_dataset(folder, 4)], 4, tmp_path / "pictures")
    files = sorted(path.name for path in (tmp_path / "pictures" / "set").iterdir())
    assert files == ["A.bmp.png", "a.png.png", "b.png.png"]


def test_a_picture_that_cannot_be_written_costs_no_score(
    test_sets: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "pictures").touch()
    dataset = find_dataset(test_sets[0], 4)
    scores, failures = evaluate([NEAREST], [dataset], 4, tmp_path / "pictures")
    assert scores == evaluate([NEAREST], [dataset], 4)[0]
    assert [failure.image for failure in failures] == ["a.png", "b.png"]
    assert "cannot be made a folder" in failures[0].error


def test_an_image_without_room_for_the_ssim_window_is_a_failure(tmp_path: Path) -> None:
    Image.new("RGB", (40, 16)).save(tmp_path / "a.png")
    scores, (failure,) = evaluate([NEAREST], [find_dataset(tmp_path, 4)], 4)
    assert not scores
    assert "a.png cannot be measured" in failure.error


def test_an_image_that_fails_for_one_model_has_no_scores(test_sets: list[Path]) -> None:
    def choosy(image: np.ndarray) -> np.ndarray:
        if choosy.calls:  # type: ignore[attr-defined]
            raise DvmsrError("there is not enough memory")
        choosy.calls = True  # type: ignore[attr-defined]
        return NEAREST.enlarge(image)

    choosy.calls = False  # type: ignore[attr-defined]
    methods = [NEAREST, Method("choosy", choosy)]
    scores, (failure,) = evaluate(methods, [find_dataset(test_sets[0], 4)], 4)
    assert [(score.model, score.image) for score in scores] == [
        ("nearest", "a.png"),
        ("choosy", "a.png"),
    ]
    assert failure.image == "b.png"
    assert "b.png failed: there is not enough memory" in failure.error


def test_bad_images_leave_the_others_their_scores(
    test_sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (test_sets[0] / "aa.png").write_bytes(b"broken")
    arguments = {"csv_file": tmp_path / "scores.csv", "side_by_side": tmp_path / "pictures"}
    with pytest.raises(SystemExit) as ended:
        run(test_sets, ["bicubic"], "auto", None, as_json=True, **arguments)
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [image["image"] for image in report["images"]] == ["a.png", "b.png"] * 2
    (failure,) = report["failures"]
    assert (failure["dataset"], failure["image"]) == ("one", "aa.png")
    assert f"error: {failure['error']}\n1 of 5 images failed; means leave them out\n" in err
    assert (tmp_path / "scores.csv").read_text().count("\n") == 5
    assert len(list((tmp_path / "pictures").rglob("*.png"))) == 4


def test_files_in_the_way_are_refused_before_the_work(
    test_sets: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, pictures = tmp_path / "scores.csv", tmp_path / "pictures"
    arguments = test_sets, ["bicubic"], "auto", None, table, False, pictures
    run(*arguments)
    written = {path: path.read_bytes() for path in (table, *pictures.rglob("*.png"))}
    assert len(written) == 5
    for path in written:
        path.write_bytes(b"precious")
    with monkeypatch.context() as patch:
        patch.setattr("dvmsr.eval.evaluate.evaluate", lambda *_, **__: pytest.fail("computed"))
        with pytest.raises(UsageError, match=r"scores\.csv exists; allow that with --overwrite"):
            run(*arguments)
        with pytest.raises(UsageError, match=r"one/a\.png exists; allow that with --overwrite"):
            run(test_sets, ["bicubic"], "auto", None, None, False, pictures)
        with pytest.raises(DvmsrError, match=r"scores\.csv.* cannot be written to"):
            run(test_sets, ["bicubic"], "auto", None, None, False, table / "pictures")
    assert {path.read_bytes() for path in written} == {b"precious"}
    run(*arguments, overwrite=True)
    assert {path: path.read_bytes() for path in written} == written


def test_a_full_disk_leaves_the_table_on_the_screen(
    test_sets: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, data: bytes, overwrite: bool) -> None:
        raise DvmsrError(f"{path} cannot be written (No space left on device)")

    monkeypatch.setattr("dvmsr.eval.evaluate.write_atomically", full)
    with pytest.raises(DvmsrError, match="No space left"):
        run(test_sets, ["bicubic"], "auto", None, tmp_path / "scores.csv", False, None)
    assert "bicubic" in capsys.readouterr().out


def test_a_picture_that_cannot_be_written_costs_no_scores(
    test_sets: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(path: Path, data: bytes, overwrite: bool) -> None:
        raise DvmsrError(f"{path} cannot be written (No space left on device)")

    monkeypatch.setattr("dvmsr.eval.evaluate.write_atomically", full)
    pictures = tmp_path / "pictures"
    with pytest.raises(SystemExit) as ended:
        run(test_sets, ["bicubic"], "auto", None, None, True, pictures)
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert len(json.loads(out)["images"]) == 4
    assert f"error: {pictures / 'one' / 'a.png'} cannot be written" in err
    assert err.endswith("\n4 of 4 pictures could not be written; their images have scores\n")
    assert "images failed" not in err


def test_names_are_shown_literally(
    test_sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = test_sets[0].rename(tmp_path / "[bold]set :boom:")
    run([folder], ["bicubic"], "auto", None, None, False, None)
    assert "[bold]set :boom:" in capsys.readouterr().out
    assert "[/red].onnx" in rendered([Score("[/red].onnx", "one", "", 30.0, 0.9)])


def rendered(averages: list[Score]) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(_table(averages))
    return file.getvalue()


def test_table_json_and_csv_agree(
    test_sets: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (40, 40), "red").save(test_sets[1] / "red.png")  # bicubic makes no error
    arguments = (test_sets, ["bicubic"], "auto", 3)
    run(*arguments, csv_file=tmp_path / "scores.csv", as_json=True, side_by_side=None)
    report = json.loads(capsys.readouterr().out)
    assert report["scale"] == report["border"] == 3
    assert [mean["dataset"] for mean in report["means"]] == ["one", "two"]
    assert report["means"][1]["psnr_y"] is None
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(report["images"]) == 5
    for row, image in zip(rows, report["images"], strict=True):
        psnr = math.inf if image["psnr_y"] is None else image["psnr_y"]
        assert float(row.pop("psnr_y")) == psnr
        assert float(row.pop("ssim_y")) == image["ssim_y"]
        assert row == {key: image[key] for key in ("model", "dataset", "image")}

    run(*arguments, csv_file=None, as_json=False, side_by_side=None)
    table = capsys.readouterr().out
    mean = report["means"][0]
    assert f"{mean['psnr_y']:.3f} / {mean['ssim_y']:.4f}" in table
    assert "inf / " in table


def test_a_network_with_scans(
    tmp_path: Path, exported: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """It repeats pixels, and adds a little."""
    (tmp_path / "set").mkdir()
    pixels = (natural_image((1, 24, 32))[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "set" / "a.png")
    run([tmp_path / "set"], [f"{exported('enlarge')}@1"], "portable", None, None, True, None)
    (score,) = json.loads(capsys.readouterr().out)["means"]
    assert score["model"] == "enlarge.onnx@1"
    assert 18 < score["psnr_y"] < 40


def test_models_of_one_file_name_keep_their_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        scale = 2
        config = DVMSRConfig()

        def __call__(self, image: np.ndarray) -> np.ndarray:
            return image

    monkeypatch.setattr("dvmsr.runtime.Upscaler.from_file", lambda *_, **__: Model())
    methods, scale = load_methods(["run1/best.pth", "run2/best.pth", "bicubic", "run2/last.pth"])
    names = [method.name for method in methods]
    assert names == ["run1/best.pth", "run2/best.pth", "bicubic", "last.pth"]
    assert scale == 2
    assert methods[2].enlarge(np.zeros((5, 6, 3), np.uint8)).shape == (10, 12, 3)
    with pytest.raises(UsageError, match=r"--scale has 4, run1/best\.pth has 2"):
        load_methods(["run1/best.pth"], scale=4)


def test_refuses_what_cannot_be_told_apart(test_sets: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="named twice"):
        load_methods(["bicubic", "bicubic"])
    with pytest.raises(UsageError, match="two test sets are called one"):
        run([test_sets[0]] * 2, ["bicubic"], "auto", None, None, False, None)
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        run(test_sets, ["bicubic"], "auto", None, tmp_path / "nowhere/scores.csv", False, None)
