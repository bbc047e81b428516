"""What a site may still send about its patients: its ledger, held against an experiment's budget and the site's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection

from monai_fedlora.errors import PolicyError, PrivacyError
from monai_fedlora.privacy.accounting import epsilon_of
from monai_fedlora.privacy.budget import Budget
from monai_fedlora.privacy.ledger import Charge, Ledger, OpenLedger
from monai_fedlora.privacy.mechanism import Mechanism
from monai_fedlora.privacy.patient_pool import Pool
from monai_fedlora.privacy.privacy_settings import PrivacySettings
from monai_fedlora.privacy.randomness import Randomness

_log = logging.getLogger("monai_fedlora.ledger")


class Account:
    """A site's account of its training patients in one experiment.

    Args:
        ledger: of the site's private folder.
        experiment: the plan's name.
        site: the site's name in it.
        codes: of the patients who train, and of their images where these have codes of their own.
        patients: how many they are.
        settings: the experiment's budget.
        budget: returns the site's own budget as it is now, over all experiments; None where it has none.
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        experiment: str,
        site: str,
        codes: Collection[str],
        patients: int,
        settings: PrivacySettings,
        budget: Callable[[], Budget | None],
    ) -> None:
        self._ledger = ledger
        self._experiment = experiment
        self._site = site
        self._codes = codes
        self._patients = patients
        self._own = Budget(epsilon=settings.epsilon, delta=settings.delta)
        self._budget = budget
        with ledger.opened() as opened:
            pool = opened.pool(codes)
            if opened.others(pool) and not opened.charges(pool):
                _log.warning(
                    "%s knows %d other pool(s) of patients and none of those who train at %r now; if these are the "
                    "same people with new codes, their budget begins anew by mistake: give them their old codes",
                    ledger.path,
                    opened.others(pool),
                    site,
                )

    def check(self, mechanism: Mechanism, *, rounds: int | None = None) -> None:
        """Refuse rounds that would pass a budget, before they train.

        Args:
            mechanism: of one round.
            rounds: of the whole experiment, of which those that were charged already do not count again; None for one
                more. Where none is left, nothing more is told by a last answer that is sent again.

        Raises:
            PolicyError: they would pass the experiment's budget or the site's; nothing was trained.
            PrivacyError: the ledger was edited, belongs to another site, or cannot be read.
        """
        with self._ledger.opened() as opened:
            pool = opened.pool(self._codes)
            answered = {charge.round for charge in self._own_charges(opened, pool)}
            left = 1 if rounds is None else rounds - len(answered)
            if left > 0:
                self._check(opened, pool, mechanism, rounds=left)

    def charge(self, mechanism: Mechanism, *, round_number: int, randomness: Randomness, answer: str) -> None:
        """Write down what an answer costs; after this it may leave.

        Args:
            mechanism: with which it was computed.
            round_number: that it answers.
            randomness: of the noise and of the choice of patients.
            answer: SHA-256 of what leaves.

        Raises:
            PrivacyError: the randomness can be repeated by others, or see :meth:`check`.
            PolicyError: another experiment has spent what was left; nothing may leave.
        """
        if not randomness.secret:
            raise PrivacyError(
                "the noise of this answer was drawn from a seed, so that others can subtract it; it proves nothing and "
                "is not sent. Train with randomness of the site's own"
            )
        charge = Charge(
            experiment=self._experiment, site=self._site, round=round_number, mechanism=mechanism, answer=answer
        )
        with self._ledger.opened() as opened:
            pool = opened.pool(self._codes)
            self._check(opened, pool, mechanism, rounds=1)
            opened.charge(pool, charge)
        _log.info("round %d of %r is charged to the patients of %r", round_number, self._experiment, self._site)

    def covers(self, answer: str) -> bool:
        """Whether an answer was charged, so that it may leave again at no cost.

        Args:
            answer: SHA-256 of what would leave.
        """
        with self._ledger.opened() as opened:
            return answer in {charge.answer for charge in opened.charges(opened.pool(self._codes))}

    def _own_charges(self, opened: OpenLedger, pool: Pool) -> list[Charge]:
        return [charge for charge in opened.charges(pool) if charge.experiment == self._experiment]

    def _check(self, opened: OpenLedger, pool: Pool, mechanism: Mechanism, *, rounds: int) -> None:
        more = [mechanism] * rounds
        own = [charge.mechanism for charge in self._own_charges(opened, pool)]
        self._check_one(
            self._own,
            own,
            more,
            f"the plan of {self._experiment}",
            "has the job made with more noise, as by --dp-spare-rounds, or another experiment",
        )
        if (budget := self._budget()) is not None:
            spent = [charge.mechanism for charge in opened.charges(pool)]
            self._check_one(budget, spent, more, "the site's policy.json, over all experiments", "allows more there")

    def _check_one(
        self, budget: Budget, spent: list[Mechanism], more: list[Mechanism], whose: str, way_out: str
    ) -> None:
        if budget.delta * self._patients > 1:
            raise PolicyError(
                f"budget: delta is {budget.delta:g} in {whose}, above one over the {self._patients} patients here: to "
                f"publish one of them would satisfy it. Nothing was sent; choose at most {1 / self._patients:.1g}"
            )
        after = epsilon_of([*spent, *more], delta=budget.delta)
        if after > budget.epsilon:
            raise PolicyError(
                f"budget: {budget} is what {whose} allows to be told of one patient; {len(spent)} answers have spent "
                f"{epsilon_of(spent, delta=budget.delta):.4g} of it, and {len(more)} more would make it {after:.4g}. "
                f"Nothing was sent. It goes on when somebody {way_out}"
            )
