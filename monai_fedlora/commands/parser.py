"""A command line that suggests the word that was meant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from monai_fedlora.errors import FedLoraError, nearest


class Parser(argparse.ArgumentParser):
    """``argparse.ArgumentParser`` whose errors name the nearest command, choice or option.

    Each parser refuses the options that it does not know, so that a sub-command shows its own usage.

    Attributes:
        fill: adds to a sub-command what only somebody who uses it has to wait for; None where there is nothing.
    """

    fill: Callable[[], None] | None = None

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse, or end with code 2 and a line that says what was not understood."""
        fill, self.fill = self.fill, None
        if fill is not None:
            try:
                fill()
            except FedLoraError as error:
                self.error(str(error))
        self._given = list(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        """End with code 2; of options that were given and do not exist, the nearest that do are named."""
        options = list(self._option_string_actions)
        for word in (word.partition("=")[0] for word in getattr(self, "_given", ())):
            if word == "--" or (self._subparsers and not word.startswith("-")):
                break  # what comes after is no option, or a sub-command's
            if word.startswith("--") and not any(option.startswith(word) for option in options):
                meant = nearest(word, options)
                if word not in message:
                    message += f"; {word} is unknown{meant if 'did you mean' in meant else ''}"
                elif "did you mean" in meant:
                    message += meant
        super().error(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"{value!r} is unknown{nearest(str(value), list(action.choices))}")
