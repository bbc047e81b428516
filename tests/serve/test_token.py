"""The token comes from a file or the environment, and nobody else reads it."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from monai_fedlora.environment import SERVE_TOKEN
from monai_fedlora.errors import ConfigError
from monai_fedlora.serve.token import find_token


def test_file_that_is_not_there_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token, is_secret = find_token(path, is_needed=False)
    assert token is not None
    assert len(token) >= 32
    assert not is_secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_token(path, is_needed=True) == (token, False)


def test_file_that_others_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("a-token.of_23~characters\n")
    for mode in (0o644, 0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            find_token(path, is_needed=True)
    path.chmod(0o600)
    assert find_token(path, is_needed=True) == ("a-token.of_23~characters", False)


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere" / "token"):
        with pytest.raises(ConfigError, match=path.name):
            find_token(path, is_needed=True)


def test_environment_is_next_and_one_is_made_where_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVE_TOKEN, "a-token.of_23~characters")
    assert find_token(None, is_needed=True) == ("a-token.of_23~characters", False)
    assert find_token(tmp_path / "token", is_needed=True)[0] != "a-token.of_23~characters"
    monkeypatch.delenv(SERVE_TOKEN)
    assert find_token(None, is_needed=False) == (None, False)
    first, second = find_token(None, is_needed=True), find_token(None, is_needed=True)
    assert first != second
    assert first[1]
