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
    from rich.table import Table

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.errors import FedLoraError
    from monai_fedlora.methods import METHODS, get_method
    from monai_fedlora.methods.build import UNTRAINED, build_network
    from monai_fedlora.networks.catalogue import architecture

    table = Table()
    for head in ("method", "what it does", "trained", "shared", "bytes up", "bytes down", "source"):
        table.add_column(head, no_wrap=head == "method", overflow="fold")
    reads_text, not_here = architecture(args.size).text is not None, []
    problems = []
    for name in METHODS.names():
        try:
            method, plugin = get_method(name), METHODS.plugin(name)
        except FedLoraError as error:  # of one plug-in, which is told below
            problems.append(str(error))
            continue
        source = f"{method.source}; added by {plugin.distribution} {plugin.version}" if plugin else method.source
        if method.reads_text and not reads_text:
            table.add_row(name, method.summary, *["-"] * 4, source)
            not_here.append(name)
            continue
        with torch.device("meta"):
            network = build_network(size=args.size, out_chans=args.classes, backbone=UNTRAINED, method=name)
        trained = {key: p.numel() for key, p in network.named_parameters() if p.requires_grad}
        manifest = method.scope(network, wire_dtype="float16").manifest
        shared = sum(trained[key] for key in manifest.up.entries)
        numbers = shared, manifest.up.nbytes, manifest.down.nbytes
        travels = [f"{number:,}" for number in numbers] if method.most_sites != 1 else ["-"] * 3
        table.add_row(name, method.summary, f"{sum(trained.values()):,}", *travels, source)
    console = open_console()
    console.print(table)
    console.print("Bytes per site and round, in float16. A method's settings can change them; these are its defaults.")
    if not_here:
        console.print(f"{', '.join(not_here)}: compare images with texts and need a CLIP, for example clip_base_16.")
    for problem in problems:
        console.print(f"note: {problem}", style="yellow", markup=False, soft_wrap=True)
    return 0
