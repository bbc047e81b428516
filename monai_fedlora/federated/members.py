"""The sites of a federation inside one process, on one frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from monai_fedlora.federated.failures import note, reason
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.one_backbone import FrozenTensors, return_freed_memory
from monai_fedlora.federated.reasons import Reason
from monai_fedlora.files import make_folder
from monai_fedlora.networks.read_once import reading_once
from monai_fedlora.scope import Role

_Answer = TypeVar("_Answer")


class Members:
    """The sites of a run, on one frozen backbone; one whose task failed is built anew for the next.

    Args:
        names: of all sites.
        build: makes the site of that ``name``.
        private: folder that errors are noted in.
        record_failures: whether an error of one site is its answer, instead of the end of all.
        budget: whether the plan has one for privacy, so that a site that was ready says little of why it failed, see
            :func:`monai_fedlora.federated.reasons.reason_of`.
    """

    def __init__(
        self,
        names: Sequence[str],
        build: Callable[..., Site],
        *,
        private: Path,
        record_failures: bool,
        budget: bool = False,
    ) -> None:
        self._names, self._build = names, build
        self._private, self._record_failures = private, record_failures
        self._budget, self._begun = budget, False
        self._frozen = FrozenTensors()
        self._sites: dict[str, Site] = {}

    def begin(self) -> dict[str, Reason | None]:
        """Build all that can be built, and return why a site is not ready; None for one that is.

        Raises:
            Exception: a site's, unless failures are recorded.
        """
        with reading_once():
            answers = {name: self.ask(name, lambda site: None) for name in self._names}
        self._begun = True
        return {name: answer if isinstance(answer, Reason) else None for name, answer in answers.items()}

    def ask(self, name: str, task: Callable[[Site], _Answer]) -> _Answer | Reason:
        """A site's answer to a task, or why it has none."""
        try:
            site = self._site(name)
            answer = task(site)
            _rest(site)
        except Exception as error:
            if not self._record_failures:
                raise
            self._forget(name)
            make_folder(self._private)
            note(error, self._private)
            return reason(error, self._private.name, budget=self._budget and self._begun)
        return answer

    def release(self) -> None:
        """Let other processes have the private folders."""
        for name in tuple(self._sites):
            self._forget(name)

    def _forget(self, name: str) -> None:
        if (site := self._sites.pop(name, None)) is not None:
            site.store.release()
        return_freed_memory()

    def _site(self, name: str) -> Site:
        if name not in self._sites:
            site = self._build(name=name)
            self._frozen.share(site.network, site.scope.keys(Role.FROZEN))
            _rest(site)
            self._sites[name] = site
        return self._sites[name]


def _rest(site: Site) -> None:
    """Move what a site that has answered does not need until its next task out of memory."""
    site.rest()
    return_freed_memory()
