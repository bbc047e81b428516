"""Stage 5: whether two runs of one training give the same bits, with and without deterministic attention."""

from __future__ import annotations

from typing import Any

from _gpu.correct import trained
from _gpu.place import CINE, IMAGE, Place, Training


def run(place: Place) -> dict[str, Any]:
    """Each precision and kind of attention, twice."""
    networks = place.choose({"small": CINE, "vit_base_16": IMAGE}, {"vit_demo": IMAGE})
    rows = []
    for size, bundle in networks.items():
        for precision in ("off", "bf16"):
            for deterministic in (False, True):
                settings = {"mixed_precision": precision, "deterministic": deterministic}
                training = Training(bundle=bundle, size=size, settings=settings)
                (first, losses), (second, others) = (trained(training, place, device=place.device) for _ in range(2))
                equal = all(first[key].equal(second[key]) for key in first) and losses == others
                rows.append({"size": size, **settings, "equal_bits": equal})
    return {"runs": rows, "passed": all(row["equal_bits"] for row in rows if row["deterministic"])}
