"""The page about a run, and its numbers for trackers."""

from __future__ import annotations

import os
from pathlib import Path

from monai_fedlora.api.finished_run import Run
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import write_text
from monai_fedlora.reporting.found_run import read_run
from monai_fedlora.reporting.page import page
from monai_fedlora.reporting.track import to_mlflow, to_tensorboard
from monai_fedlora.tracker_names import MLFLOW, TENSORBOARD, check_trackers

__all__ = ["report"]


def report(
    run: Run | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    tensorboard: str | os.PathLike[str] | None = None,
    mlflow: str | None = None,
) -> Path:
    """Write one HTML page about a run, finished or not, that opens offline.

    Args:
        run: of `monai_fedlora.federate`; or a run's workspace, or a site's own private folder.
        output: the page.
        tensorboard: folder that also receives the numbers, as TensorBoard events.
        mlflow: where the numbers also go, as an MLflow run, such as ``sqlite:///mlruns.db``.

    Returns:
        The page.

    Raises:
        ConfigError: ``output`` is a folder, or a tracker is not installed.
        FedLoraError: there is no run.

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
        ...     page = fl.report(run, output=Path(folder) / "report.html")
        ...     page.name, "south" in page.read_text()
        ('report.html', True)
    """
    target = Path(output)
    if target.is_dir():
        raise ConfigError(f"--output {target} is a folder; give the file of the page")
    check_trackers([name for name, wanted in ((TENSORBOARD, tensorboard), (MLFLOW, mlflow)) if wanted])
    found = run.found if isinstance(run, Run) else read_run(Path(run))
    write_text(target, page(found))
    if tensorboard:
        to_tensorboard(found.record, Path(tensorboard))
    if mlflow:
        to_mlflow(found.record, mlflow)
    return target
