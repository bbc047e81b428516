"""A recipe of NVFlare from a run, a plan or a job folder."""

from __future__ import annotations

import os
from pathlib import Path

from monai_fedlora.api.finished_run import Run
from monai_fedlora.federated.in_memory import check_in_packages
from monai_fedlora.federated.job_recipe import JobRecipe
from monai_fedlora.federated.plan import Plan
from monai_fedlora.resources import job_template_path

__all__ = ["recipe"]


def recipe(
    source: Run | Plan | str | os.PathLike[str], *, data: str | None = None, backbone: str | None = None
) -> JobRecipe:
    """A recipe of NVFlare, for its environments ``SimEnv``, ``PocEnv`` and ``ProdEnv`` of ``nvflare.recipe``.

    ``recipe.execute(SimEnv(clients=[...], workspace_root="runs"))`` runs the job in NVFlare's simulator, in the folder
    ``runs/<name>``; with ``PocEnv`` and ``ProdEnv`` it is submitted; ``recipe.export(folder)`` writes the job's folder
    into another one. Importing ``nvflare.recipe`` takes ``--export`` and ``--export-dir`` from a program's arguments.

    Sites obey their policies as in a federation: fewer than 16 training cases, or than 4 steps a round, need a
    ``policy.json`` that allows it (``monai-fedlora policy``, ``MONAI_FEDLORA_POLICY``). Why a simulated site did not
    take part is in ``runs/<name>/private/errors.log``.

    Args:
        source: a finished run or its plan; or a job folder, or the name of a shipped one.
        data: folder of prepared sites for ``SimEnv`` (default: ``MONAI_FEDLORA_DATA``, then generated phantoms).
        backbone: backbone file for ``SimEnv`` (default: ``MONAI_FEDLORA_BACKBONE``, then the demo weights).

    Raises:
        ConfigError: the run's network is of this program alone; or there is no such job.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import monai_fedlora as fl
        >>> recipe = fl.recipe("fedit")
        >>> recipe.plan.method, len(recipe.plan.sites)
        ('fedit', 6)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recipe.export(folder)
        ...     sorted(path.name for path in (Path(folder) / recipe.name).iterdir())
        ['app', 'meta.json']
    """
    places = {"data": data, "backbone": backbone}
    plan = source.plan if isinstance(source, Run) else source
    if isinstance(plan, Plan):
        check_in_packages(plan)
        return JobRecipe.of_plan(plan, **places)
    folder = Path(plan)
    return JobRecipe.of_folder(folder if folder.is_dir() else job_template_path(folder.name), **places)
