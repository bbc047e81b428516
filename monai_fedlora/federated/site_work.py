"""A site's work, in whatever process: it builds the site, and answers one question after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_fedlora.environment import GPU_PROCESSES, THREADS
from monai_fedlora.errors import Aborted, PrivacyError
from monai_fedlora.federated.failures import noted
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.furnished import Furnished
from monai_fedlora.federated.job_files import MANIFEST_NAME, PLAN_NAME, trusted_plan
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.readiness import Readiness
from monai_fedlora.federated.reasons import reason_of
from monai_fedlora.federated.site_policy import site_policy
from monai_fedlora.federated.site_readiness import Examination
from monai_fedlora.scope import Manifest

_Answer = tuple[dict[str, Any], Mapping[str, np.ndarray]]


class SiteWork:
    """A site that answers questions, built for the first task and again after one that failed.

    The first one begins with the cases and the network that were read to find out whether the site is ready.

    On the CPU the number of torch threads is ``MONAI_FEDLORA_THREADS``; unset, it is one in the simulator, whose
    results then do not depend on how many sites run at once, and torch's default elsewhere. On a GPU the features of
    all sites of the simulator share its memory, unless ``MONAI_FEDLORA_GPU_PROCESSES`` says that fewer run at once.

    Args:
        site: its name.
        config: folder of the job's configuration.
        local: folder of what the site's jobs cannot change; None outside of a workspace.
        private: folder for what stays in the site. What goes wrong is written to ``errors.log`` in it.
        simulated: whether this is NVFlare's simulator.
        should_stop: polled after every batch.
    """

    def __init__(
        self,
        *,
        site: str,
        config: Path,
        local: Path | None,
        private: Path,
        simulated: bool,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = site
        self._config = config
        self._local = local
        self._private = private
        self._simulated = simulated
        self._should_stop = should_stop
        self._site: Site | None = None
        self._furnished: Furnished | None = None
        self._budget = False

    def answer(self, question: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> _Answer:
        """Answer a question.

        Args:
            question: ``ready``, whether it could train; or ``train``, the round, or ``finish``, the kind of all images
                behind the tensors, with ``accepted``, the last round whose answer the server has accepted.
            tensors: that the server has sent.

        Returns:
            The report, with tensors to a round; or ``aborted``; or ``failed``, what NVFlare's log may say, with
            ``code``, the reason for the server; in the rounds of a plan with a budget for privacy neither tells what
            may depend on a patient.
        """
        try:
            return self._answer(question, tensors)
        except Aborted:
            self._site = None
            return {"aborted": True}, {}
        except Exception as error:
            self._site = None
            budget = self._budget and "ready" not in question
            said = noted(error, self._private, budget=budget)
            return {"failed": said, "code": reason_of(error, budget=budget)}, {}

    def _answer(self, question: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> _Answer:
        if "ready" in question:
            return {"report": self._readiness().to_json()}, {}
        self._site = self._site or self.build_site()
        accepted = question["accepted"]
        if "finish" in question:
            return {"report": self._site.finish(tensors, images=question["finish"], accepted=accepted).to_json()}, {}
        update = self._site.train_round(question["train"], tensors, accepted=accepted)
        return {"report": update.report.to_json()}, update.tensors

    def build_site(self) -> Site:
        """Build the site as its own bundle and settings say, and refuse a job that is about something else."""
        plan = self._plan()
        furnished, self._furnished = self._furnished, None  # for one site; a further one reads again
        if self._simulated:
            os.environ.setdefault(GPU_PROCESSES, str(len(plan.sites)))
        site = Site(
            name=self._name,
            plan=plan,
            private_root=self._private,
            should_stop=self._should_stop,
            policy=partial(site_policy, self._local),
            alone=not self._simulated,
            furnished=furnished,
        )
        if site.scope.manifest != self._manifest():
            raise PrivacyError(
                "the job's manifest is not what this site's own bundle and method would share; the job was made "
                "with other settings or another version"
            )
        return site

    def _readiness(self) -> Readiness:
        self._furnished = None
        examination = Examination(
            name=self._name,
            plan=self._plan(),
            manifest=self._manifest(),
            private_root=self._private,
            policy=partial(site_policy, self._local),
            note=lambda error: noted(error, self._private),
            alone=not self._simulated,
        )
        said = examination.readiness()
        self._furnished = None if self._site else examination.furnished
        return said

    def _plan(self) -> Plan:
        """The job's plan, with the threads that this process may compute it with."""
        threads = os.environ.get(THREADS) or ("1" if self._simulated else None)
        if threads:
            torch.set_num_threads(int(threads))
        plan = trusted_plan(self._config / PLAN_NAME, self._local)
        self._budget = plan.privacy is not None
        return plan

    def _manifest(self) -> Manifest:
        return Manifest.load(self._config / MANIFEST_NAME)
