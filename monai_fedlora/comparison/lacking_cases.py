"""Runs that did not test what others did, of which worst site, calibration and subgroups would else know nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from monai_fedlora.comparison.case_scores import CaseScore
from monai_fedlora.comparison.result_rows import Repetition
from monai_fedlora.rendering.tables import plural
from monai_fedlora.site_report import PERSONAL


def lacking_cases(scores: Iterable[CaseScore], *, view: str = PERSONAL) -> list[str]:
    """Say in words which runs lack test cases, and of how many cases a method's runs have no score.

    A run that lacks cases of its method's others does not count in what is computed from patients, see
    :func:`monai_fedlora.comparison.patient_draws.cases_tested`; cases that no run of a method tested are missing in all
    of them.
    """
    found: dict[str, dict[Repetition, dict[tuple[str, str], bool]]] = defaultdict(lambda: defaultdict(dict))
    for each in scores:
        if each.view == view and each.cases is None:
            found[each.method][each.seed, each.repeat][each.site, each.case] = each.score is not None
    everything = {case for runs in found.values() for cases in runs.values() for case in cases}
    repeated = any(repeat for runs in found.values() for _, repeat in runs)
    said = []
    for method, runs in found.items():
        own = {case for cases in runs.values() for case in cases}
        for (seed, repeat), cases in runs.items():
            if len(cases) < len(own):
                run = f"{method}, seed {seed}" + (f", repeat {repeat}" if repeated else "")
                sites = ", ".join(sorted({site for site, _ in own - cases.keys()}))
                said.append(f"{run} lacks {len(own) - len(cases)} of {plural(len(own), 'test case')} ({sites})")
        if missing := everything - own:
            sites = ", ".join(sorted({site for site, _ in missing}))
            said.append(f"no run of {method} tested {len(missing)} of {plural(len(everything), 'test case')} ({sites})")
        if unknown := {case for cases in runs.values() for case, known in cases.items() if not known}:
            said.append(f"{method} has no score of {plural(len(unknown), 'test case')} in some run")
    return said
