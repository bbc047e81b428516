"""Open the bundle that classifies or measures and one that outlines hearts, each model in a process of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.helper import Helper, isolated
from monai_fedlora.clinic.measuring import Measurer, open_model
from monai_fedlora.clinic.segmenting import Segmenter, open_segmenter
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.keys import PublicKey
from monai_fedlora.studies.study import CINE


@contextlib.contextmanager
def opened_models(
    bundle: Path, *, outlines: Path | None = None, files: Sequence[Path] = (), keys: Sequence[PublicKey] = ()
) -> Iterator[tuple[Classifier | Measurer | None, Segmenter | None]]:
    """Yield the model of the class or of the numbers and that of hearts' outlines; one of them may be None.

    Args:
        bundle: folder or zip of either kind of bundle.
        outlines: of a second bundle, which outlines.
        files: of public keys, one of which must have signed each bundle.
        keys: content of these files.

    Raises:
        ConfigError: a bundle is none, the second one stands beside another than one that classifies cines, or does not
            outline hearts.
        ExportError, WeightsError, OutOfMemory: as of `monai_fedlora.clinic.bundle.open_bundle`.
    """
    with contextlib.ExitStack() as stack:
        helpers = [stack.enter_context(Helper(path, keys=files)) for path in (bundle, outlines) if path is not None]
        for helper in helpers:
            helper.start()  # it loads while this process does
        first = open_model(bundle, keys=keys, device="cpu")
        if outlines is None:
            if isinstance(first, Segmenter):
                yield None, isolated(first, helpers[0])
            else:
                yield isolated(first, helpers[0]), None
            return
        if isinstance(first, Measurer):
            raise ConfigError(
                f"{bundle} measures by itself; give it alone, or a bundle that classifies before --outlines"
            )
        if isinstance(first, Segmenter):
            raise ConfigError(
                f"{bundle} outlines the heart by itself; give it alone, or a bundle that classifies before --outlines"
            )
        if first.modality != CINE:
            raise ConfigError(f"{bundle} takes photographs, and {outlines} outlines the heart in cines")
        second = open_segmenter(outlines, keys=keys, device="cpu")
        yield isolated(first, helpers[0]), isolated(second, helpers[1])
