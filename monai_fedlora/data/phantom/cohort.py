"""Who is in a made-up study: how many of each group, from which vendor, in which order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from monai_fedlora.data.phantom.vendors import GROUPS, VENDORS, Vendor
from monai_fedlora.errors import ConfigError


def share_out(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Return whole numbers that add up to ``total``, in proportion to ``shares`` (largest remainders)."""
    whole = sum(shares.values())
    quotas = {name: total * share / whole for name, share in shares.items()}
    counts = {name: int(quota + 1e-9) for name, quota in quotas.items()}
    for name in sorted(shares, key=lambda name: counts[name] - quotas[name])[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def draw_groups(total: int, shares: Mapping[str, float], seed: Sequence[int]) -> list[str]:
    """Return the groups of ``total`` patients, in proportion to ``shares`` and in random order."""
    counts = share_out(total, shares)
    groups = [name for name in GROUPS for _ in range(counts.get(name, 0))]
    order = np.random.default_rng(np.random.SeedSequence([*seed])).permutation(total)
    return [groups[place] for place in order]


def vendors_named(codes: Sequence[str]) -> tuple[Vendor, ...]:
    """Return the vendors of these letters.

    Raises:
        ConfigError: there is none, one is unknown or one occurs twice.
    """
    if unknown := [code for code in codes if code not in VENDORS]:
        raise ConfigError(f"unknown vendor {unknown[0]!r}; choose from {', '.join(VENDORS)}")
    if not codes or len(set(codes)) < len(codes):
        raise ConfigError(f"name each vendor once, such as {','.join(VENDORS)}")
    return tuple(VENDORS[code] for code in codes)


def name_seed(text: str) -> int:
    """Return a number that follows from a name, the same on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def mnms_code(number: int, seed: int) -> str:
    """Return the code of patient ``number``: letter, digit, three times; different for different numbers."""
    place = (number * 7_654_321 + name_seed(str(seed))) % 260**3  # 7 654 321 shares no divisor with 260
    code = ""
    for _ in range(3):
        place, digit = divmod(place, 260)
        code += f"{chr(ord('A') + digit // 10)}{digit % 10}"
    return code
