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

    from monai_fedlora.commands.console import drawn, open_console
    from monai_fedlora.engines.store import kept_by_site, store_limit, store_root

    root, console, found = store_root(), open_console(), kept_by_site(args.site)
    rows = [(folder.name, len(entries), _megabytes(entries)) for folder, entries in found.items()]
    together = [entry for entries in found.values() for entry in entries]
    if args.action == "wipe":
        for folder in found:
            shutil.rmtree(folder)
        console.print(f"deleted {len(together)} entries, {_megabytes(together)}, below {root}")
        return 0
    console.print(f"{root}, of which {store_limit() / 1e9:g} GB may be used")
    console.print(drawn(("site", "entries", "size"), [*rows, ("together", len(together), _megabytes(together))]))
    return 0


def _megabytes(found: list) -> str:
    return f"{sum(entry.size for entry in found) / 1e6:,.1f} MB"
