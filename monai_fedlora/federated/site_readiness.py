"""Whether a site could train now: everything that it can find out in seconds, without reading all of its images."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_fedlora.data.cases import Datalist
from monai_fedlora.engines.preprocessed import Preprocessed
from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.furnished import Furnished
from monai_fedlora.federated.installation import check_installed, installed_versions
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.materials import INSTALLED, Source
from monai_fedlora.federated.noised_rounds import NoisedRound, checked_account
from monai_fedlora.federated.permit import Permit
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.readiness import Readiness, told_cases, told_megabytes
from monai_fedlora.federated.reasons import DISK_FULL, reason_of
from monai_fedlora.federated.site_policy import Policy, site_policy
from monai_fedlora.federated.site_state import SiteStore
from monai_fedlora.resources import bundle_digest
from monai_fedlora.scope import Manifest, Role, Scope

_STATES = 3  # ours: two rounds that are kept, and one that is being written
_MOMENTS = 2  # of Adam


@dataclass
class Examination:
    """Looks at a site's own things, one after the other, and goes on after what is wrong.

    Args:
        name: the site's name in the plan.
        plan: the experiment.
        manifest: what may travel, as the job says.
        private_root: folder for private state; it exists.
        source: of the site's data and network.
        policy: returns the site's own limits.
        note: is given every error, which stays in the site.
        alone: see :class:`monai_fedlora.federated.federated_site.Site`.

    Attributes:
        furnished: what a site that is ready has read, for the :class:`~monai_fedlora.federated.federated_site.Site`
            that trains with it; None before, and of one that is not ready.
    """

    name: str
    plan: Plan
    manifest: Manifest
    private_root: Path
    note: Callable[[Exception], object]
    source: Source = INSTALLED
    policy: Callable[[], Policy] = site_policy
    alone: bool = True
    furnished: Furnished | None = field(default=None, init=False)
    _codes: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self._permit = Permit(read=self.policy, plan=self.plan, site=self.name, private_root=self.private_root)

    def readiness(self) -> Readiness:
        """What the site says of itself; after a refusal of its policy nothing of its data is looked at."""
        said: dict[str, Any] = {"versions": installed_versions()}
        with self._looked_at():
            said["bundle"] = bundle_digest(self.plan.bundle)[:8]
            check_installed(self.plan.bundle, bundle_sha256=self.plan.bundle_sha256, versions=self.plan.versions)
        with self._looked_at():
            self._permit.sends(self.manifest)
        if self._codes:
            return Readiness(codes=tuple(sorted(self._codes)), **said)
        with self._looked_at(), tempfile.TemporaryFile(dir=self.private_root) as file:
            file.write(b"a site can write here")
        cases: Datalist | None = None
        with self._looked_at():
            cases = self._data()
        with self._looked_at():
            self._alone_here()
        with self._looked_at():
            needed, free = self._network(), shutil.disk_usage(self.private_root).free
            said |= {"needed_mb": told_megabytes(needed), "free_mb": told_megabytes(free)}
            if free < needed:
                self._codes.add(DISK_FULL)
        if self._codes:
            self.furnished = None
        if cases is not None and not self._codes and self.plan.privacy is None:  # a budget withholds counts
            said["cases"] = told_cases(len(cases.training))
        return Readiness(codes=tuple(sorted(self._codes)), **said)

    def _alone_here(self) -> None:
        """Find out whether another run works in the experiment's folder, which a job's first round would set aside.

        Raises:
            Busy: it does, after some seconds in which a process of an earlier job can end.
        """
        folder = SiteStore(root=self.private_root, plan=self.plan, site=self.name).folder
        if folder.is_dir():
            FolderLock(folder, shared=True).release()

    def _network(self) -> int:
        """Load the network, and return the bytes that a run keeps in the private folder.

        Raises:
            PrivacyError: it would share something else than the job says.
            WeightsError: the backbone is missing, damaged or another one.
        """
        network = self.furnished.network() if self.furnished else None
        if network is None:
            network = self.source.network(self.plan, self.plan.site_method(self.name))
        scope: Scope = self.plan.scope(network)
        if scope.manifest != self.manifest:
            raise PrivacyError(
                "the job's manifest is not what this site's own bundle and method would share; the job was made "
                "with other settings or another version"
            )
        state = network.state_dict()
        private = sum(state[key].nbytes for key in scope.keys(Role.PRIVATE))
        trained = private + sum(state[key].nbytes for key in scope.keys(Role.SHARED))
        return _STATES * (private + _MOMENTS * trained) + 2 * trained

    def _data(self) -> Datalist:
        """Find the site's cases, and open and preprocess the first image.

        Raises:
            ConfigError: its classes are not the plan's.
            DataError: the list or the image cannot be used.
            PolicyError: the cases are too few for the site's policy, or, under a budget, the steps of a round are, or
                the rounds would pass the budget.
        """
        store = SiteStore(root=self.private_root, plan=self.plan, site=self.name)
        self.furnished = Furnished.of(self.plan, self.name, source=self.source, output=store.folder)
        config, cases = self.furnished.config, self.furnished.cases
        self._permit.trains_on(cases.training)
        if self.plan.privacy is not None:
            noised = NoisedRound.of(self.plan, self.name, batch_size=config.get("batch_size"))
            self.policy().check_steps(noised.mechanism.steps)
            checked_account(
                self.plan,
                self.name,
                cases.training,
                noised=noised,
                ledger=self.private_root if self.alone else store.folder,
                policy=self.policy,
            )
        if "preprocessing" in config.get("train", {}):  # a bundle of one's own may do it otherwise
            data, steps = (self.furnished.part(f"train::{part}") for part in ("data", "preprocessing"))
            Preprocessed(data[:1], steps, store=None, progress=False).image(0)
        return cases

    @contextmanager
    def _looked_at(self) -> Iterator[None]:
        """Take down what goes wrong inside."""
        try:
            yield
        except Exception as error:
            self._codes.add(reason_of(error))
            self.note(error)
