"""What a server sees of the sites while they train, kept so that somebody can measure what it tells.

A server adds answers up and forgets them. A simulation on one machine, in which everything lies there anyway, keeps
them where it is asked to: one file per round with what was sent and what was decoded of every accepted answer, in a
folder that is its owner's alone, among the private parts. A federation of hospitals has no such setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monai_fedlora.errors import WeightsError
from monai_fedlora.federated.plan import Plan
from monai_fedlora.files import load_tensors, make_folder, save_tensors

SEEN = "_seen"
"""Folder beside those of an experiment's sites; no site is called so."""
_SENT, _ANSWER = "sent", "answer"
Payload = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class SeenRound:
    """One round, as the server has it.

    Attributes:
        sent: shared tensors that the sites began with, by state-dict key.
        answers: of every accepted answer the decoded tensors, by site.
    """

    sent: Payload
    answers: Mapping[str, Payload]


class SeenRounds:
    """The kept rounds of an experiment.

    Args:
        private: folder of the private parts of a run.
        plan: the experiment.
    """

    def __init__(self, *, private: Path, plan: Plan) -> None:
        self.folder = private / plan.experiment / SEEN
        self._plan = plan

    def save(self, number: int, seen: SeenRound) -> None:
        """Write one round; later ones are removed, which are left over from before the run was set back."""
        make_folder(self.folder)
        for path in self._paths():
            if _number(path) > number:
                path.unlink()
        tensors = {f"{_SENT}/{key}": value for key, value in seen.sent.items()}
        for site, payload in seen.answers.items():
            tensors |= {f"{_ANSWER}/{site}/{key}": value for key, value in payload.items()}
        kept = {name: torch.from_numpy(np.array(value)) for name, value in tensors.items()}
        metadata = {"fingerprint": self._plan.fingerprint, "round": str(number)}
        save_tensors(self.folder / f"seen-{number:05d}.safetensors", kept, metadata)

    def load(self) -> dict[int, SeenRound]:
        """All kept rounds by number, in their order; empty where none was kept.

        Raises:
            WeightsError: a file is damaged, or of another experiment.
        """
        return {_number(path): self._read(path) for path in self._paths()}

    def clear(self) -> None:
        """Remove all of them."""
        for path in self._paths():
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("seen-[0-9][0-9][0-9][0-9][0-9]*.safetensors"))

    def _read(self, path: Path) -> SeenRound:
        tensors, metadata = load_tensors(path)
        if metadata.get("fingerprint") != self._plan.fingerprint:
            raise WeightsError(f"{path} was kept by another experiment, method or network; remove the folder")
        sent: dict[str, np.ndarray] = {}
        answers: dict[str, dict[str, Any]] = {}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            site, _, key = rest.partition("/")
            if kind == _SENT and rest:
                sent[rest] = value.numpy()
            elif kind == _ANSWER and key:
                answers.setdefault(site, {})[key] = value.numpy()
            else:
                raise WeightsError(f"{path} holds {name!r}, which is of no round; it is damaged")
        return SeenRound(sent, answers)


def _number(path: Path) -> int:
    return int(path.stem.partition("-")[2])
