"""A model of a finished run, written for others."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from monai_fedlora.api.exported_model import Exported
from monai_fedlora.api.finished_run import Run
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting import bundle_export, peft_folders
from monai_fedlora.exporting.keys import read_signing_key

__all__ = ["export"]


def export(
    run: Run | str | os.PathLike[str],
    *,
    site: str,
    output: str | os.PathLike[str],
    backbone: str | None = None,
    format: Literal["bundle", "peft"] = "bundle",
    packed: bool = False,
    onnx: bool = False,
    program: bool = True,
    statistics: bool = True,
    public: str | os.PathLike[str] | None = None,
    sign: str | os.PathLike[str] | None = None,
    passphrase_file: str | os.PathLike[str] | None = None,
    warn: Callable[[str], None] = warnings.warn,
    on_public: Callable[[int, int], None] = lambda done, total: None,
) -> Exported:
    """Write a model as a MONAI bundle that runs with MONAI alone, or its adapters as PEFT folders.

    Args:
        run: of `monai_fedlora.federate`; or a run's workspace, or a site's private folder.
        site: whose personal model; "shared" for the shared part alone, for a new hospital.
        output: folder to create.
        backbone: backbone file of a catalogued network (default: ``MONAI_FEDLORA_BACKBONE``, then the demo weights).
        format: "bundle" or "peft".
        packed: write one zip file that holds the bundle's folder.
        onnx: add the network behind the preprocessing as an ONNX file.
        program: add the model as a program of ``torch.export``, which holds the weights once more.
        statistics: let the bundle tell unusual images by the site's noisy mean and threshold.
        public: folder of prepared sites whose cases are public, which help to tell unusual images.
        sign: elliptic-curve private key (PEM) to sign the bundle with.
        passphrase_file: whose first line is the passphrase of an encrypted key.
        warn: told what is unwise about the key.
        on_public: called with the number of public images done, and of all.

    Returns:
        The folder, its metadata, its digest, how it is used, and what its makers should know of it.

    Raises:
        ConfigError: options do not fit each other, or something is not installed.
        ExportError: the run has no such model, or a check of what was written failed; nothing is left behind.
        WeightsError: a file is damaged.

    Examples:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> import monai_fedlora as fl
        >>> def network():
        ...     return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.Linear(8, 2))
        >>> cases = (torch.rand(8, 1, 4, 4), [0, 1] * 4)
        >>> sites = {name: fl.SiteData(train=cases, test=cases) for name in ("north", "south")}
        >>> run = fl.federate(network, fl.method("fedit", targets="1", head="2", rank=2), sites, rounds=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = fl.export(run, site="north", output=Path(folder) / "bundle")
        ...     sorted(path.name for path in exported.folder.iterdir())
        ['LICENSE', 'checksums.json', 'configs', 'docs', 'models']
    """
    if format not in ("bundle", "peft"):
        raise ConfigError(f"there is no format {format!r}; choose bundle or peft")
    if passphrase_file and not sign:
        raise ConfigError("--sign-passphrase-file is of a key; give the key with --sign")
    if public and not statistics:
        raise ConfigError("--public-data is for a distance, which --no-statistics leaves out; leave it out")
    if format == "peft":
        if packed or onnx or not program or not statistics or public or sign:
            raise ConfigError(
                "--zip, --onnx, --no-pt2, --no-statistics, --public-data and --sign are of bundles; leave them out, or "
                "leave out --format peft"
            )
        folder = run.folder if isinstance(run, Run) else Path(run)
        if folder is None:
            raise ConfigError("PEFT folders are made from a run that was kept; give folder= to fl.federate")
        written = peft_folders.export_peft(run=folder, site=site, output=Path(output), backbone=backbone)
        return Exported.of(written, run=folder)
    key = read_signing_key(Path(sign), Path(passphrase_file) if passphrase_file else None) if sign else None
    for warning in key.warnings if key else ():
        warn(warning)
    options: dict[str, Any] = {"program": program, "onnx": onnx, "packed": packed, "key": key, "statistics": statistics}
    options |= {"public": Path(public) if public else None, "on_public": on_public}
    if isinstance(run, Run):
        if backbone is not None:
            raise ConfigError("the run knows its network's backbone; leave backbone out")
        return run.export(site, output, **options)
    written = bundle_export.export_bundle(run=Path(run), site=site, output=Path(output), backbone=backbone, **options)
    return Exported.of(written, run=Path(run))
