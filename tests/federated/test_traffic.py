"""Bytes are counted once, whole, and on the side of the site that sent or received them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.message import Message
from nvflare.fuel.utils import fobs

from monai_fedlora.federated.traffic import TrafficMeter

SITES = ("north", "south")


class Core:
    """The filters of a cell, without a cell."""

    def __init__(self) -> None:
        self.filters: dict[str, Callable[[Message], Any]] = {}

    def get_fobs_context(self) -> dict[str, Any]:
        return {}

    def add_incoming_filter(self, channel: str, topic: str, cb: Callable[[Message], Any]) -> None:
        self._add("incoming", channel, topic, cb)

    def add_outgoing_reply_filter(self, channel: str, topic: str, cb: Callable[[Message], Any]) -> None:
        self._add("reply", channel, topic, cb)

    def add_outgoing_request_filter(self, channel: str, topic: str, cb: Callable[[Message], Any]) -> None:
        self._add("request", channel, topic, cb)

    def _add(self, kind: str, channel: str, topic: str, cb: Callable[[Message], Any]) -> None:
        assert (channel, topic) == ("*", "*")
        self.filters[kind] = cb

    def pass_on(self, kind: str, payload: Any, *, origin: str, destination: str) -> Message:
        message = Message({MessageHeaderKey.ORIGIN: origin, MessageHeaderKey.DESTINATION: destination}, payload)
        assert self.filters[kind](message) is None  # anything else would replace or block the message
        return message


@pytest.fixture
def core() -> Core:
    return Core()


@pytest.fixture
def meter(core: Core) -> TrafficMeter:
    return TrafficMeter(SimpleNamespace(core_cell=core))


def test_each_direction_is_counted_from_the_sites_point_of_view(core: Core, meter: TrafficMeter) -> None:
    core.pass_on("incoming", b"x" * 10, origin="north.job", destination="server.job")
    core.pass_on("incoming", b"x" * 200, origin="south", destination="server")
    core.pass_on("reply", b"x" * 3000, origin="server.job", destination="north.job")
    core.pass_on("request", b"x" * 40000, origin="server.job", destination="north")
    assert meter.take(SITES) == {
        "north": {"bytes_sent": 10, "bytes_received": 43000},
        "south": {"bytes_sent": 200, "bytes_received": 0},
    }


def test_what_the_servers_job_sends_through_its_parent_is_received_by_the_site(core: Core, meter: TrafficMeter) -> None:
    core.pass_on("incoming", b"x" * 7, origin="server.simulate_job", destination="south.simulate_job")
    assert meter.take(SITES)["south"] == {"bytes_sent": 0, "bytes_received": 7}


def test_counting_starts_again_after_it_was_read(core: Core, meter: TrafficMeter) -> None:
    core.pass_on("incoming", b"x", origin="north", destination="server")
    meter.take(SITES)
    assert meter.take(SITES) == {site: {"bytes_sent": 0, "bytes_received": 0} for site in SITES}


@pytest.mark.parametrize("payload", [None, b"", "text", {"weights": b"x" * 100_000}, [1.5, 2, None]], ids=repr)
def test_an_object_counts_as_many_bytes_as_its_encoding(core: Core, meter: TrafficMeter, payload: Any) -> None:
    expected = len(payload or b"") if payload is None or isinstance(payload, bytes) else len(fobs.dumps(payload))
    core.pass_on("request", payload, origin="server", destination="north")
    assert meter.take(SITES)["north"]["bytes_received"] == expected


def test_an_encoded_message_is_not_encoded_again(core: Core, meter: TrafficMeter) -> None:
    message = core.pass_on("request", {"a": 1}, origin="server", destination="north")
    encoded, first = message.payload, meter.take(SITES)
    core.filters["reply"](message)
    assert message.payload is encoded
    assert meter.take(SITES) == first


def test_messages_of_others_are_left_out(core: Core, meter: TrafficMeter) -> None:
    core.pass_on("incoming", b"x", origin="admin", destination="server")
    core.pass_on("reply", b"x", origin="server", destination="northern")
    assert all(set(counts.values()) == {0} for counts in meter.take(SITES).values())


def test_threads_do_not_lose_bytes(core: Core, meter: TrafficMeter) -> None:
    with ThreadPoolExecutor(8) as pool:
        for _ in range(500):
            pool.submit(core.pass_on, "incoming", b"xx", origin="north", destination="server")
    assert meter.take(SITES)["north"]["bytes_sent"] == 1000
