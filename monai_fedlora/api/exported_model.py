"""What an export has written, and what its makers should know of it."""

from __future__ import annotations

import dataclasses
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path

from monai_fedlora.clinic.trust import read_trust
from monai_fedlora.errors import ExportError
from monai_fedlora.exporting import bundle_export
from monai_fedlora.exporting.finished import SHARED_SITE
from monai_fedlora.exporting.leakage_card import leakage_line
from monai_fedlora.exporting.locate import find_shared
from monai_fedlora.exporting.model_card import VIEW_NAMES, format_metric
from monai_fedlora.exporting.model_metadata import headline
from monai_fedlora.exporting.personal_or_shared import KEY
from monai_fedlora.rendering.tables import Table
from monai_fedlora.site_report import SHARED


@dataclass(frozen=True, kw_only=True)
class Exported(bundle_export.Exported):
    """A written export.

    Attributes:
        folder: where it lies; a zip file if it was packed.
        metadata: its description.
        usage: the command or code that runs it.
        digest: of a bundle, to pass on by another way; None for PEFT folders.
        run: the folder of the run that it was made from; None for one in memory alone.
    """

    run: Path | None = None

    @classmethod
    def of(cls, written: bundle_export.Exported, *, run: Path | None) -> Exported:
        """The same, with the run behind it."""
        return cls(**{field.name: getattr(written, field.name) for field in dataclasses.fields(written)}, run=run)

    @property
    def kind(self) -> str:
        """ "bundle" or "peft"."""
        return "bundle" if self.digest else "peft"

    @property
    def card(self) -> Path:
        """The model card; of a packed bundle, its place behind the zip file's name."""
        packed = self.folder / self.folder.stem if self.folder.suffix == ".zip" else self.folder
        return packed / "docs" / "README.md" if self.kind == "bundle" else packed / "README.md"

    @property
    def files(self) -> dict[str, int]:
        """Bytes of every file, by its path inside the folder or zip."""
        if self.folder.is_file():
            with zipfile.ZipFile(self.folder) as archive:
                return {member.filename: member.file_size for member in archive.infolist()}
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): path.stat().st_size for path in paths}

    @property
    def notes(self) -> list[str]:
        """In lines: what the model was trained on, whether the shared one does better, and what it tells of members."""
        origin = read_trust(self.metadata).origin
        lines = [f"{origin.summary}{''.join(f'; {doubt}' for doubt in origin.doubts())}", *self._shared_or_not()]
        if self.kind == "bundle":
            lines.append(leakage_line(self.metadata["measured_leakage"]))
            if not (unusual := self.metadata["out_of_distribution"])["available"]:
                lines.append(f"it does not tell unusual images: {unusual['reason']}")
        return lines

    def table(self) -> Table:
        """Test metrics with 95 % intervals, a column for each model; no rows where none were recorded."""
        views = headline(self.metadata)
        tested = self.metadata["eval_metrics"]["test"]
        cases = next((metrics.get("n") for metrics in tested.values()), 0)
        names = dict.fromkeys(name for metrics in views.values() for name in metrics)
        return Table(
            caption=f"test split, {cases} cases (95 % intervals)",
            head=["metric", *(VIEW_NAMES[view] for view in views)],
            rows=[
                [name.replace("_", " "), *(format_metric(metrics.get(name)) for metrics in views.values())]
                for name in names
            ],
        )

    def _shared_or_not(self) -> list[str]:
        """What the test cases say of the personal and the shared model, and how the better one is exported."""
        if (entry := self.metadata.get(KEY)) is None:
            return []
        if entry["better"] != SHARED:
            return [entry["said"]]
        if self.run is None:
            return [entry["said"], "to export the shared one instead, give 'shared' for the site"]
        try:
            find_shared(self.run)
        except ExportError:
            return [entry["said"], "the shared one is at the federation's server; export it there with --site shared"]
        where = self.folder.with_name(f"{self.folder.stem}-shared")
        command = ["monai-fedlora", "export", "--run", str(self.run), "--site", SHARED_SITE, "--output", str(where)]
        return [entry["said"], f"to export the shared one instead: {shlex.join(command)}"]
