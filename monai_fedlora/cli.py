"""The command ``monai-fedlora``: one sub-command per module of `monai_fedlora.commands`."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from monai_fedlora import __version__
from monai_fedlora.commands.parser import Parser
from monai_fedlora.errors import FedLoraError
from monai_fedlora.files import private_umask
from monai_fedlora.out_of_memory import memory_told

COMMANDS = (
    "data",
    "pretrain",
    "backbone",
    "job",
    "simulate",
    "run",
    "resume",
    "report",
    "compare",
    "export",
    "audit",
    "predict",
    "serve",
    "feedback",
    "check",
    "methods",
    "approve",
    "policy",
    "privacy",
    "cache",
    "forget",
)
"""Names of the modules of `monai_fedlora.commands`, in the order the help shows them.

Each has ``add_parser(subparsers) -> ArgumentParser`` and ``run(args) -> int``, and imports heavy packages
inside ``run``."""

_MENDABLE = {
    errno.EEXIST: "something else is there, such as a file in place of a folder; give another path",
    errno.ENOTDIR: "a part of it is a file, not a folder; give another path",
    errno.EISDIR: "it is a folder, not a file; give another path",
    errno.EACCES: "permission denied; give another path, or ask for the right to it",
    errno.EROFS: "the disk is read-only; give another path",
}
"""Errors of the operating system that are caused by a path given by the user, with advice."""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; ``args.run`` is the chosen sub-command."""
    parser = Parser(
        prog="monai-fedlora",
        description="Personalised, parameter-efficient federated fine-tuning of vision foundation models.",
    )
    parser.add_argument("-V", "--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = import_module(f"monai_fedlora.commands.{name}")
        module.add_parser(subparsers).set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; only the user can read the files that it writes.

    Returns:
        The command's exit code; 2 for a wrong command line or an error that the user can correct (one line on
        stderr), 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack characters of file names
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
    try:
        with private_umask(), memory_told(f"running {args.command}"):
            return int(args.run(args))
    except FedLoraError as error:
        if args.debug:
            raise
        print(_red("error:"), error, file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        if args.debug or error.filename is None or error.errno not in _MENDABLE:
            raise
        print(_red("error:"), f"{error.filename} cannot be used: {_MENDABLE[error.errno]}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _red(text: str) -> str:
    if not sys.stderr.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\033[31m{text}\033[0m"


if __name__ == "__main__":
    sys.exit(main())
