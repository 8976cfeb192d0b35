from __future__ import annotations

import pytest
from engine_info import INFO

from dvmsr.errors import UsageError
from dvmsr.runtime.backends.trt.profiles import InputProfile, Profile


def test_shapes_that_an_input_takes() -> None:
    profile = InputProfile((1, 6, 8, 8), (1, 6, 16, 16), (2, 6, 32, 32))
    assert profile.contains((2, 6, 8, 32)) and InputProfile((), (), ()).contains(())
    for shape in ((1, 6, 8), (1, 6, 7, 8), (3, 6, 8, 8), (1, 5, 8, 8)):
        assert not profile.contains(shape)


def test_profiles() -> None:
    profile = INFO.profile
    assert profile.contains((1, 16, 1024)) and profile.contains((2, 1024, 16))
    assert not profile.contains((3, 64, 64)) and not profile.contains((1, 15, 64))
    assert str(profile) == "1x16x16 to 2x1024x1024 (batch x height x width)"
    for bad in (((0, 1, 1), (1, 1, 1), (1, 1, 1)), ((1, 1, 9), (1, 1, 8), (1, 1, 9))):
        with pytest.raises(UsageError, match="must be at least 1 and grow"):
            Profile(*bad)
