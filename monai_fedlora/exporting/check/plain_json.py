"""Parse JSON strictly, so that every reader gets the same result."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from monai_fedlora.errors import ExportError

_DEEPEST = 100


def read_plain_json(content: bytes) -> Any:
    """Parse UTF-8 JSON.

    Raises:
        ExportError: it is not JSON, has a key twice, holds NaN or infinity, or is nested deeper than 100.
    """
    try:
        value = json.loads(
            content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # fails for unpaired surrogates
    except RecursionError:
        raise ExportError(f"is nested deeper than {_DEEPEST}") from None
    except ValueError as error:
        raise ExportError(f"is not valid JSON ({error})") from error
    if _depth_exceeds(value, _DEEPEST):
        raise ExportError(f"is nested deeper than {_DEEPEST}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [
            part
            for item in level
            if isinstance(item, (dict, list))
            for part in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return True
