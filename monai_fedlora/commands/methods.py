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
    import torch
    from rich.console import Console
    from rich.table import Table

    from monai_fedlora.methods import get_method, method_names
    from monai_fedlora.networks.catalogue import build_backbone
    from monai_fedlora.scope import Role

    table = Table("method", "what it does", "trained", "shared", "bytes per transfer (float16)", "source")
    for name in method_names():
        method = get_method(name)
        with torch.device("meta"):
            network = build_backbone(args.size, out_chans=args.classes)
            method.attach(network)
        scope = method.scope(network, wire_dtype="float16")
        count = {
            role: sum(network.state_dict()[key].numel() for key in scope.keys(role))
            for role in (Role.SHARED, Role.PRIVATE)
        }
        table.add_row(
            name,
            method.summary,
            f"{sum(count.values()):,}",
            f"{count[Role.SHARED]:,}",
            f"{scope.manifest.nbytes:,}",
            method.source,
        )
    Console().print(table)
    return 0
