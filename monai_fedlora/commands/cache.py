"""``monai-fedlora cache``: what is kept on this disk to save time, and a way to be rid of it."""

from __future__ import annotations

import argparse


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser("cache", help="show or wipe preprocessed cases and frozen features kept on disk")
    parser.add_argument(
        "action", choices=("show", "wipe"), help="wipe deletes them; they are computed again when needed"
    )
    parser.add_argument("--site", help="of this site alone (default: of all)")
    return parser


def run(args: argparse.Namespace) -> int:
    """Print the size of every site's store, or delete the stores."""
    import shutil

    from rich.table import Table

    from monai_fedlora.commands.console import open_console
    from monai_fedlora.data.datalist import check_site_name
    from monai_fedlora.engines.store import entries, store_limit, store_root

    if args.site:
        check_site_name(args.site)
    root, console = store_root(), open_console()
    found = [entry for entry in entries(root) if args.site in (None, entry.path.parent.parent.name)]
    sites = sorted({entry.path.parent.parent for entry in found})
    if args.action == "wipe":
        for site in sites:
            shutil.rmtree(site)
        console.print(f"deleted {len(found)} entries, {_megabytes(found)}, below {root}", soft_wrap=True)
        return 0
    table = Table("site", "entries", "size", box=None)
    for site in sites:
        own = [entry for entry in found if entry.path.parent.parent == site]
        table.add_row(site.name, str(len(own)), _megabytes(own))
    table.add_row("together", str(len(found)), _megabytes(found))
    console.print(f"{root}, of which {store_limit() / 1e9:g} GB may be used", soft_wrap=True)
    console.print(table)
    return 0


def _megabytes(found: list) -> str:
    return f"{sum(entry.size for entry in found) / 1e6:,.1f} MB"
