from pathlib import Path

import pytest
import torch

from monai_fedlora.cli import main
from monai_fedlora.engines.config import site_store
from monai_fedlora.engines.store import entries, store_root


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FEDLORA_CACHE", str(tmp_path))


def fill(site: str, count: int) -> None:
    store = site_store(site=site)
    assert store is not None
    for number in range(count):
        store.recall(f"{number:040d}", lambda: {"a": torch.zeros(250_000)})


def test_show_names_every_site_with_its_size(capsys: pytest.CaptureFixture[str]) -> None:
    fill("east", 1)
    fill("west", 2)
    assert main(["cache", "show"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["east", "1", "1.0", "MB"] in rows
    assert ["west", "2", "2.0", "MB"] in rows
    assert ["together", "3", "3.0", "MB"] in rows


def test_wipe_deletes_one_site_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    fill("east", 1)
    fill("west", 2)
    assert main(["cache", "wipe", "--site", "west"]) == 0
    assert [entry.path.parent.parent.name for entry in entries(store_root())] == ["east"]
    assert main(["cache", "wipe"]) == 0
    assert list(entries(store_root())) == []
    assert "deleted 1 entries" in capsys.readouterr().out


def test_an_empty_cache_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "show"]) == 0
    assert main(["cache", "wipe"]) == 0
    assert "deleted 0 entries" in capsys.readouterr().out


def test_wiping_touches_nothing_else(tmp_path: Path) -> None:
    fill("east", 1)
    phantom = tmp_path / "phantom" / "site-1" / "datalist.json"
    phantom.parent.mkdir(parents=True)
    phantom.write_text("{}")
    main(["cache", "wipe"])
    assert phantom.is_file()


def test_a_site_that_is_a_path_is_refused() -> None:
    assert main(["cache", "wipe", "--site", "../phantom"]) == 2
