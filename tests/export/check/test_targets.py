"""The lists of what a configuration may call are exactly what is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monai_fedlora.export.check.targets import EXPORTED_TARGETS, TRAINING_TARGETS
from monai_fedlora.export.inference import inference_config
from monai_fedlora.export.modalities import modality_of
from monai_fedlora.files import read_json
from monai_fedlora.resources import bundle_path, list_bundles
from tests.export.conftest import Run


def targets(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from [value["_target_"]] if "_target_" in value else []
        for part in value.values():
            yield from targets(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from targets(part)


def test_an_export_calls_everything_on_its_list_and_nothing_else(stored_run: Run, image_run: Run) -> None:
    configs = [inference_config(run.plan.classes, modality_of(run.plan).reading()) for run in (stored_run, image_run)]
    assert {target for config in configs for target in targets(config)} == EXPORTED_TARGETS


def test_the_shipped_bundles_call_everything_on_their_list_and_nothing_else() -> None:
    paths = [path for name in list_bundles() for path in (bundle_path(name) / "configs").rglob("*.json")]
    assert {target for path in paths for target in targets(read_json(path))} == TRAINING_TARGETS
