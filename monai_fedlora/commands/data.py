"""``monai-fedlora data``: turn a dataset on this disk into one datalist per site."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_fedlora.commands import data_phantom
from monai_fedlora.data.splits import FRACTIONS
from monai_fedlora.errors import ConfigError

if TYPE_CHECKING:
    from monai_fedlora.catalogues import Plugin
    from monai_fedlora.data.cases import Datalist
    from monai_fedlora.data.prepare import Settings
    from monai_fedlora.data.published_set import Reader
    from monai_fedlora.data.records import Record


_CSV = "csv"
_CSV_BY = ("column", "spacing")
_CSV_TEXT = "any csv with subject, label, site and image columns"
_CSV_COLUMNS = {
    "subject": "the patient's code; for photographs a code of their own, without such a column the path",
    "label": "the diagnosis",
    "site": "the site",
    "image": "photograph: one JPEG, PNG or TIFF file",
    "unit": "patient or lesion of a photograph; all its photographs go to one split",
    "ed_image": "end-diastolic 3D file",
    "es_image": "end-systolic 3D file",
    "cine": "4D file, in place of the two 3D files",
    "ed": "end-diastolic frame number in the 4D file",
    "es": "end-systolic frame number in the 4D file",
}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command, with one sub-command of its own per dataset."""
    parser = subparsers.add_parser("data", help="prepare the data of one or several sites")
    parser.fill = partial(_add_datasets, parser)
    return parser


def _add_datasets(parser: argparse.ArgumentParser) -> None:
    """Add a sub-command for every reader; that of another package is imported if somebody uses it."""
    from monai_fedlora.data.readers import READERS

    datasets = parser.add_subparsers(title="datasets", dest="dataset", metavar="DATASET", required=True)
    plugins = {plugin.name: plugin for plugin in READERS.plugins()}
    for name in [name for name in READERS.names() if name not in plugins]:
        _add_dataset(datasets.add_parser(name, help=READERS[name].text), READERS[name])
    _add_csv(datasets.add_parser(_CSV, help=_CSV_TEXT))
    data_phantom.add_parser(datasets).set_defaults(run_dataset=data_phantom.run)
    for name, plugin in plugins.items():
        added: Any = datasets.choices.get(name) or datasets.add_parser(name, help=f"added by {plugin.distribution}")
        added.fill = partial(_add_plugin, added, plugin)


