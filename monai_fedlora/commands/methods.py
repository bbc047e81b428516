"""``monai-fedlora methods``: the registered methods, what they share and how many bytes that is."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("methods", help="list the methods with what they share and the bytes that travel")
    parser.add_argument("--size", default="small", help="a backbone's name (default: small)")
    parser.add_argument("--classes", type=int, default=2, metavar="N", help="number of classes (default: 2)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from monai_fedlora.commands.console import drawn, open_console
    from monai_fedlora.federated.federation_settings import FINE_TUNE
    from monai_fedlora.federated.server_optimizer import OPTIMIZERS
    from monai_fedlora.methods.overview import method_facts

    facts = list(method_facts(size=args.size, classes=args.classes))
    head = ("method", "what it does", "trained", "shared", "bytes up", "bytes down", "source")
    rows = [
        (
            each.name,
            each.summary,
            *map(_count, (each.trained, each.shared, each.bytes_up, each.bytes_down)),
            each.source,
        )
        for each in facts
        if not each.problem
    ]
    console = open_console()
    console.print(drawn(head, rows, text=len(head)))
    console.print("Bytes per site and round, in float16. A method's settings can change them; these are its defaults.")
    console.print(
        f"With {FINE_TUNE}=2 sites train on after the last round; a server that averages what goes up can have an "
        f"optimiser: server_optimizer={', '.join(OPTIMIZERS)}."
    )
    if unfit := [each.name for each in facts if not each.fits]:
        console.print(f"{', '.join(unfit)}: compare images with texts and need a CLIP, for example clip_base_16.")
    for each in facts:
        if each.problem:
            console.print(f"note: {each.problem}", style="yellow")
    return 0


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
