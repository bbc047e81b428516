"""The lists of what a configuration may call are exactly what is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monai_fedlora.export.check.configs import place_problems
from monai_fedlora.export.check.targets import EXPORTED_TARGETS, TRAINING_TARGETS
from monai_fedlora.export.inference import inference_config
from monai_fedlora.export.modalities import modality_of
from monai_fedlora.files import read_json
from monai_fedlora.resources import bundle_path, list_bundles
from tests.export.conftest import Run


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a config that is built by calling something."""
    if isinstance(value, dict):
        yield from [value] if "_target_" in value else []
        for part in value.values():
            yield from objects(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from objects(part)


def test_an_export_calls_everything_on_its_list_and_nothing_else(stored_run: Run, image_run: Run) -> None:
    configs = [inference_config(run.plan.classes, modality_of(run.plan).reading()) for run in (stored_run, image_run)]
    given: dict[str, set[str]] = {}
    for config in configs:
        assert list(place_problems(config)) == []
        for part in objects(config):
            given.setdefault(part["_target_"], set()).update(part.keys() - {"_target_"})
    assert given == EXPORTED_TARGETS


def test_the_shipped_bundles_call_everything_on_their_list_and_nothing_else() -> None:
    paths = [path for name in list_bundles() for path in (bundle_path(name) / "configs").rglob("*.json")]
    assert {part["_target_"] for path in paths for part in objects(read_json(path))} == TRAINING_TARGETS
