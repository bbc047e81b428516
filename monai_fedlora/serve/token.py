"""Find or make the server's token; never on the command line, which all users of a machine can read."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from monai_fedlora.environment import SERVE_TOKEN
from monai_fedlora.errors import ConfigError
from monai_fedlora.files import for_the_owner

_LONGEST = 4096


def find_token(file: Path | None, *, is_needed: bool) -> tuple[str | None, bool]:
    """Find or make the token of a server.

    Args:
        file: holds the token; made with a new one if missing. None takes the environment variable :data:`SERVE_TOKEN`.
        is_needed: whether to make one if neither is given.

    Returns:
        The token (None if there is none), and whether it is new and has to be printed.

    Raises:
        ConfigError: the file cannot be read or made, or others can read it.
    """
    if file is not None:
        return _of_file(file), False
    given = os.environ.get(SERVE_TOKEN)
    if given is not None:
        return given.strip(), False
    return (new_token(), True) if is_needed else (None, False)


def new_token() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(32)


def _of_file(path: Path) -> str:
    try:
        with suppress(FileExistsError), open(path, "x", encoding="ascii", opener=for_the_owner) as new:
            new.write(new_token() + "\n")
        with path.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISREG(mode) and mode & 0o077:
                raise ConfigError(
                    f"{path} can be read by others of this machine; chmod 600 {path}, and change the token"
                )
            content = stream.read(_LONGEST)
    except OSError as error:
        raise ConfigError(f"the token's file {path} cannot be read or made: {error}") from error
    return content.decode("utf-8", "replace").strip()
