"""A bundle on a page of this machine, from the start to the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from monai_fedlora.clinic import two_models
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.reader_feedback import FEEDBACK_NAME, check_table
from monai_fedlora.environment import SERVE_TOKEN
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.keys import read_public_keys
from monai_fedlora.serve.pages import VIEWER, find_pages
from monai_fedlora.serve.settings import ServeSettings, is_loopback
from monai_fedlora.serve.token import find_token

_GIB = 1 << 30
_EXTRA = ("fastapi", "python_multipart", "starlette", "uvicorn")


def serve_bundle(
    bundle: Path,
    *,
    outlines: Path | None = None,
    host: str,
    port: int,
    token_file: Path | None,
    upload_gib: float,
    disk_gib: float | None,
    idle_minutes: float,
    feedback: Path | None,
    keys: Sequence[Path],
    say: Callable[[str], None],
) -> None:
    """Serve a bundle until Ctrl-C, and remove everything that was sent.

    Args:
        bundle: its folder or zip.
        outlines: folder or zip of a second bundle, which outlines hearts.
        host, port: where to listen.
        token_file: what a browser has to show; see `monai_fedlora.serve.token.find_token`.
        upload_gib: largest study, also unpacked.
        disk_gib: all studies together; None for 8 times the largest.
        idle_minutes: after which what a browser left is removed.
        feedback: folder that keeps whether readers agree; None keeps nothing.
        keys: files of public keys, one of which the bundle must be signed with.
        say: told, in lines, how the page is opened and that it has ended.

    Raises:
        ConfigError: the extra ``serve`` is not installed, a setting is out of range, the port is taken, or the bundle
            cannot be opened.
    """
    try:
        from monai_fedlora.serve.listening import listen, run_server
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA:
            raise
        raise ConfigError("the page needs further packages: pip install 'monai-fedlora[serve]'") from error
    token, is_secret = find_token(token_file, is_needed=not is_loopback(host))
    settings = ServeSettings(
        host=host,
        port=port,
        token=token,
        max_upload_bytes=round(upload_gib * _GIB),
        max_disk_bytes=round((8 * upload_gib if disk_gib is None else disk_gib) * _GIB),
        idle_minutes=idle_minutes,
        feedback=feedback,
    )
    if feedback is not None:
        check_table(feedback)

    def ready() -> None:
        if VIEWER not in find_pages():
            say("the viewer of volumes is not there, figures are shown instead; make web brings it")
        say("Research only. Not for clinical use.")
        if token and not is_secret:
            say(f"TOKEN is what {token_file or SERVE_TOKEN} holds")
        if feedback is not None:
            say(f"whether readers agree stays in {feedback / FEEDBACK_NAME}")
        shown = f"/?token={token if is_secret else 'TOKEN'}" if token else ""
        say(f"open {settings.address}{shown} ; Ctrl-C ends and removes everything")

    signers = read_public_keys(keys)
    with (
        listen(settings) as server,
        two_models.opened_models(bundle, outlines=outlines, files=keys, keys=signers) as (classifier, outliner),
    ):
        if not isinstance(classifier, Classifier) and feedback is not None:
            raise ConfigError("--feedback asks whether readers agree with a class, and this bundle gives none")
        run_server(classifier, settings=settings, server=server, on_ready=ready, outliner=outliner)
    say(f"ended; {'everything was' if feedback is None else 'all studies were'} removed")
