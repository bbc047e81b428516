"""Captions state nothing that is not so, and everything they state can be read in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from monai_fedlora.data.photo_phantom.captions import (
    CAMERAS,
    CLASS_NAMES,
    Caption,
    Facts,
    facts_of,
    write_caption,
)
from monai_fedlora.data.photo_phantom.dermoscopy import Dermoscopy
from monai_fedlora.data.photo_phantom.fundus import Fundus
from monai_fedlora.data.photo_phantom.photo_kinds import KINDS

Lesion = Callable[..., Dermoscopy]
Eye = Callable[..., Fundus]


def skin_facts(lesion: Lesion, group: str, camera: str = "C", seed: int = 0) -> Facts:
    return facts_of(group, KINDS["dermoscopy"].cameras[camera], lesion(group, camera, seed))


def eye_facts(eye: Eye, group: str, camera: str = "C", seed: int = 0) -> Facts:
    return facts_of(group, KINDS["fundus"].cameras[camera], eye(group, camera, seed))


def captions(facts: Facts, count: int = 200, seed: int = 0) -> list[Caption]:
    rng = np.random.default_rng(seed)
    return [write_caption(facts, rng) for _ in range(count)]


def test_every_class_and_camera_has_words() -> None:
    assert set(CLASS_NAMES) == {group for kind in KINDS.values() for group in kind.classes}
    assert {name: set(words) for name, words in CAMERAS.items()} == {
        name: set(kind.cameras) for name, kind in KINDS.items()
    }
    names = [name for names in CLASS_NAMES.values() for name in names]
    assert len(set(names)) == len(names)


def check(caption: Caption, facts: Facts) -> None:
    assert caption.statements <= facts.statements
    assert f"kind {facts.kind}" in caption.statements
    for word in facts.adjectives | facts.details:
        assert (word in caption.statements) <= (word in caption.text)
    named = any(name in caption.text for name in CLASS_NAMES[facts.group])
    assert (f"class {facts.group}" in caption.statements) == named
    place = CAMERAS[facts.kind][facts.camera]
    assert (f"camera {facts.kind} {facts.camera}" in caption.statements) == caption.text.endswith(f", {place}")
    assert caption.text == " ".join(caption.text.split())


@pytest.mark.parametrize("group", KINDS["dermoscopy"].classes)
def test_captions_of_lesions_state_facts(lesion: Lesion, group: str) -> None:
    facts = skin_facts(lesion, group)
    for caption in captions(facts):
        check(caption, facts)


@pytest.mark.parametrize("group", KINDS["fundus"].classes)
def test_captions_of_retinas_state_facts(eye: Eye, group: str) -> None:
    facts = eye_facts(eye, group)
    for caption in captions(facts):
        check(caption, facts)


def test_both_kinds_of_captions_occur(lesion: Lesion, eye: Eye) -> None:
    """Few name a lesion's class, most name a grade, and some say nothing but that."""
    for facts, share in ((skin_facts(lesion, "MEL"), 0.05), (eye_facts(eye, "pdr"), 0.9)):
        made = captions(facts, 2000)
        named = [caption for caption in made if f"class {facts.group}" in caption.statements]
        assert len(named) / len(made) == pytest.approx(share, abs=0.03)
        bare = [caption for caption in named if len(caption.statements) == 2]
        assert len(bare) > 0.4 * len(named)


def test_the_same_source_of_numbers_writes_the_same(lesion: Lesion) -> None:
    facts = skin_facts(lesion, "NV")
    assert captions(facts, 5) == captions(facts, 5)
    assert captions(facts, 5) != captions(facts, 5, seed=1)


def test_what_is_drawn_decides_the_words(lesion: Lesion, eye: Eye) -> None:
    red = Counter(
        group
        for group in ("VASC", "NV")
        for seed in range(8)
        if "red" in skin_facts(lesion, group, seed=seed).adjectives
    )
    assert red["VASC"] > 4 > red["NV"]
    ragged = Counter(
        group
        for group in ("MEL", "NV")
        for seed in range(8)
        if "ragged" in skin_facts(lesion, group, seed=seed).adjectives
    )
    assert ragged["MEL"] > 4 > ragged["NV"]
    assert len(skin_facts(lesion, "MEL").adjectives) == 4
    assert "many haemorrhages" in eye_facts(eye, "severe_npdr").details
    assert not any("haemorrhage" in word or word == "microaneurysms" for word in eye_facts(eye, "nodr").details)
    assert "microaneurysms" in eye_facts(eye, "mild_npdr").details


def test_signs_are_told_by_their_names(lesion: Lesion) -> None:
    told = {"veil": "a blue veil", "streaks": "streaks at the rim", "network": "a pigment network"}
    for seed in range(6):
        drawn, details = lesion("MEL", "C", seed).signs, skin_facts(lesion, "MEL", seed=seed).details
        for sign, words in told.items():
            assert (words in details) == (drawn[sign] > 0)
