"""The stand-ins in place for one test, and afterwards everything as before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dvmsr import compat


@pytest.fixture
def installed() -> Iterator[None]:
    compat.install()
    yield
    compat.uninstall()
