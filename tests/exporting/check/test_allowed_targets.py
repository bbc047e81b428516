"""The list of what a training configuration may call is exactly what is called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from monai_fedlora.exporting.check.allowed_targets import TRAINING_TARGETS
from monai_fedlora.files import read_json
from monai_fedlora.resources import bundle_path, list_bundles


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every object of a config that is built by calling something."""
    if isinstance(value, dict):
        yield from [value] if "_target_" in value else []
        for part in value.values():
            yield from objects(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from objects(part)


def test_the_shipped_bundles_call_everything_on_their_list_and_nothing_else() -> None:
    folders = {bundle_path(name).parent for name in list_bundles()}
    paths = [path for folder in folders for path in folder.rglob("*.json")]
    assert {part["_target_"] for path in paths for part in objects(read_json(path))} == TRAINING_TARGETS
