"""``monai-fedlora data``: turn a dataset on this disk into one datalist per site."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from monai_fedlora.commands import data_phantom
from monai_fedlora.commands.options import add_value_option
from monai_fedlora.errors import ConfigError

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
    "mask": "mask of a photograph, or 4D file with those of a 4D file",
    "ed_mask": "mask of the end-diastolic 3D file",
    "es_mask": "mask of the end-systolic 3D file",
}


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command, with one sub-command of its own per dataset."""
    parser = subparsers.add_parser("data", help="prepare the data of one or several sites")
    parser.fill = partial(_add_datasets, parser)
    return parser


def _add_datasets(parser: argparse.ArgumentParser) -> None:
    """Add a sub-command for every reader; that of another package is imported if somebody uses it."""
    from monai_fedlora.api.data_preparation import CSV, READERS

    datasets = parser.add_subparsers(title="datasets", dest="dataset", metavar="DATASET", required=True)
    plugins = {plugin.name: plugin for plugin in READERS.plugins()}
    for name in [name for name in READERS.names() if name not in plugins]:
        _add_dataset(datasets.add_parser(name, help=READERS[name].text), READERS[name])
    _add_csv(datasets.add_parser(CSV, help=_CSV_TEXT))
    data_phantom.add_parser(datasets).set_defaults(run_dataset=data_phantom.run)
    for name, plugin in plugins.items():
        added: Any = datasets.choices.get(name) or datasets.add_parser(name, help=f"added by {plugin.distribution}")
        added.fill = partial(_add_plugin, added, plugin)


def _add_plugin(parser: argparse.ArgumentParser, plugin: Any) -> None:
    from monai_fedlora.api.data_preparation import CSV, READERS

    if plugin.name in (CSV, "phantom"):
        raise ConfigError(f"{plugin.name!r} is no data set's name, and {plugin} claims it; uninstall that package")
    _add_dataset(parser, READERS[plugin.name])


def run(args: argparse.Namespace) -> int:
    """Prepare the dataset that was chosen."""
    code: int = args.run_dataset(args)
    return code


def _add_dataset(parser: argparse.ArgumentParser, reader: Any) -> None:
    task = reader.task or ("multiclass" if reader.photographs else "binary")
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
    from monai_fedlora.api.data_preparation import FRACTIONS

    parser.description = text
    parser.set_defaults(run_dataset=_prepare, by=None, sites=None)
    parser.add_argument("--source", required=True, type=Path, metavar="S", help="where the dataset lies")
    parser.add_argument(
        "--output", required=True, type=Path, metavar="O", help="prepared folder; sites of other datasets in it stay"
    )
    parser.add_argument(
        "--task", choices=("binary", "multiclass", "segmentation", "regression"), help=f"default: {task}"
    )
    parser.add_argument(
        "--classes",
        type=_names,
        metavar="A,B,...",
        help="class list; needed when a class is only at hospitals that prepare their data elsewhere",
    )
    add_value_option(
        parser, "number that a regression learns, of a csv's column of this name or measured in the masks (lv_ef, ...)"
    )
    parser.add_argument(
        "--subgroup",
        type=_subgroup,
        action="append",
        metavar="COLUMN[=EDGE,...]",
        help="column of the data set's table that compare divides patients by, such as sex, or age=40,60 for below 40, "
        "40 to below 60, 60 and above; may be given several times",
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
    from monai_fedlora.api.data_preparation import CSV_BY

    _add_common(parser, text=_CSV_TEXT, task="binary, but multiclass for photographs", by=CSV_BY)
    for name, text in _CSV_COLUMNS.items():
        option = "--" + name.replace("_", "-") + "-column"
        parser.add_argument(option, default=name, metavar="C", help=f"column: {text} (default: {name})")
    parser.add_argument(
        "--mask-values",
        type=_values,
        metavar="LV=3,MYO=2,...",
        help="structures of the masks in the columns ed_mask and es_mask, or mask beside cine or image, and their "
        "values there, such as lesion=255",
    )
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


def _values(text: str) -> dict[str, int]:
    try:
        return {name.strip(): int(value) for name, value in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not names and values like LV=3,MYO=2,RV=1") from None


def _subgroup(text: str) -> tuple[str, tuple[float, ...] | None]:
    column, given, edges = text.partition("=")
    try:
        return column.strip(), tuple(map(float, edges.split(","))) if given else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a column, or one with numbers like age=40,60") from None


def _fractions(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers like 0.6,0.15,0.25") from None


def _prepare(args: argparse.Namespace) -> int:
    from time import perf_counter

    from monai_fedlora.api.data_preparation import CSV, CSV_COLUMNS, prepare
    from monai_fedlora.commands.console import drawn_table, open_console
    from monai_fedlora.commands.progress import counting_bars

    start, console = perf_counter(), open_console()
    of_csv: dict[str, Any] = {}
    if args.dataset == CSV:
        of_csv["columns"] = {name: getattr(args, f"{name}_column") for name in CSV_COLUMNS}
        of_csv |= {"first_frame": args.first_frame, "dataset_name": args.dataset_name, "mask_values": args.mask_values}
    with counting_bars("reading images") as (bar,):
        prepared = prepare(
            args.dataset,
            source=args.source,
            output=args.output,
            task=args.task,
            classes=args.classes,
            values=dict(args.value) if args.value else None,
            subgroups=dict(args.subgroup or ()),
            by=args.by,
            sites=args.sites,
            site=args.site,
            limit=args.limit,
            seed=args.seed,
            fractions=args.fractions,
            published_split=getattr(args, "published_split", None),
            normal=getattr(args, "normal", None),
            synthetic=args.synthetic,
            overwrite=args.overwrite,
            load_all=args.check == "full",
            on_image=bar,
            **of_csv,
        )
    console.print(drawn_table(prepared.table()))
    for note in prepared.notes:
        console.print(f"note: {note}", style="yellow")
    for said in prepared.origins:
        console.print(said)
    console.print(
        f"{args.output} now has {', '.join(prepared.everything)} ({perf_counter() - start:.1f} s).\n"
        f"Next: monai-fedlora simulate JOB --workspace W --data {args.output}\n"
        f"or, at a hospital: export MONAI_FEDLORA_DATA={args.output.resolve()}"
    )
    return 0
