"""The same code lies in nearly every bundle that the tests here check."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from monai_fedlora.exporting.check import models


@pytest.fixture(autouse=True, scope="module")
def _texts_are_judged_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("code_objection", "declared_types"):
            patch.setattr(models, name, functools.cache(getattr(models, name)))
        yield
