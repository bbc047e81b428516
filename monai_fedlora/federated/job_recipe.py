"""A federation's job as a recipe of NVFlare, which its environments take: ``SimEnv``, ``PocEnv`` and ``ProdEnv``."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from nvflare.job_config.api import FedJob
from nvflare.job_config.fed_job_config import FedJobConfig
from nvflare.recipe.spec import ExecEnv, Recipe

from monai_fedlora.errors import ConfigError
from monai_fedlora.federated.initial import build_manifest
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.simulator import simulate
from monai_fedlora.scratch import private_folder

Writer = Callable[[Path], None]
"""Writes the job's folder, which does not exist yet."""


class JobRecipe(Recipe):
    """A job folder as it is, for ``execute(env)``, ``run(env)`` and ``export(folder)``.

    In ``SimEnv`` it runs as with `monai-fedlora simulate`, and the run lies in ``<workspace_root>/<name>``; ``PocEnv``
    and ``ProdEnv`` submit the folder. What would change the job from outside (filters, files, parameters) is refused:
    what may travel is checked at both ends by what the job names, and by nothing else.

    Attributes:
        name: of the experiment, which is the name of the folder too.
        plan: what the job's sites agree on.
    """

    def __init__(self, *, plan: Plan, write: Writer, data: str | None = None, backbone: str | None = None) -> None:
        """Make the recipe.

        Args:
            plan: of the job.
            write: writes its folder.
            data: folder of prepared sites for ``SimEnv``; None for what ``MONAI_FEDLORA_DATA`` says, or phantoms.
            backbone: backbone file for ``SimEnv``; None for what ``MONAI_FEDLORA_BACKBONE`` says, or the demo weights.

        Raises:
            ConfigError: NVFlare takes no job of such a name.
        """
        try:
            job = _FolderJob(plan=plan, write=write, data=data, backbone=backbone)
        except ValueError as error:
            raise ConfigError(f"NVFlare does not take a job called {plan.experiment!r}: {error}") from error
        super().__init__(job)
        self.plan = plan

    @classmethod
    def of_plan(cls, plan: Plan, **places: Any) -> JobRecipe:
        """The job that `monai-fedlora job` writes of a plan."""
        return cls(plan=plan, write=lambda folder: write_job(plan, build_manifest(plan), folder), **places)

    @classmethod
    def of_folder(cls, job: Path, **places: Any) -> JobRecipe:
        """A job folder that was written before.

        Raises:
            FedLoraError: it is none.
        """
        plan = Plan.load(job / "app" / "config" / "plan.json")

        def write(folder: Path) -> None:
            if folder.exists():
                raise ConfigError(f"{folder} exists; choose another folder or remove it")
            shutil.copytree(job, folder)

        return cls(plan=plan, write=write, **places)

    def process_env(self, env: ExecEnv) -> None:
        """Refuse an environment with other sites than the job has."""
        clients, count = getattr(env, "clients", None), getattr(env, "num_clients", None)
        sites = self.plan.sites
        if (clients and set(clients) != set(sites)) or (count and count != len(sites)):
            found = ", ".join(clients) if clients else str(count)
            raise ConfigError(
                f"the environment has {found} as clients, and the job's sites are {', '.join(sites)}; give "
                f"clients={list(sites)}"
            )

    def _apply_per_site_config(self, config: dict[str, dict]) -> None:
        _refuse()


class _FolderJob(FedJob):
    """A job of which only its folder is known; NVFlare's own classes build it of components."""

    def __init__(self, *, plan: Plan, write: Writer, data: str | None, backbone: str | None) -> None:
        super().__init__(name=plan.experiment, min_clients=len(plan.sites))
        self.job = _Folder(name=plan.experiment, write=write)
        self.clients = list(plan.sites)
        self._places: dict[str, Any] = {"data": data, "backbone": backbone}

    def to(self, obj: Any, target: str, id: str | None = None, **kwargs: Any) -> NoReturn:
        _refuse()

    def add_file_to(self, *args: Any, **kwargs: Any) -> NoReturn:
        _refuse()

    def simulator_run(
        self,
        workspace: str,
        n_clients: int | None = None,
        clients: list[str] | None = None,
        threads: int | None = None,
        gpu: str | None = None,
        log_config: str | None = None,
    ) -> int:
        """Run in NVFlare's simulator, with the checks, limits and records of `monai-fedlora simulate`."""
        given = (("-gpu", gpu), ("-l", log_config))
        options = [part for option, value in given if value for part in (option, value)]
        with private_folder("monai-fedlora-job-") as place:
            folder = place / self.name
            self.job.write(folder)
            results = simulate(folder, workspace=Path(workspace), threads=threads, options=options, **self._places)
        return 1 if results["lacks"] else 0


class _Folder(FedJobConfig):
    """What NVFlare exports and submits."""

    def __init__(self, *, name: str, write: Writer) -> None:
        super().__init__(job_name=name, min_clients=1)
        self.write = write

    def generate_job_config(self, job_root: str) -> None:
        """Write the job into a folder of its name."""
        self.write(Path(job_root) / self.job_name)


def _refuse() -> NoReturn:
    raise ConfigError(
        "the job of a federation runs as it was written; nothing can be added to its recipe. Give what shall be "
        "different to the plan, or change the folder that recipe.export(folder) writes"
    )
