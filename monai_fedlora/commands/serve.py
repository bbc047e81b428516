"""``monai-fedlora serve``: classify studies with an exported bundle in a browser."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from monai_fedlora.commands.options import add_signature_option
from monai_fedlora.environment import SERVE_TOKEN
from monai_fedlora.errors import ConfigError

_GIB = 1 << 30


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
    try:
        from monai_fedlora.serve.pages import VIEWER, find_pages
        from monai_fedlora.serve.run import listen, run_server
        from monai_fedlora.serve.settings import ServeSettings, is_loopback
        from monai_fedlora.serve.token import find_token
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "python_multipart", "starlette", "uvicorn"):
            raise
        raise ConfigError("the page needs further packages: pip install 'monai-fedlora[serve]'") from error
    from monai_fedlora.clinic.bundle import open_bundle
    from monai_fedlora.clinic.helper import Helper, isolated
    from monai_fedlora.clinic.reader_feedback import FEEDBACK_NAME, check_table
    from monai_fedlora.exporting.keys import read_public_keys

    if args.token is not None:
        raise ConfigError(
            "--token would show the token to everybody on this machine (ps, /proc), and to the shell's history: take a "
            "new one, and give it with --token-file FILE or in MONAI_FEDLORA_TOKEN"
        )
    disk = 8 * args.max_upload if args.max_disk is None else args.max_disk
    for option, size in (("--max-upload", args.max_upload), ("--max-disk", disk)):
        if not math.isfinite(size):
            raise ConfigError(f"{option} {size} is no size in GiB")
    token, is_secret = find_token(args.token_file, is_needed=not is_loopback(args.host))
    settings = ServeSettings(
        host=args.host,
        port=args.port,
        token=token,
        max_upload_bytes=round(args.max_upload * _GIB),
        max_disk_bytes=round(disk * _GIB),
        idle_minutes=args.idle_minutes,
        feedback=args.feedback,
    )
    if args.feedback is not None:
        check_table(args.feedback)

    def ready() -> None:
        if VIEWER not in find_pages():
            print("the viewer of volumes is not there, figures are shown instead; make web brings it", flush=True)
        address = settings.address
        if token:
            address += f"/?token={token}" if is_secret else "/?token=TOKEN"
        print("Research only. Not for clinical use.", flush=True)
        if token and not is_secret:
            print(f"TOKEN is what {args.token_file or SERVE_TOKEN} holds", flush=True)
        if args.feedback is not None:
            print(f"whether readers agree stays in {args.feedback / FEEDBACK_NAME}", flush=True)
        print(f"open {address} ; Ctrl-C ends and removes everything", flush=True)

    keys = read_public_keys(args.require_signature)
    with listen(settings) as server, Helper(args.bundle, keys=args.require_signature) as helper:
        helper.start()  # it loads while this process does
        classifier = isolated(open_bundle(args.bundle, keys=keys), helper)
        run_server(classifier, settings=settings, server=server, on_ready=ready)
    print(f"ended; {'everything was' if args.feedback is None else 'all studies were'} removed", flush=True)
    return 0