def _add_plugin(parser: argparse.ArgumentParser, plugin: Plugin) -> None:
    from monai_fedlora.data.readers import READERS

    if plugin.name in (_CSV, "phantom"):
        raise ConfigError(f"{plugin.name!r} is no data set's name, and {plugin} claims it; uninstall that package")
    _add_dataset(parser, READERS[plugin.name])


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset that was chosen."""
    code: int = args.run_dataset(args)
    return code


def _add_dataset(parser: argparse.ArgumentParser, reader: Reader) -> None:
    task = "multiclass" if reader.photographs else "binary"
    _add_common(parser, text=reader.text, task=task, by=reader.by)
    parser.add_argument(
        "--published-split",
        action=argparse.BooleanOptionalAction if reader.photographs else "store_true",
        default=reader.photographs,
        help="keep the dataset's own test and validation patients there",
    )
    if reader.photographs:
        parser.add_argument("--normal", metavar="CLASS", help="class that the binary task calls NOR")


def _add_common(parser: argparse.ArgumentParser, *, text: str, task: str, by: Sequence[str]) -> None:
    parser.description = text
    parser.set_defaults(run_dataset=_prepare, by=None, sites=None)
    parser.add_argument("--source", required=True, type=Path, metavar="S", help="where the dataset lies")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="O", help="prepared folder; sites of other datasets in it stay"
    )
    parser.add_argument("--task", choices=("binary", "multiclass"), help=f"default: {task}")
    parser.add_argument(
        "--classes",
        type=_names,
        metavar="A,B,...",
        help="class list; needed when a class is only at hospitals that prepare their data elsewhere",
    )
    sites = parser.add_mutually_exclusive_group()
    if len(by) > 1:
        sites.add_argument(
            "--by",
            choices=by,
            help=f"what makes a site; spacing: protocols, not vendors (default: {by[0]})",
        )
        parser.add_argument("--sites", type=int, metavar="K", help="number of sites, with --by spacing")
    sites.add_argument("--site", metavar="NAME", help="everything is one site of this name")
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="take N images (cine: patients) of each site, all photographs of a patient or lesion or none, the classes "
        "in their proportions, drawn by the seed",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the split (default: 0)")
    parser.add_argument(
        "--fractions",
        type=_fractions,
        default=FRACTIONS,
        metavar="A,B,C",
        help=f"shares of training, validation and test (default: {','.join(map(str, FRACTIONS))})",
    )
    parser.add_argument(
        "--check",
        choices=("header", "full"),
        default="header",
        help="full: load every image as training will (default: header)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace sites of the same name")
    parser.add_argument(
        "--synthetic",
        action="store_true",
        help="the images were generated, which every model trained on them will say (phantoms of this package say it "
        "themselves)",
    )


def _add_csv(parser: argparse.ArgumentParser) -> None:
    _add_common(parser, text=_CSV_TEXT, task="binary, but multiclass for photographs", by=_CSV_BY)
    for name, text in _CSV_COLUMNS.items():
        option = "--" + name.replace("_", "-") + "-column"
        parser.add_argument(option, default=name, metavar="C", help=f"column: {text} (default: {name})")
    parser.add_argument(
        "--first-frame", type=int, choices=(0, 1), default=0, help="number of a 4D file's first frame (default: 0)"
    )
    parser.add_argument(
        "--dataset-name",
        metavar="NAME",
        help="name written into the datalists; the same subject code in two datasets is two patients "
        "(default: the name of the csv)",
    )
    parser.add_argument(
        "--normal", default="NOR", metavar="LABEL", help="label that the binary task calls NOR (default: NOR)"
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers like 0.6,0.15,0.25") from None


def _prepare(args: argparse.Namespace) -> int:
    from time import perf_counter

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.data.datalist import read_prepared, write_datalists
    from monai_fedlora.data.prepare import prepare
    from monai_fedlora.data.readers import READERS

    start = perf_counter()
    console = open_console(highlight=False)
    reader = None if args.dataset == _CSV else READERS[args.dataset]
    records = reader.read(args.source) if reader else _read_csv(args)
    prepared = prepare(records, _settings(args, reader, records), existing=read_prepared(args.output))
    if args.check == "full":
        _load_all(prepared.datalists)
    write_datalists(prepared.datalists, args.output, overwrite=args.overwrite)
    console.print(_table(prepared.datalists))
    for note in [*prepared.notes, *_absent(args.dataset, reader, records)]:
        console.print(f"note: {note}", style="yellow", markup=False, soft_wrap=True)
    for said in _origins(prepared.datalists):
        console.print(said, markup=False, soft_wrap=True)
    everything = read_prepared(args.output)
    console.print(
        f"{args.output} now has {', '.join(datalist.site for datalist in everything)} "
        f"({perf_counter() - start:.1f} s).\n"
        f"Next: monai-fedlora simulate JOB --workspace W --data {args.output}\n"
        f"or, at a hospital: export MONAI_FEDLORA_DATA={args.output.resolve()}",
        markup=False,
        soft_wrap=True,
    )
    return 0


def _read_csv(args: argparse.Namespace) -> list[Record]:
    from monai_fedlora.data.table import Columns, read_table

    names = {name: getattr(args, f"{name}_column") for name in _CSV_COLUMNS}
    if args.site is not None or args.by == "spacing":
        names["site"] = None
    return read_table(args.source, Columns(**names, first_frame=args.first_frame))


def _settings(args: argparse.Namespace, reader: Reader | None, records: Sequence[Record]) -> Settings:
    from monai_fedlora.data.phantom_mark import published
    from monai_fedlora.data.prepare import Settings
    from monai_fedlora.data.records import Photograph

    photographs = all(isinstance(record.images, Photograph) for record in records)
    by = args.by or (reader.by if reader else _CSV_BY)[0]
    dataset = args.dataset if reader else args.dataset_name or args.source.stem
    return Settings(
        dataset=dataset,
        groups=reader.groups if reader else (),
        normal=str(getattr(args, "normal", None) or (reader.normal if reader else "NOR")),
        task=args.task or ("multiclass" if photographs else "binary"),
        classes=args.classes,
        leave_out=reader is not None,
        by="centre" if by == "column" else by,
        sites=args.sites,
        site=args.site,
        seed=args.seed,
        fractions=args.fractions,
        published_split=reader is not None and args.published_split,
        draw_test=photographs,
        limit=args.limit,
        origin=published(dataset, reader.source if reader else None, synthetic=args.synthetic),
    )


def _absent(dataset: str, reader: Reader | None, records: Sequence[Record]) -> list[str]:
    """Name the centres that the published dataset has and this copy of it lacks."""
    published = reader.centres if reader else ()
    here = {record.centre for record in records}
    absent = [centre for centre in published if centre not in here]
    return [f"{dataset} has the centres {', '.join(published)}; this copy lacks {', '.join(absent)}"] if absent else []


def _origins(datalists: Sequence[Datalist]) -> list[str]:
    """Name what models trained on the sites will say they were trained on, a line for each kind."""
    found: dict[Any, list[str]] = {}
    for datalist in datalists:
        found.setdefault(datalist.origin, []).append(datalist.site)
    hint = "; if they were generated, prepare them again with --synthetic, as models say what they were trained on"
    return [
        f"{', '.join(sites)}: {origin.kind} images ({origin.name}){hint * (origin.kind == 'real')}"
        for origin, sites in found.items()
    ]


def _load_all(datalists: Sequence[Datalist]) -> None:
    """Load every patient or photograph as training will, so that whatever it would refuse is refused now."""
    from rich.progress import track

    from monai_fedlora.data.cases import SPLITS

    items = [item for datalist in datalists for split in SPLITS for item in datalist.items(split)]
    for item in track(items, description="reading images", transient=True):
        if "image" in item:
            from monai_fedlora.formats.photograph_file import read_photograph

            read_photograph(str(item["image"]))
        else:
            from monai_fedlora.transforms.frames import join_frames, read_frames

            join_frames(*read_frames(item))


def _table(datalists: Sequence[Datalist]) -> Any:
    from rich.table import Table

    from monai_fedlora.data.cases import SPLITS

    table = Table()
    for column in ("site", "class"):
        table.add_column(column, overflow="fold")
    for column in (*SPLITS, "all"):
        table.add_column(column, justify="right")
    for datalist in datalists:
        counts = [datalist.counts(split) for split in SPLITS]
        for label, name in enumerate(datalist.classes):
            cells = [count[label] for count in counts]
            table.add_row(datalist.site if label == 0 else "", name, *map(str, [*cells, sum(cells)]))
        totals = [sum(count) for count in counts]
        table.add_row("", "all", *map(str, [*totals, sum(totals)]), style="bold", end_section=True)
    return table
