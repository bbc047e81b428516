"""What a federation has made: its record, its models, and what can be written from them."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from monai_fedlora.adapters.lora import merge_lora
from monai_fedlora.api.exported_model import Exported
from monai_fedlora.data.cases import Datalist
from monai_fedlora.errors import ConfigError, ExportError, nearest
from monai_fedlora.exporting.arrays import OwnNetwork
from monai_fedlora.exporting.bundle_export import export_bundle
from monai_fedlora.exporting.finished import SHARED_SITE, FinishedModel, read_finished, restored
from monai_fedlora.exporting.intervals import with_intervals
from monai_fedlora.exporting.kept_evidence import read_evidence
from monai_fedlora.exporting.locate import find_personal
from monai_fedlora.exporting.verify import exported_view
from monai_fedlora.federated.in_memory import InMemory, check_in_packages
from monai_fedlora.federated.initial import build_manifest
from monai_fedlora.federated.jobs import write_job
from monai_fedlora.federated.materials import Installed, Source
from monai_fedlora.federated.plan import Plan
from monai_fedlora.federated.run_record import LAST_NAME, RESULTS_NAME
from monai_fedlora.federated.site_policy import Policy
from monai_fedlora.federated.site_state import EVIDENCE_NAME, FINAL_NAME
from monai_fedlora.files import make_folder, read_json, write_bytes, write_text
from monai_fedlora.networks.opened import OpenedNetwork
from monai_fedlora.rendering.drawing import Figure
from monai_fedlora.rendering.tables import Table
from monai_fedlora.reporting.found_run import FoundRun, read_run
from monai_fedlora.reporting.page import page
from monai_fedlora.reporting.record import Answer, Metrics
from monai_fedlora.reporting.run_figures import learning_curve, losses
from monai_fedlora.scope import Manifest
from monai_fedlora.scratch import private_folder
from monai_fedlora.site_report import PERSONAL, SHARED
from monai_fedlora.tasks.classification import CLASSIFICATION
from monai_fedlora.tasks.task import OUTPUTS

_log = logging.getLogger(__name__)
MODELS = (PERSONAL, SHARED)
_KEPT = (RESULTS_NAME, LAST_NAME, f"private/*/*/{FINAL_NAME}", f"private/*/*/{EVIDENCE_NAME}")
_TABLED = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "accuracy": "accuracy"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan(Plan):
    """What the sites of a run have agreed on, see `monai_fedlora.federated.plan.Plan`."""

    def to_job(self, folder: str | os.PathLike[str], *, custom_folder: bool = True) -> Path:
        """Write the NVFlare job of a federation that does the same among hospitals.

        Args:
            folder: of the job, to create.
            custom_folder: whether the job names the classes that it uses; without it sites have to allow-list them.

        Raises:
            ConfigError: the network is one of this program alone; or the folder exists.
        """
        check_in_packages(self)
        least = Policy().least_cases
        if few := [f"{site} ({count})" for site, count in self.declared_cases.items() if count < least]:
            _log.warning(
                "a site trains on at least %d patients what it sends, unless its own policy.json says otherwise, so "
                "that it would send nothing with fewer training cases, as here of %s",
                least,
                ", ".join(few),
            )
        write_job(self, build_manifest(self), Path(folder), custom_folder=custom_folder)
        return Path(folder)


class Run:
    """A finished federation, as `monai_fedlora.federate` returns it.

    Attributes:
        plan: what its sites agreed on; ``plan.to_job(folder)`` writes an NVFlare job of the same.
        results: its whole record, as a kept run has it in ``results.json``.
        folder: where it is kept; None for a run that is in memory alone.
        found: what the page about the run is made of.
        bytes: of the tensors that travel, ``up`` and ``down`` for each site and round, and the ``total`` of the run.
    """

    def __init__(
        self,
        *,
        found: FoundRun,
        results: Mapping[str, Any],
        source: Source,
        listed: Mapping[str, Datalist],
        manifest: Manifest,
        folder: Path | None,
        files: Mapping[str, bytes],
    ) -> None:
        plan = Plan.from_json(results["plan"])
        self.plan = RunPlan(**{field.name: getattr(plan, field.name) for field in dataclasses.fields(plan)})
        self.results = results
        self.folder = folder
        self.found, self._source, self._listed, self._files = found, source, listed, files
        up, down = manifest.up.nbytes, manifest.down.nbytes
        answers = sum(len(entry.answers) for entry in found.record.rounds)
        self.bytes = {"up": up, "down": down, "total": answers * (up + down) + len(found.record.final) * down}

    @property
    def records(self) -> list[dict[str, Any]]:
        """Metrics, one dictionary for each model, split and site.

        ``round`` is how many rounds lie behind the model. Rows of the split "training" have the ``loss`` and the
        ``seconds`` of that round; those of "validation" and "test" the metrics of the "personal" and the "shared"
        model. A metric that cannot be computed is None.
        """
        record, rows = self.found.record, []
        for entry in record.rounds:
            for site, said in entry.answers.items():
                rows += _measured(site, entry.number, {"validation": said.validation})
                trained = {"loss": said.train_loss, "seconds": said.seconds}
                rows.append({**_place(site, entry.number + 1, "training", PERSONAL), "cases": said.cases, **trained})
        last = self.plan.start_round + self.plan.rounds
        for site, said in record.final.items():
            rows += _measured(site, last, {"validation": said.validation, "test": said.test})
        return rows

    @property
    def cases(self) -> list[dict[str, Any]]:
        """What the finished models say of every case, one dictionary each.

        ``label`` and ``predicted`` are class names, ``p_<class>`` probabilities. The shared model is asked about test
        cases alone.
        """
        rows: list[dict[str, Any]] = []
        classes, task = self.plan.classes, self.plan.task_of
        if OUTPUTS not in task.sections:
            raise ConfigError(f"run.cases has class probabilities, and this run is for {task.name}; see run.records")
        with self._place() as place:
            for site in self.found.personal:
                evidence = read_evidence(find_personal(place, site))
                for model, logits in ((PERSONAL, evidence.logits), (SHARED, evidence.shared_logits)):
                    for split, values in logits.items():
                        listed = self._listed[site].cases(split)
                        for number, (row, case) in enumerate(zip(values.softmax(dim=1).tolist(), listed, strict=True)):
                            found = {"site": site, "split": split, "model": model, "case": number}
                            found |= {"subject": case.unit or case.subject, "label": classes[case.label]}
                            found["predicted"] = classes[max(range(len(row)), key=row.__getitem__)]
                            rows.append(found | {f"p_{name}": value for name, value in zip(classes, row, strict=True)})
        return rows

    def frame(self, what: str = "records") -> Any:
        """`records` or `cases` as a pandas frame.

        Raises:
            ConfigError: ``what`` is another word, or pandas is not installed.
        """
        if what not in ("records", "cases"):
            raise ConfigError(f"there is no {what!r}; choose records or cases")
        try:
            import pandas
        except ImportError as error:
            raise ConfigError(f"a frame needs pandas (pip install pandas); run.{what} has the same without") from error
        return pandas.DataFrame(getattr(self, what))

    def table(self) -> Table:
        """Test metrics of every site's personal and shared model with 95 % intervals, which `print` shows as text.

        A site without test cases has a line that says so.
        """
        rows, task = [], self.plan.task_of
        tabled = _TABLED if task is CLASSIFICATION else task.measures
        for site in self.plan.sites:
            said = self.found.record.final.get(site, Answer()).test
            known = {model: said[model] for model in MODELS if model in said and said[model].values}
            rows += [[site, model, str(metrics.n), *_with_limits(metrics, tabled)] for model, metrics in known.items()]
            if not known:
                rows.append([site, "-", "0", *["no test cases"], *[""] * (len(tabled) - 1)])
        head = ["site", "model", "n", *tabled.values()]
        none = (
            ""
            if len(self.plan.classes) == 2 or task is not CLASSIFICATION
            else "; AUROC of more than two classes has none"
        )
        return Table(caption=f"Test cases, with 95 % intervals{none}", head=head, rows=rows, text=True)

    def plot(self, what: str = "personal") -> Figure:
        """A curve over the rounds with a line for each site, which a notebook shows; ``.svg`` is the drawing as text.

        Args:
            what: the task's key metric on validation cases (balanced accuracy for classification) of the "personal" or
                the "shared" models, or the training "loss".

        Raises:
            ConfigError: ``what`` is another word, or the run has no such numbers.
        """
        record = self.found.record
        if what != "loss" and what not in MODELS:
            raise ConfigError(f"there is no curve {what!r}; choose {', '.join(MODELS)} or loss")
        figure = losses(record) if what == "loss" else learning_curve(record, what)
        if figure is None:
            raise ConfigError(f"there is no curve of {what!r}: no site has measured it; give sites validation cases")
        return figure

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Write the page about the run, as ``monai-fedlora report`` does: one HTML file that opens offline.

        Raises:
            ConfigError: ``path`` is a folder.
        """
        target = Path(path)
        if target.is_dir():
            raise ConfigError(f"{target} is a folder; give the file of the page")
        write_text(target, page(self.found))
        return target

    def personal(self, site: str) -> nn.Module:
        """A site's own model: a plain network on the CPU in evaluation mode, with what was trained in its weights.

        A network of one's own comes back as the class it is, and returns what that class does.

        Raises:
            ExportError: the run has no model of such a site.
        """
        return self._model(site)

    def shared_model(self) -> nn.Module:
        """The model without any site's private part, for a hospital that was no member.

        Raises:
            ExportError: the method has none.
        """
        return self._model(SHARED_SITE)

    def export(self, site: str, folder: str | os.PathLike[str], **options: Any) -> Exported:
        """Write a model as a MONAI bundle that runs without this package, with its card and its checks.

        The bundle of a catalogued network takes image files; that of a network of one's own takes arrays as they were
        prepared for training, and holds the network as a program of ``torch.export``, so that nobody needs its class.

        Args:
            site: whose model; "shared" for the shared part alone.
            folder: to create.
            options: of `monai_fedlora.exporting.bundle_export.export_bundle`, such as ``packed=True``.

        Raises:
            ExportError: the run has no such model, ``torch.export`` cannot follow the network, or a check of what was
                written failed; nothing is left behind.
        """
        self._check_site(site)
        own = self._own_network() if isinstance(self._source, InMemory) else None
        backbone = self._source.backbone if isinstance(self._source, Installed) else None
        with self._place() as place:
            written = export_bundle(run=place, site=site, output=Path(folder), backbone=backbone, own=own, **options)
        return Exported.of(written, run=self.folder)

    def _own_network(self) -> OwnNetwork:
        source = self._source
        assert isinstance(source, InMemory)
        opened = source.opened()
        module = opened.module if isinstance(opened, OpenedNetwork) else opened
        image = next(iter(source.sites.values())).items["training"][0]["image"]
        name = f"{type(module).__module__}.{type(module).__qualname__}"
        return OwnNetwork(name=name, shape=tuple(image.shape), keys=set(module.state_dict()), restored=self._restored)

    def _restored(self, model: FinishedModel) -> Any:
        method = self.plan.build_method() if model.site is None else self.plan.site_method(model.site)
        return restored(model, self._source.network(self.plan, method))

    def _check_site(self, site: str) -> None:
        known = (*self.plan.sites, SHARED_SITE)
        if site not in known:
            raise ExportError(f"the run has no model of {site!r}{nearest(site, known)}")

    def _model(self, site: str) -> nn.Module:
        self._check_site(site)
        with self._place() as place:
            model = read_finished(place, site)
        network = self._restored(model)
        with exported_view(model, network):
            merge_lora(network)
        plain = network.module if isinstance(network, OpenedNetwork) and network.side is None else network
        return plain.requires_grad_(False).eval()

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """The run's folder, or one for the time being."""
        if self.folder is not None:
            yield self.folder
            return
        with private_folder("monai-fedlora-run-") as place:
            for name, content in self._files.items():
                make_folder((place / name).parent)
                write_bytes(place / name, content)
            yield place


