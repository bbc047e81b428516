"""What the comparison of frameworks computes from its notes, and what it compares with."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import math
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import psutil
import pytest
import torch
from _frameworks.events import EPOCHS, EVENTS, TASK, Span, covered, noted, read, summary
from _frameworks.floors import data_bytes, floor_of, slope, training_flops
from _frameworks.memory import MARK, Sampler, end_all, marked, proportional_size
from _frameworks.systems import SYSTEMS
from _frameworks.table import as_csv, figure, merged, slopes
from _frameworks.work import CAMERAS, Work, prepare_backbone, prepare_data
from _machine import matrix_rate
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.data.datalist import load_datalist
from monai_fedlora.data.site import site_data
from monai_fedlora.files import load_tensors
from monai_fedlora.methods import get_method
from monai_fedlora.methods.build import build_network
from tests.benchmarks.test_command_lines import loaded

TIMES = st.integers(0, 60)


def span(what: str, number: int, started: float, ended: float, site: str = "site-1") -> Span:
    return Span(what=what, site=site, round=number, started=started, ended=ended)


@given(st.lists(st.tuples(TIMES, TIMES).map(sorted).map(tuple)))
def test_intervals_cover_what_any_of_them_covers(intervals: list[tuple[int, int]]) -> None:
    seconds = {second for start, end in intervals for second in range(start, end)}
    assert covered(intervals) == len(seconds)


def test_rounds_last_until_the_next_one_and_sites_that_train_at_once_count_once() -> None:
    spans = []
    for number, start in enumerate((0.0, 100.0, 110.0, 124.0)):
        for site, shift in (("site-1", 0.0), ("site-2", 1.0)):
            spans.append(span(TASK, number, start + shift, start + shift + 5, site))
            spans.append(span(EPOCHS, number, start + shift + 1, start + shift + (5 if number == 0 else 3), site))
    found = summary(spans, epochs=2)
    assert found == {
        "first_epoch_seconds": 2.0,
        "epoch_seconds": 1.0,
        "task_seconds": 5.0,
        "round_seconds": 12.0,  # of 10 and 14
        "beyond_training_seconds": 9.0,  # sites train from 1 to 4 seconds after a round's start
    }


def test_too_few_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds 0 to 1 are too few"):
        summary([span(what, number, number, number + 1) for what in (TASK, EPOCHS) for number in (0, 1)], epochs=1)


def test_what_is_noted_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVENTS, str(tmp_path / "events"))
    with noted(TASK, site="site-3", round_number=2), noted(EPOCHS, site="site-3", round_number=2):
        pass
    epochs, task = read(tmp_path / "events")
    assert (epochs.what, task.what, task.site, task.round) == (EPOCHS, TASK, "site-3", 2)
    assert task.started <= epochs.started <= epochs.ended <= task.ended


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(-1e3, 1e3)), min_size=2, max_size=6))
def test_a_slope_is_that_of_the_fitted_line(points: list[tuple[int, float]]) -> None:
    xs, ys = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    if len(set(xs)) == 1:
        assert slope(points) is None
    else:
        assert slope(points) == pytest.approx(np.polyfit(xs, ys, 1)[0], abs=1e-6)


@pytest.mark.slow
def test_floors_are_for_what_trains() -> None:
    counted = {name: training_flops(SYSTEMS[name], size="vit_demo", classes=4) for name in SYSTEMS}
    flop = {name: each["flop_per_picture"] for name, each in counted.items()}
    assert flop["ours"] == flop["in_process"] < flop["ours_all_blocks"] < flop["client_api"] == flop["flower"]
    assert flop["flower"] < flop["full"]
    dim, depth, rank, head = 96, 6, 8, 4 * 96 + 4
    factors = {"all": depth * 2 * 2 * dim * rank, "last": 2 * 2 * 2 * dim * rank}
    assert counted["flower"]["shared_parameters"] == factors["all"] + head
    assert counted["ours"]["shared_parameters"] == factors["last"] + head
    assert counted["ours"]["private_parameters"] == factors["last"]
    assert counted["full"]["private_parameters"] == 0
    assert floor_of(counted["flower"], cases=10, rate=2.0, wire_bytes=4) == {
        "epoch_seconds": 5 * flop["flower"],
        "payload_bytes": 4 * counted["flower"]["shared_parameters"],
    }


def test_the_floor_of_full_fine_tuning_is_three_forward_passes_but_for_the_image() -> None:
    tokens, dim, depth, heads, patch = 65, 96, 6, 4, 3 * 8 * 8
    linear, attention = 2 * tokens * 12 * dim * dim, 2 * 2 * tokens * tokens * dim
    alone = 2 * dim * dim * (11 + heads) + 2 * 2 * tokens * dim * heads  # the class token asks in the last block
    blocks = (depth - 1) * (linear + attention) + alone
    expected = 3 * (blocks + 2 * 4 * dim) + 2 * (2 * (tokens - 1) * dim * patch)
    found = training_flops(SYSTEMS["full"], size="vit_demo", classes=4)["flop_per_picture"]
    assert found == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_name_methods_that_exist_and_say_what_is_private(name: str) -> None:
    system = SYSTEMS[name]
    method = get_method(system.method, system.method_args)
    assert system.private.startswith("none") is (method.name != "dual_lora")
    assert system.in_flower is (system.command == ("flower",))


def test_work_is_read_as_it_was_written(tmp_path: Path) -> None:
    work = Work(
        folder=str(tmp_path),
        data="data",
        backbone="b",
        size="vit_demo",
        classes=("a", "b"),
        sites=3,
        rounds=3,
        epochs=1,
        batch_size=2,
        at_once=2,
        method="fedit",
        method_args={"blocks": 0},
        rank=8,
    )
    assert Work.read(work.write()) == work
    assert work.names == ("site-1", "site-2", "site-3")


def test_sites_get_pictures_of_their_camera_and_copies_beyond_the_last(tmp_path: Path) -> None:
    classes = prepare_data(tmp_path, sites=CAMERAS + 1, cases=2)
    lists = [load_datalist(site_data(f"site-{n + 1}", data_root=str(tmp_path))) for n in range(CAMERAS + 1)]
    assert {each.classes for each in lists} == {classes}
    assert [each.site for each in lists] == [f"site-{n + 1}" for n in range(CAMERAS + 1)]
    contents = [[Path(item["image"]).read_bytes() for item in each.items("training")] for each in lists]
    assert contents[0] == contents[CAMERAS] != contents[1]
    assert [len(site) for site in contents] == [2] * len(lists)
    assert not [item for each in lists for split in ("validation", "test") for item in each.items(split)]
    assert data_bytes(tmp_path) == sum(len(file) for site in contents for file in site) // len(lists)


def test_the_stored_backbone_is_what_ours_starts_from(tmp_path: Path) -> None:
    path = tmp_path / "b.safetensors"
    prepare_backbone(path, size="vit_demo", classes=4)
    network = build_network(size="vit_demo", out_chans=4, backbone=str(path), method="fedit")
    state = {key.replace(".base_layer", ""): value for key, value in network.state_dict().items()}
    assert all(torch.equal(value, state[key]) for key, value in load_tensors(path)[0].items())


@pytest.mark.slow
def test_peers_train_what_our_federation_of_all_blocks_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from _frameworks import usual

    classes = prepare_data(tmp_path / "data", sites=1, cases=3)
    prepare_backbone(tmp_path / "b.safetensors", size="vit_demo", classes=len(classes))
    work = Work(
        folder=str(tmp_path),
        data=str(tmp_path / "data"),
        backbone=str(tmp_path / "b.safetensors"),
        size="vit_demo",
        classes=classes,
        sites=1,
        rounds=3,
        epochs=1,
        batch_size=2,
        at_once=1,
        method="fedit",
        method_args={},
        rank=8,
    )
    monkeypatch.setenv(EVENTS, str(tmp_path / "events"))
    path = str(work.write())
    start = usual.travelling(usual.network(path))
    end, cases = usual.train(path, "site-1", start, 0)
    counted = training_flops(SYSTEMS["client_api"], size="vit_demo", classes=len(classes))
    assert sum(value.numel() for value in start.values()) == counted["shared_parameters"]
    assert start.keys() == end.keys() == usual.Travelling(path).state_dict().keys()
    assert cases == 3
    assert all(not bool((start[key] == end[key]).all()) for key in start if "lora_B" in key)
    trained = [name for name, parameter in usual.network(path).named_parameters() if parameter.requires_grad]
    assert len(trained) == len(start)


def test_memory_is_that_of_processes_with_the_mark_and_they_can_be_ended() -> None:
    process = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: "mine"})
    try:
        with Sampler("mine", interval=0.01) as memory:
            while not memory.processes:
                assert process.poll() is None
        assert [found.pid for found in marked("mine")] == [process.pid]
        assert 0 < proportional_size(psutil.Process(process.pid)) <= psutil.Process(process.pid).memory_info().rss
        assert memory.peak_bytes > 0
        assert marked("another's") == []
    finally:
        end_all("mine")
    assert process.wait(5) != 0
    assert proportional_size(psutil.Process()) > 0


def row(system: str, sites: int, cases: int, repeat: int, seconds: float, peak: int) -> dict[str, float | str]:
    return {
        "system": system,
        "sites": sites,
        "cases": cases,
        "repeat": repeat,
        "round_seconds": seconds,
        "beyond_training_seconds": seconds / 2,
        "epoch_seconds": seconds * cases,
        "peak_bytes": peak,
        "processes": 1,
    }


ROWS = [
    *(row("ours", 2, 16, repeat, seconds, 10 + repeat) for repeat, seconds in enumerate((3.0, 1.0, 2.0))),
    row("ours", 4, 16, 0, 6.0, 20),
    row("ours", 2, 32, 0, 2.0, 16),
    row("flower", 2, 16, 0, 5.0, 40),
    {"system": "flower", "sites": 4, "cases": 16, "repeat": 0, "failed": "exit 1: no memory"},
]


def test_repeats_become_medians_and_peaks() -> None:
    first, *others = merged(ROWS)
    assert (first["round_seconds"], first["peak_bytes"], first["repeats"]) == (2.0, 12, 3)
    assert [(each["system"], each["sites"], each["cases"]) for each in others] == [
        ("ours", 4, 16),
        ("ours", 2, 32),
        ("flower", 2, 16),
    ]


def test_slopes_are_over_sites_with_the_fewest_cases_and_over_cases_with_the_fewest_sites() -> None:
    found = slopes(merged(ROWS))
    assert found["ours"]["round_seconds_per_site"] == pytest.approx(2.0)
    assert found["ours"]["beyond_training_seconds_per_site"] == pytest.approx(1.0)
    assert found["ours"]["peak_bytes_per_site"] == pytest.approx(4.0)
    assert found["ours"]["epoch_seconds_per_case"] == pytest.approx(2.0)
    assert found["ours"]["peak_bytes_per_case"] == pytest.approx(0.25)
    assert set(found["flower"].values()) == {None}


def test_the_table_has_every_row_and_the_figures_every_system_and_its_slope() -> None:
    read_back = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert len(read_back) == len(ROWS)
    assert read_back[-1]["failed"] == "exit 1: no memory"
    assert math.isclose(float(read_back[3]["round_seconds"]), 6.0)
    drawn = figure(merged(ROWS), "round_seconds", scale=1, label="a round", unit="s")
    assert "ours: 2 s per site" in "".join(ElementTree.fromstring(drawn).itertext())


def test_sites_and_cases_double_apart() -> None:
    frameworks = loaded("frameworks")
    assert frameworks.places([2, 4], [8, 16, 32]) == [(2, 8), (4, 8), (2, 16), (2, 32)]


@pytest.mark.parametrize("text", ["0", "2,-4", "2,many", ""])
def test_impossible_numbers_are_refused(text: str) -> None:
    with pytest.raises((ValueError, argparse.ArgumentTypeError)):
        loaded("frameworks").numbers(text)


def test_unknown_systems_are_named() -> None:
    frameworks = loaded("frameworks")
    assert frameworks.names("ours,flower") == ["ours", "flower"]
    with pytest.raises(argparse.ArgumentTypeError, match="'theirs' is none of ours"):
        frameworks.names("ours,theirs")


def test_quick_settings_are_settings_of_the_command_line() -> None:
    frameworks = loaded("frameworks")
    parser = frameworks.build_parser()
    parser.set_defaults(**frameworks.QUICK)
    settings = parser.parse_args(["--quick"])
    assert (settings.sites, settings.cases, settings.rounds) == ([2], [6], 3)
    assert dataclasses.is_dataclass(SYSTEMS[settings.systems[0]])


def test_many_sites_are_compared_with_the_fewest() -> None:
    rows = [{"sites": sites, "peak_bytes": 100 + sites, "rest_bytes": 50 + 2 * sites} for sites in (1, 8, 64)]
    found = loaded("many_sites").compared(rows)
    assert found["peak_ratio"] == {1: 1.0, 8: 108 / 101, 64: 164 / 101}
    assert found["peak_bytes_per_site"] == pytest.approx(1.0)
    assert found["rest_bytes_per_site"] == pytest.approx(2.0)


def test_a_matrix_product_is_rated_by_its_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0.0, 4.0] + [0.0, 2.0] * 8 + [0.0, 0.5]))
    monkeypatch.setattr("_machine.time.perf_counter", lambda: next(clock))
    assert matrix_rate(8, 4, seconds=1.0) == 2 * 8 * 4 * 16 / 0.5
