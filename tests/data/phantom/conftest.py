"""One patient of every group from every vendor, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from monai_fedlora.data.phantom.patient import PhantomPatient, make_patient
from monai_fedlora.data.phantom.render import LV, MYO, RV
from monai_fedlora.data.phantom.vendors import VENDORS


@cache
def _scan(group: str, vendor: str, seed: int) -> PhantomPatient:
    return make_patient(group, VENDORS[vendor], seed)


@pytest.fixture
def scan() -> Callable[..., PhantomPatient]:
    """Return ``scan(group, vendor, seed)``; the same patient is made only once."""

    def make(group: str, vendor: str = "A", seed: int = 5) -> PhantomPatient:
        return _scan(group, vendor, seed)

    return make


@pytest.fixture
def volumes() -> Callable[[PhantomPatient], np.ndarray]:
    """Return ``volumes(patient)``: mL of LV, muscle and RV (columns) at ED and ES (rows), counted in the mask."""

    def count(patient: PhantomPatient) -> np.ndarray:
        voxel = np.prod(patient.spacing) / 1000
        return np.array([[(frame == label).sum() * voxel for label in (LV, MYO, RV)] for frame in patient.mask])

    return count