def finished_run(
    folder: Path, *, source: Source, listed: Mapping[str, Datalist], manifest: Manifest, kept: bool
) -> Run:
    """Read what a run has left in its folder.

    Args:
        folder: of the run.
        source: that it had.
        listed: every site's cases.
        manifest: what travelled.
        kept: whether the folder stays; otherwise what the result needs is taken into memory.
    """
    paths = [] if kept else [path for name in _KEPT for path in folder.glob(name)]
    return Run(
        found=read_run(folder),
        results=read_json(folder / RESULTS_NAME),
        source=source,
        listed=listed,
        manifest=manifest,
        folder=folder if kept else None,
        files={str(path.relative_to(folder)): path.read_bytes() for path in paths},
    )


def _place(site: str, number: int, split: str, model: str) -> dict[str, Any]:
    return {"site": site, "round": number, "split": split, "model": model}


def _measured(site: str, number: int, splits: Mapping[str, Mapping[str, Metrics]]) -> list[dict[str, Any]]:
    return [
        {**_place(site, number, split, model), "cases": metrics.n, **metrics.values}
        for split, models in splits.items()
        for model, metrics in models.items()
        if metrics.values
    ]


def _with_limits(metrics: Metrics, tabled: Mapping[str, str]) -> list[str]:
    """The tabled metrics, each with its interval where its counts are known."""
    found = with_intervals({**metrics.values, "confusion_matrix": metrics.confusion})
    cells = []
    for name in tabled:
        entry = found.get(name) or {"value": None, "interval_95": None}
        limits = entry["interval_95"]
        value = "-" if entry["value"] is None else f"{entry['value']:.3f}"
        cells.append(value + (f" ({limits[0]:.3f} to {limits[1]:.3f})" if limits else ""))
    return cells
