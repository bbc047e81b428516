"""``monai-fedlora serve``: classify studies with an exported bundle in a browser."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from monai_fedlora.commands.options import add_signature_option
from monai_fedlora.errors import ConfigError


def add_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the sub-command."""
    parser = subparsers.add_parser(
        "serve",
        help="classify studies with an exported bundle in a browser",
        description="Open a page on this machine that studies are dropped on. Everything stays on this machine and is "
        "removed when the server ends, when it is asked to, or when nobody asked for it for a while. Research only: "
        "not a medical device, not for clinical use.",
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder or zip of an exported bundle")
    parser.add_argument(
        "--outlines",
        type=Path,
        metavar="BUNDLE",
        help="folder or zip of a second bundle, which outlines the heart of cines: outlines on the moving heart and "
        "volumes beside the class",
    )
    parser.add_argument("--port", type=int, default=8000, help="TCP port (default: 8000)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen at (default: 127.0.0.1, which only this machine reaches); any other needs a token, and "
        "what is sent is not encrypted: a tunnel (ssh -L) to the default is safer",
    )
    parser.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="file with what a browser has to show, for you alone (chmod 600); made if it is not there. Without it "
        "MONAI_FEDLORA_TOKEN is taken, and where others can connect one is made and printed",
    )
    parser.add_argument("--token", help=argparse.SUPPRESS)
    parser.add_argument(
        "--max-upload", type=float, default=2.0, metavar="GIB", help="largest study in GiB, also unpacked (default: 2)"
    )
    parser.add_argument(
        "--max-disk",
        type=float,
        metavar="GIB",
        help="all studies together in GiB: what was sent, unpacked, and offered (default: 8 times --max-upload)",
    )
    parser.add_argument(
        "--idle-minutes",
        type=float,
        default=30.0,
        metavar="MINUTES",
        help="time after which what a browser left is removed (default: 30)",
    )
    parser.add_argument(
        "--feedback",
        type=Path,
        metavar="FOLDER",
        help="let readers say whether they agree, and keep it in FOLDER/feedback.csv, which stays (default: keep none)",
    )
    add_signature_option(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    from monai_fedlora.serve.served_bundle import serve_bundle

    if args.token is not None:
        raise ConfigError(
            "--token would show the token to everybody on this machine (ps, /proc), and to the shell's history: take a "
            "new one, and give it with --token-file FILE or in MONAI_FEDLORA_TOKEN"
        )
    for option, size in (("--max-upload", args.max_upload), ("--max-disk", args.max_disk)):
        if size is not None and not math.isfinite(size):
            raise ConfigError(f"{option} {size} is no size in GiB")
    serve_bundle(
        args.bundle,
        outlines=args.outlines,
        host=args.host,
        port=args.port,
        token_file=args.token_file,
        upload_gib=args.max_upload,
        disk_gib=args.max_disk,
        idle_minutes=args.idle_minutes,
        feedback=args.feedback,
        keys=args.require_signature,
        say=lambda text: print(text, flush=True),
    )
    return 0
