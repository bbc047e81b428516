"""Small federations with recorded results; ``python -m tests.methods.golden`` records them anew."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from monai_fedlora.methods import get_method
from tests.methods.federation import NETWORKS, PAIRS, Cases, Member, run_federation

PATH = Path(__file__).with_name("golden.json")
TOLERANCE = 5e-4
ROUNDS = 2
CASES = (4, 8)
TESTED = 20

Result = dict[str, float]


def result(name: str, family: str) -> Result:
    """Loss and accuracy of the personal models on new images, averaged over the sites, after the last round."""
    method = get_method(name)
    cases = (sum(CASES),) if method.most_sites == 1 else CASES
    members, _ = run_federation(method, family, rounds=ROUNDS, cases=cases)
    scores = [_score(member, seed=100 + index) for index, member in enumerate(members)]
    return {key: sum(score[key] for score in scores) / len(scores) for key in scores[0]}


def _score(member: Member, seed: int) -> Result:
    images = Cases(member.family, TESTED, seed).images
    labels = torch.arange(TESTED) % 2
    with torch.no_grad():
        logits = member.network(images)
    return {
        "loss": float(torch.nn.functional.cross_entropy(logits, labels)),
        "accuracy": float((logits.argmax(dim=1) == labels).float().mean()),
    }


def recorded() -> dict[str, dict[str, Result]]:
    """Results by family and method."""
    return json.loads(PATH.read_text(encoding="utf-8"))


def record() -> None:
    """Write what all methods give now."""
    found: dict[str, dict[str, Result]] = {family: {} for family in NETWORKS}
    for name, family in PAIRS:
        found[family][name] = {key: round(value, 6) for key, value in result(name, family).items()}
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
