"""The page in a real browser: outlines on the moving heart, and volumes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monai_fedlora.clinic.bundle import Classifier
from tests.clinic.cine_studies import beating_heart, write_study
from tests.clinic.outliners import GreyOutliner
from tests.serve.browsing import choose, serving, until_done
from tests.serve.conftest import zipped

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outlining(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with a model of the class and one of the outlines."""
    with serving(classifier, tmp_path_factory.mktemp("served"), outliner=GreyOutliner()) as found:
        yield found


@pytest.fixture(scope="module")
def long_heart(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return zipped(write_study(tmp_path_factory.mktemp("long") / "heart", beating_heart(slices=8)))


def test_volumes_stand_beside_the_class_or_alone(
    open_page: Any, outlining: str, long_heart: bytes, tmp_path: Path
) -> None:
    page = open_page(outlining)
    choose(page, "heart.zip", long_heart)
    until_done(page)
    assert page.locator(".numbers tr").count() >= 6 and page.locator(".best").count() == 1
    assert "Outlines are" not in page.locator("#answer-heading").inner_text()
    assert "outlines are doubtful" in page.locator(".heart .doubts").inner_text()
    with serving(None, tmp_path, outliner=GreyOutliner()) as alone:
        page = open_page(alone)
        choose(page, "heart.zip", long_heart)
        until_done(page)
        assert "LV ejection fraction" in page.locator("#list").inner_text()
        assert page.locator(".best").count() == 0 and page.locator("#opinion-heading").count() == 0
