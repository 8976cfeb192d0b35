"""Every recipe builds, has the paper's number of parameters where it gives one, and trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dvmsr.config import PRESETS, DVMSRConfig
from dvmsr.errors import UsageError
from dvmsr.model import DVMSR
from dvmsr.train.config.config_file import resolve
from dvmsr.train.config.recipes import RECIPES, recipe
from dvmsr.train.config.settings import Distillation, Settings
from dvmsr.train.network import wanted_config
from dvmsr.train.objective import DistillationObjective, Objective

PARAMETERS = {
    "paper": 424_428,
    "paper-teacher": 7_432_131,
    "paper-distilled": 424_428,
    "table6-unidirectional": 424_428,
    "table6-bidirectional": 484_908,
    "table8-teacher": 7_432_131,
    "table8-student": 424_428,
    "table8-distilled": 424_428,
}
MILLIONS = {
    "table3-1-1-1-1": 2.758,
    "table3-2-2-2-2": 3.651,
    "table3-2-2-9-2": 5.214,
    "table3-6-6-6-6": 7.222,
    "table4-rssb2": 2.175,
    "table4-rssb4": 3.651,
    "table4-rssb6": 5.128,
    "table4-rssb10": 8.080,
    "table5-channels150": 2.664,
    "table5-channels180": 3.651,
    "table5-channels192": 4.089,
    "table5-channels210": 4.809,
}


def config_of(name: str) -> DVMSRConfig:
    return wanted_config(recipe(name), PRESETS["student"])


@pytest.mark.parametrize("name", RECIPES)
def test_parameters_are_the_papers(name: str) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in DVMSR(config_of(name)).parameters())
    if name.startswith("table7-"):
        assert count == 424_428
    elif name in PARAMETERS:
        assert count == PARAMETERS[name]
    else:
        assert round(count / 1e6, 3) == MILLIONS[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_of_it_learns(name: str) -> None:
    values = recipe(name)
    names = set(Distillation.__dataclass_fields__) & set(values)
    torch.manual_seed(0)
    student = DVMSR(config_of(name))
    objective = Objective(student)
    if names:
        tiny_teacher = DVMSR(DVMSRConfig(channels=16, depths=(1, 1)))
        distillation = Distillation(**{name: values[name] for name in names})
        objective = DistillationObjective(student, tiny_teacher, distillation)
    optimizer = torch.optim.SGD(objective.parameters(), lr=1e-3)
    lr, hr = torch.rand(1, 3, 4, 4), torch.rand(1, 3, 16, 16)
    first = objective(lr, hr)["loss"]
    first.backward()
    optimizer.step()
    assert objective(lr, hr)["loss"] < first


@pytest.mark.parametrize("name", RECIPES)
def test_its_options_are_known_and_make_sense(name: str) -> None:
    values = recipe(name)
    settings = {key: values[key] for key in Settings.__dataclass_fields__ if key in values}
    Settings(**settings)
    assert settings["steps"] == 500_000
    assert settings["batch"] == 128
    assert values["patch"] * config_of(name).scale == 256
    known = {*Settings.__dataclass_fields__, *Distillation.__dataclass_fields__}
    assert set(values) <= known | {"preset", "network"}


def test_an_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no recipe 'best'; there are paper, paper-teacher"):
        recipe("best")


# --- recipe, file and command line -------------------------------------------------------------


def test_the_command_line_overrides_the_file_and_that_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'batch = 64\nlr = 1\nsave-every = 7\ndata = ["a", "b"]\nval = "c"\n'
        "[network]\ndepths = [2, 2]\n"
    )
    values = resolve({"recipe": "table5-channels192", "config": path, "batch": 2, "minutes": 5.0})
    assert (values["batch"], values["lr"], values["save_every"]) == (2, 1.0, 7)
    assert (values["minutes"], "steps" in values, values["patch"]) == (5.0, False, 64)
    assert values["data"] == [Path("a"), Path("b")] and values["val"] == Path("c")
    config = wanted_config(values, PRESETS["student"])
    assert config == DVMSRConfig(192, (2, 2), upsampler="pixelshuffle")


def test_a_preset_replaces_the_network_and_a_scale_keeps_the_rest(tmp_path: Path) -> None:
    given = {"recipe": "table4-rssb6"}
    student = PRESETS["student"]
    assert wanted_config(resolve({**given, "preset": "student"}), student) == student
    scaled = wanted_config(resolve({**given, "scale": 2}), student)
    assert (scaled.scale, len(scaled.depths)) == (2, 6)
    path = tmp_path / "run.toml"
    path.write_text("[network]\nscale = 3\n")
    assert wanted_config(resolve({"config": path}), student).scale == 3
    assert wanted_config(resolve({"config": path, "scale": 2}), student).scale == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch = ", "is no TOML file"),
        ("colour = 1", "holds colour, which is no option of training"),
        ("resume = true", "holds resume; give that on the command line"),
        ('output = "run"', "holds output; give that on the command line"),
        ('val = ""', "has nothing for val"),
        ('data = ["photos", ""]', "has nothing for data"),
        ('batch = "8"', "wrong kind of value for batch, '8'"),
        ("batch = 8.5", "wrong kind of value for batch, 8.5"),
        ("batch = true", "wrong kind of value for batch, True"),
        ("data = [1]", "wrong kind of value for data"),
        ("network = 3", "wrong kind of value for network"),
        ("[network]\nwings = 2", "holds network.wings, which no network has"),
    ],
    ids=lambda value: value.partition("\n")[0] if "=" in value else "",
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        resolve({"config": path})
    assert message in str(caught.value) and "run.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no\.toml does not exist"):
        resolve({"config": tmp_path / "no.toml"})
    binary = tmp_path / "photo.png"
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(binary)
    with pytest.raises(UsageError, match=r"photo\.png is no TOML file"):
        resolve({"config": binary})
