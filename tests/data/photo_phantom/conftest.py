"""Pictures of every class from every camera, each made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES
from monai_fedlora.data.photo_phantom.dermoscopy import Dermoscopy, make_dermoscopy
from monai_fedlora.data.photo_phantom.fundus import Fundus, make_fundus
from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS


@cache
def _lesion(diagnosis: str, camera: str, seed: int, shot: int) -> Dermoscopy:
    return make_dermoscopy(diagnosis, DERMATOSCOPES[camera], (3, seed), shot=shot)


@cache
def _eye(grade: str, camera: str, seed: int, shot: int) -> Fundus:
    return make_fundus(grade, FUNDUS_CAMERAS[camera], (3, seed), shot=shot)


@pytest.fixture
def lesion() -> Callable[..., Dermoscopy]:
    """Return ``lesion(diagnosis, camera, seed, shot)``; the same picture is made only once."""

    def make(diagnosis: str, camera: str = "C", seed: int = 0, shot: int = 0) -> Dermoscopy:
        return _lesion(diagnosis, camera, seed, shot)

    return make


@pytest.fixture
def eye() -> Callable[..., Fundus]:
    """Return ``eye(grade, camera, seed, shot)``; the same picture is made only once."""

    def make(grade: str, camera: str = "C", seed: int = 0, shot: int = 0) -> Fundus:
        return _eye(grade, camera, seed, shot)

    return make
