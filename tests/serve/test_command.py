"""``monai-fedlora serve`` from the start to Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pydicom
import pytest

from monai_fedlora import cli
from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.errors import ConfigError
from monai_fedlora.exporting.bundle_export import Exported
from monai_fedlora.serve import listening as run_module
from monai_fedlora.serve.listening import listen
from monai_fedlora.serve.settings import ServeSettings
from tests.serve.conftest import finished, zipped


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_taken_port_is_named_before_a_bundle_is_looked_at(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["serve", str(tmp_path / "nothing"), "--port", str(port)]) == 2
    assert f"port {port} is taken" in capsys.readouterr().err


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1 is no address of this machine"):
        listen(ServeSettings(host="192.0.2.1", port=free_port(), token="x" * 16))


def test_bundle_is_checked_first(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["serve", str(tmp_path / "nothing"), "--port", str(free_port())]) == 2
    assert "is no exported bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "0"], "no port"),
        (["--max-upload", "nan"], "no size"),
        (["--max-upload", "inf"], "no size"),
        (["--max-upload", "-1"], "max-upload"),
        (["--idle-minutes", "0"], "idle-minutes"),
        (["--token", "a-token.of_23~characters"], "--token-file"),
        (["--max-disk", "nan"], "no size"),
        (["--max-disk", "1"], "max-disk"),
        (["--host", "a b"], "no address"),
    ],
)
def test_impossible_options_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], message: str
) -> None:
    assert cli.main(["serve", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_missing_packages_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, run_module.__name__)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["serve", str(tmp_path)]) == 2
    assert "pip install 'monai-fedlora[serve]'" in capsys.readouterr().err


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, classifier: Classifier) -> list[ServeSettings]:
    """Settings that the command would have served a model with."""
    found: list[ServeSettings] = []

    def serve(model: Classifier, *, settings: ServeSettings, server: Any, on_ready: Any, outliner: None) -> None:
        found.append(settings)
        on_ready()

    monkeypatch.setattr(run_module, "run_server", serve)
    monkeypatch.setattr("monai_fedlora.clinic.two_models.open_model", lambda path, *, keys, device: classifier)
    return found


def test_local_server_needs_no_token(started: list[ServeSettings], capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert cli.main(["serve", "B", "--port", str(port), "--max-upload", "0.5", "--idle-minutes", "5"]) == 0
    assert started == [ServeSettings(port=port, max_upload_bytes=1 << 29, max_disk_bytes=1 << 32, idle_minutes=5.0)]
    output = capsys.readouterr().out
    assert output.count(f"open http://127.0.0.1:{port} ; Ctrl-C ends and removes everything\n") == 1
    assert "Not for clinical use" in output


def test_token_is_made_and_printed_where_others_can_connect(
    started: list[ServeSettings], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert cli.main(["serve", "B", "--host", "0.0.0.0", "--port", str(free_port())]) == 0
    first, second = (settings.token for settings in started)
    assert first != second
    assert len(first or "") >= 32
    assert capsys.readouterr().out.count(f"/?token={first} ;") == 1


def test_token_that_the_user_keeps_is_not_said(
    started: list[ServeSettings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    assert cli.main(["serve", "B", "--port", str(free_port()), "--token-file", str(file)]) == 0
    monkeypatch.setenv("MONAI_FEDLORA_TOKEN", "a-token.of_23~characters")
    assert cli.main(["serve", "B", "--port", str(free_port())]) == 0
    assert [settings.token for settings in started] == [file.read_text().strip(), "a-token.of_23~characters"]
    output = capsys.readouterr().out
    assert output.count("/?token=TOKEN ;") == 2
    assert str(file) in output
    assert "MONAI_FEDLORA_TOKEN" in output
    assert not any((settings.token or "") in output for settings in started)


def test_refused_token_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["serve", "B", "--token", "a-token.of_23~characters"]) == 2
    assert "a-token" not in "".join(capsys.readouterr())


def test_viewer_that_is_not_there_is_said(
    started: list[ServeSettings], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_fedlora.serve.served_bundle.find_pages", lambda: {})
    assert cli.main(["serve", "B", "--port", str(free_port())]) == 0
    assert "make web" in capsys.readouterr().out


@contextlib.contextmanager
def running(bundle: Path, scratch: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command, and the address that it printed."""
    command = [sys.executable, "-m", "monai_fedlora.cli", "serve", str(bundle), "--port", str(free_port()), *options]
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    assert process.stdout is not None
    try:
        said = ""
        for line in process.stdout:
            said += line
            if match := re.match(r"open (\S+) ; Ctrl-C", line):
                yield process, match[1]
                return
        raise AssertionError(said)
    finally:
        process.kill()
        process.wait()


def folders(scratch: Path) -> list[Path]:
    return [path for path in scratch.iterdir() if path.name.startswith("monai-fedlora-serve-")]


@pytest.mark.slow
def test_study_is_classified_by_the_real_command(exported: Exported, stored_study: Path, scratch: Path) -> None:
    with (
        running(exported.folder, scratch) as (process, address),
        httpx2.Client(base_url=address, timeout=60) as browser,
    ):
        assert browser.get("/").status_code == 200
        sent = browser.post("/api/studies", files=[("files", ("heart.zip", zipped(stored_study)))])
        assert sent.status_code == 202
        study = finished(browser, sent.json()["id"])
        assert study["result"]["prediction"] in ("NOR", "ABN")
        with zipfile.ZipFile(io.BytesIO(browser.get(study["files"]["dicom"]).content)) as archive:
            report = pydicom.dcmread(io.BytesIO(archive.read("report.dcm")))
        assert report.SOPClassUID.name == "Comprehensive SR Storage"
        assert report.PatientIdentityRemoved == "YES"
        assert len(folders(scratch)) == 1
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
        assert "a study was classified after" in output
        assert "ended; everything was removed" in output
        assert "Traceback" not in output
        assert "heart" not in output
        assert folders(scratch) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_end_of_the_terminal_removes_everything(exported: Exported, scratch: Path, number: signal.Signals) -> None:
    with running(exported.folder, scratch) as (process, address):
        assert httpx2.get(address).status_code == 200
        assert len(folders(scratch)) == 1
        process.send_signal(number)
        process.communicate(timeout=30)
        assert folders(scratch) == []


@pytest.mark.slow
def test_token_protects_the_real_command(exported: Exported, scratch: Path) -> None:
    with running(exported.folder, scratch, "--host", "0.0.0.0") as (process, address):
        local = address.replace(socket.gethostname(), "127.0.0.1")
        base = local.partition("/?")[0]
        token = address.partition("token=")[2].encode()
        assert len(token) >= 32
        assert token not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert token not in Path(f"/proc/{process.pid}/environ").read_bytes()
        assert httpx2.get(base).status_code == 401
        with httpx2.Client(follow_redirects=True) as browser:
            opened = browser.get(local)
            assert (opened.status_code, str(opened.url)) == (200, base + "/")
            assert browser.get(f"{base}/api/model").status_code == 200
