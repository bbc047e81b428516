"""A faster start for a site's process.

In the simulator a site's process can live for a single task, and most of its start is importing. MONAI imports every
package it can make optional use of, such as transformers for one network that is not used here; importing it without
them halves its time.
"""

from __future__ import annotations

import sys

_UNUSED = ("transformers", "matplotlib", "sklearn", "pandas", "tensorboard", "torch.utils.tensorboard", "mlflow")


def import_monai() -> None:
    """Import MONAI without the optional packages that training at a site does not use.

    They stay importable for everybody else. Does nothing where MONAI is imported already.
    """
    if "monai" in sys.modules:
        return
    hidden = [name for name in _UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None makes an import fail at once
    try:
        import monai.bundle
        import monai.data
        import monai.engines
        import monai.transforms  # noqa: F401
    finally:
        for name in hidden:
            del sys.modules[name]
