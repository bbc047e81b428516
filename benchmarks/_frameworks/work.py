"""The work that every system does: sites with pictures, a backbone, rounds, and one JSON file that says all that."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

WORK_NAME = "work.json"
OUTCOME_NAME = "outcome.json"
CAMERAS = 6
"""Sites beyond them have copies of their pictures."""
BUNDLE = "image_2d_fedopal_classification"
STYLE = "dermoscopy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is done.

    Attributes:
        folder: receives everything.
        data: folder of prepared sites.
        backbone: its weights, in a file.
        size: its architecture.
        classes: of the pictures.
        sites: their number.
        rounds, epochs, batch_size: as in every federation; epochs are per round.
        at_once: sites that train at the same time, where a system can.
        method, method_args: of ours.
        rank: of peers' adapters.
        seed: of everything random.
    """

    folder: str
    data: str
    backbone: str
    size: str
    classes: tuple[str, ...]
    sites: int
    rounds: int
    epochs: int
    batch_size: int
    at_once: int
    method: str
    method_args: dict[str, Any]
    rank: int
    seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the sites."""
        return tuple(f"site-{number}" for number in range(1, self.sites + 1))

    def write(self) -> Path:
        """Write it to its folder and return the file."""
        path = Path(self.folder) / WORK_NAME
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")
        return path

    @classmethod
    def read(cls, path: str | Path) -> Work:
        """Read what :meth:`write` wrote."""
        work = cls(**json.loads(Path(path).read_text(encoding="utf-8")))
        return replace(work, classes=tuple(work.classes))

    def write_outcome(self, **values: Any) -> None:
        """Leave what only the system itself can tell."""
        path = Path(self.folder) / OUTCOME_NAME
        path.write_text(json.dumps(values), encoding="utf-8")


def prepare_data(folder: Path, *, sites: int, cases: int) -> tuple[str, ...]:
    """Give each site so many photographs to train on, none to validate or test, and return the classes.

    Args:
        folder: receives a folder for each site.
        sites: how many.
        cases: of each; a few more where pictures show the same lesion.
    """
    from monai_fedlora.data.photo_phantom.photo_site import PhotoPhantomSettings
    from monai_fedlora.data.site import site_data
    from monai_fedlora.files import read_json, write_json

    settings = PhotoPhantomSettings(training=cases, validation=0, test=0)
    listed: dict[str, Any] = {}
    for number in range(sites):
        source = site_data(f"site-{number % CAMERAS + 1}", phantom=STYLE, settings=settings).parent
        target = folder / f"site-{number + 1}"
        shutil.copytree(source, target)
        listed = read_json(target / "datalist.json")
        write_json(target / "datalist.json", {**listed, "site": target.name})
    return tuple(listed["classes"])


def prepare_backbone(path: Path, *, size: str, classes: int) -> None:
    """Store random weights without a head."""
    import torch

    from monai_fedlora.files import save_tensors
    from monai_fedlora.networks.catalogue import build_backbone

    torch.manual_seed(0)
    network = build_backbone(size, out_chans=classes)
    state = network.state_dict()
    save_tensors(path, {key: value for key, value in state.items() if not key.startswith(network.head_prefixes)})
