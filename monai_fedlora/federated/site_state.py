"""What a site keeps to itself between tasks, processes and restarts.

Everything of a round (private tensors, optimiser moments, changes that were not sent, epoch) is one file, so a crash
cannot mix rounds. There are two at most: ``round-<n>.safetensors`` of the last answer that the server has accepted, and
``answered-<n>.safetensors`` of an answer of which that is not known yet; the answer lies in ``answer.safetensors``. The
next task tells, and the second takes the place of the first or is removed. The folder is readable by its owner only.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monai_fedlora.data.origin import UNKNOWN, Origin, check_kind
from monai_fedlora.errors import ConfigError, PrivacyError, WeightsError
from monai_fedlora.federated.changes import begins_budget, end_change, listed, plan_changes
from monai_fedlora.federated.lock import FolderLock
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import (
    csv_cell,
    csv_text,
    load_tensors,
    make_folder,
    read_metadata,
    save_tensors,
    sha256,
    write_text,
)

FINAL_NAME = "final.safetensors"
EVIDENCE_NAME = "evidence.safetensors"
SCORES_NAME = "test_scores.csv"
"""What the last model says of every test case."""
TRAINED_ON = "trained_on"
"""Entry of the metadata of stored tensors: what images moved them."""
NOISE_KEY = "noise_key"
"""Entry of the metadata of stored evidence."""
EARLIER = "_earlier-"
"""How the folders are called that keep what an experiment left before it began anew; no site is called so."""
_ROUND, _ANSWERED = "round", "answered"
_NAME = re.compile(r"(round|answered)-([0-9]{5,})\.safetensors")
_ANSWER_NAME = "answer.safetensors"
_EARLIER_RESIDUAL = "left_over/"  # in states of earlier versions
_NOT_SAID = Origin()
_log = logging.getLogger("monai_fedlora.state")


@dataclass(frozen=True, kw_only=True)
class SiteState:
    """State after a finished round.

    Args:
        round: the finished round.
        epoch: epochs trained since round 0.
        private: private tensors by state-dict key.
        optimiser: optimiser tensors by ``<parameter name>/<slot>``.
        residual: what the encodings of shared tensors left out so far, by state-dict key, for the next update.
        images: kind of all images that were trained on so far.
    """

    round: int
    epoch: int
    private: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    residual: Mapping[str, Tensor] = field(default_factory=dict)
    images: str = UNKNOWN


@dataclass(frozen=True, kw_only=True)
class KeptAnswer:
    """A site's answer to a round, kept in case that the server asks again.

    Args:
        sent: SHA-256 of the tensors that came, see :func:`monai_fedlora.federated.update.payload_digest`.
        after: the last accepted round that the server named with them.
        tensors: as they travelled.
        report: as it travelled.
    """

    sent: str
    after: int | None
    tensors: Mapping[str, np.ndarray]
    report: Mapping[str, Any]


def is_of_rounds(name: str) -> bool:
    """Whether a file of this name is a state, or an answer, between two rounds."""
    return name == _ANSWER_NAME or _NAME.fullmatch(name) is not None


class SiteStore:
    """A site's folder ``<root>/<experiment>/<site>``.

    Args:
        root: folder the hospital chose for private state.
        plan: the experiment; its fingerprint is checked on every read.
        site: the site's name.
    """

    def __init__(self, *, root: str | os.PathLike[str], plan: Plan, site: str) -> None:
        self.folder = Path(root) / plan.experiment / site
        self._plan = plan
        self._site = site
        self._lock: FolderLock | None = None

    def claim(self) -> None:
        """Keep the folder from other processes until :meth:`release`, or until this process ends.

        Raises:
            Busy: another process has claimed it, probably a second run of the same experiment.
        """
        if self._lock is None:
            self._prepare()
            self._lock = FolderLock(self.folder, shared=True)

    def release(self) -> None:
        """Let other processes have the folder."""
        self._lock = None

    def save(self, state: SiteState, answer: KeptAnswer) -> None:
        """Write the state after a round, with its answer, beside the one before.

        Accepted states of this round and of later ones are removed: they are left over from before the server was set
        back to an earlier round.
        """
        self._prepare()
        tensors = {f"private/{key}": value for key, value in state.private.items()}
        tensors |= {f"optimiser/{key}": value for key, value in state.optimiser.items()}
        tensors |= {f"residual/{key}": value for key, value in state.residual.items()}
        numbers = {"round": state.round, "epoch": state.epoch}
        entries = {"numbers": json.dumps(numbers), TRAINED_ON: state.images}
        (self.folder / _ANSWER_NAME).unlink(missing_ok=True)
        save_tensors(self._path(state.round, _ANSWERED), tensors, {**self._identity(), **entries})
        for number in self.rounds():
            if number >= state.round:
                self._path(number).unlink()
        sent = {key: torch.from_numpy(np.array(value)) for key, value in answer.tensors.items()}
        said = {"sent": answer.sent, "after": answer.after, "report": answer.report}
        save_tensors(self.folder / _ANSWER_NAME, sent, {**self._identity(), "answer": json.dumps(said)})

    def settle(self, accepted: int | None, round_number: int) -> None:
        """Make the state of the last answer the one to go on from if it was accepted, or else remove it.

        That of an answer to ``round_number`` stays, in case that it is asked for again.

        Args:
            accepted: the last round of which the server has accepted an answer; None if it does not know, and every
                answer to another round is taken for accepted.
            round_number: that is asked for.
        """
        for number in self.rounds(_ANSWERED):
            path = self._path(number, _ANSWERED)
            if number != round_number:
                (self.folder / _ANSWER_NAME).unlink(missing_ok=True)
            if number == accepted or (accepted is None and number != round_number):
                path.replace(self._path(number))
                for earlier in self.rounds():
                    if earlier != number:
                        self._path(earlier).unlink()
            elif number != round_number:
                _log.info("the server has not accepted %r's answer to round %d, which is forgotten", self._site, number)
                path.unlink()

    def kept_answer(self, round_number: int, *, sent: str, after: int | None) -> KeptAnswer | None:
        """The answer to a round that was given before to the same tensors, under the same settings.

        Args:
            round_number: that is asked for again.
            sent, after: see :class:`KeptAnswer`.

        Raises:
            PrivacyError: the file is of another experiment.
            WeightsError: it is damaged.
        """
        path = self.folder / _ANSWER_NAME
        if not (path.is_file() and self._path(round_number, _ANSWERED).is_file()):
            return None
        tensors, metadata = load_tensors(path)
        self._check_identity(path, metadata)
        try:
            said, before = json.loads(metadata["answer"]), json.loads(metadata["plan"])
            found = KeptAnswer(**said, tensors={key: value.numpy() for key, value in tensors.items()})
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} holds no answer ({error}); remove it to answer the round anew") from error
        same = not plan_changes(before, self._plan, at_site=True) and not end_change(before, self._plan)
        return found if same and (found.sent, found.after) == (sent, after) else None

    def load_before(self, round_number: int) -> SiteState | None:
        """Return the newest state of a round before ``round_number``; None where the site has none at all.

        Raises:
            PrivacyError: the file is of another experiment or of other settings than the plan says, or all stored
                rounds are later ones.
            WeightsError: the file is damaged.
        """
        rounds = self.rounds()
        if not rounds:
            return None
        earlier = [number for number in rounds if number < round_number]
        if not earlier:
            raise PrivacyError(
                f"{self.folder} holds rounds {sorted(rounds)}, but the server is in round {round_number}: it went "
                "back further than this site can. Restart the experiment, or remove the folder to start afresh"
            )
        path = self._path(max(earlier))
        tensors, metadata = load_tensors(path)
        self._check(path, metadata)
        try:
            numbers = {key: int(value) for key, value in json.loads(metadata["numbers"]).items()}
            check_kind(images := metadata.get(TRAINED_ON, UNKNOWN))
            return SiteState(
                private=_part(tensors, "private/"),
                optimiser=_part(tensors, "optimiser/"),
                residual=_part(tensors, "residual/") or _part(tensors, _EARLIER_RESIDUAL),
                images=images,
                **numbers,
            )
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"{path} is not a site state ({error}); remove it to start afresh") from error

    def clear(self) -> None:
        """Remove all stored rounds and the final model of this experiment, and nothing else."""
        for path in self._stored():
            path.unlink()

    def set_aside(self) -> Path | None:
        """Move all stored rounds and the final model of this experiment into ``_earlier-<n>``, and log that.

        A server that sends round 0 may have lost its own state, or somebody has forgotten ``--resume``: what the site
        has learnt is still there then.

        Returns:
            The folder, for its owner alone; None where there was nothing.
        """
        return self._set_aside(self._stored(), "begins anew")

    def set_aside_model(self, rounds: int) -> Path | None:
        """Move a personal model with more rounds behind it than ``rounds`` into ``_earlier-<n>``, and log that.

        A site that is asked for its personal model after its states of rounds were removed or set back has a lesser
        one, which does not take the place of what may be all that is left of the training.

        Returns:
            The folder; None where there is no such model.
        """
        path = self.folder / FINAL_NAME
        if not path.is_file() or _rounds_of_model(path) <= rounds:
            return None
        model = [self.folder / name for name in (FINAL_NAME, EVIDENCE_NAME, SCORES_NAME)]
        return self._set_aside([path for path in model if path.is_file()], "has lost rounds, and ends anew")

    def _set_aside(self, stored: Sequence[Path], why: str) -> Path | None:
        if not stored:
            return None
        number = 1
        while (earlier := self.folder / f"{EARLIER}{number}").exists():
            number += 1
        make_folder(earlier)
        for path in stored:
            path.replace(earlier / path.name)
        _log.warning(
            "experiment %r %s at %r: what it had left (%s) is now in %s; remove that if nobody needs it",
            self._plan.experiment,
            why,
            self._site,
            ", ".join(path.name for path in stored),
            earlier,
        )
        return earlier

    def _stored(self) -> list[Path]:
        names = [self._path(number, kind).name for kind in (_ROUND, _ANSWERED) for number in sorted(self.rounds(kind))]
        paths = [self.folder / name for name in (*names, _ANSWER_NAME, FINAL_NAME, EVIDENCE_NAME, SCORES_NAME)]
        return [path for path in paths if path.is_file()]

    def save_final(
        self,
        *,
        shared: Mapping[str, Tensor],
        private: Mapping[str, Tensor],
        record: Any,
        origin: Origin = _NOT_SAID,
        shared_origin: str | None = UNKNOWN,
        tuned: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> Path:
        """Write the personal model: last shared and private tensors with the record of the run.

        Args:
            shared: by state-dict key.
            private: by state-dict key.
            record: of the run.
            origin: of the site's own cases.
            shared_origin: kind of all images that moved the shared tensors; None where none of these is trained.
            tuned: what the site has made of shared parameters for itself after the last round, by state-dict key. Like
                the private ones they are of this site's patients alone, and never travel.
        """
        self._prepare()
        tensors = {f"shared/{key}": value for key, value in shared.items()}
        tensors |= {f"private/{key}": value for key, value in private.items()}
        tensors |= {f"tuned/{key}": value for key, value in tuned.items()}
        path = self.folder / FINAL_NAME
        trained_on = {"site": origin.to_json(), "shared": shared_origin}
        entries = {"record": json.dumps(record), TRAINED_ON: json.dumps(trained_on)}
        save_tensors(path, tensors, {**self._identity(), **entries})
        return path

    def save_evidence(self, tensors: Mapping[str, Tensor]) -> Path:
        """Write what the personal model says of the site's cases, bound to the model just written.

        Like everything in this folder it never travels; an export makes the temperature and the reference of unusual
        images from it, see :mod:`monai_fedlora.exporting.kept_evidence`. It gets a secret of its own, so that copies of
        the run that are exported apart draw the same noise.

        Args:
            tensors: ``<split>/logits`` and ``<split>/shared_logits`` (N, C), ``<split>/labels`` (N,),
                ``<split>/features`` (N, D) and ``<split>/units`` (N,), a number per patient, of "training",
                "validation" and "test".
        """
        path = self.folder / EVIDENCE_NAME
        bound = {"final_sha256": sha256(self.folder / FINAL_NAME), NOISE_KEY: secrets.token_hex(32)}
        save_tensors(path, tensors, {**self._identity(), **bound})
        return path

    def save_scores(self, rows: Sequence[Mapping[str, Any]]) -> Path | None:
        """Write what the last model says of every test case, as a csv that never travels.

        Args:
            rows: with ``view``, ``case`` and the numbers of :attr:`monai_fedlora.tasks.task.Task.scores`.

        Returns:
            The file; None without a row.
        """
        path = self.folder / SCORES_NAME
        if not rows:
            path.unlink(missing_ok=True)
            return None
        write_text(path, csv_text([rows[0], *(map(csv_cell, row.values()) for row in rows)]))
        return path

    def rounds(self, kind: str = _ROUND) -> list[int]:
        """Numbers of the rounds whose state is stored: of accepted answers, or of those "answered" since then."""
        matches = map(_NAME.fullmatch, os.listdir(self.folder)) if self.folder.is_dir() else ()
        return [int(match[2]) for match in matches if match and match[1] == kind]

    def _path(self, number: int, kind: str = _ROUND) -> Path:
        return self.folder / f"{kind}-{number:05d}.safetensors"

    def _prepare(self) -> None:
        make_folder(self.folder)
        for folder in (self.folder, self.folder.parent):
            folder.chmod(0o700)

    def _identity(self) -> dict[str, str]:
        return {
            "fingerprint": self._plan.fingerprint,
            "site": self._site,
            "plan": json.dumps(self._plan.to_json()),
        }

    def _check(self, path: Path, metadata: Mapping[str, str]) -> None:
        self._check_identity(path, metadata)
        before = _stored_plan(path, metadata)
        if begins_budget(before, self._plan):
            raise PrivacyError(
                f"{path} was trained without a budget for privacy, and what it holds would leave with the first answer "
                "under one; begin the budget in a new experiment, which may start from the shared tensors (job "
                "--start-from without --resume)"
            )
        if unsaid := self._unsaid_changes(before):
            raise PrivacyError(
                f"{path} was stored with other settings than the job's plan has, and the plan does not say that they "
                f"changed ({listed(unsaid)}); whoever makes the job has to accept that (job --resume --accept-changes)"
            )

    def _unsaid_changes(self, before: Any) -> dict[str, str]:
        changes = plan_changes(before, self._plan, at_site=True)
        return {name: change for name, change in changes.items() if name not in self._plan.changed}

    def _check_identity(self, path: Path, metadata: Mapping[str, str]) -> None:
        if metadata.get("fingerprint") != self._plan.fingerprint or metadata.get("site") != self._site:
            raise PrivacyError(
                f"{path} belongs to another experiment, method, backbone or site than {self._plan.experiment!r} at "
                f"{self._site!r}; choose another experiment name, or remove the folder to start afresh"
            )


def _stored_plan(path: Path, metadata: Mapping[str, str]) -> Any:
    try:
        return json.loads(metadata["plan"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path} is not a site state ({error}); remove it to start afresh") from error


def _rounds_of_model(path: Path) -> float:
    """Rounds of a site's own state behind its personal model; more than any where the file does not say."""
    try:
        record = json.loads(read_metadata(path)["record"])
        return int(record.get("restored_rounds", record["round"]))
    except (AttributeError, KeyError, TypeError, ValueError, WeightsError):
        return math.inf


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
