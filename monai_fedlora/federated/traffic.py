"""Counting the bytes that NVFlare moves between the server and each site."""

from __future__ import annotations

import threading
from collections import Counter

from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.cellnet.utils import encode_payload
from nvflare.fuel.f3.message import Message

_SERVER = "server"


class TrafficMeter:
    """Sizes of all messages between the server and its peers, as NVFlare's own statistics count them.

    A size is the length of a message's encoded payload. Everything counts: tensors, task requests,
    heartbeats. In the simulator the server's cell also passes on what the job's cell sends to the sites.
    """

    def __init__(self, cell: Cell) -> None:
        core = cell.core_cell
        self._context = core.get_fobs_context
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        core.add_incoming_filter("*", "*", self._arrives)
        core.add_outgoing_reply_filter("*", "*", self._leaves)
        core.add_outgoing_request_filter("*", "*", self._leaves)

    def _arrives(self, message: Message) -> None:
        origin = _site(message, MessageHeaderKey.ORIGIN)
        if origin == _SERVER:
            self._leaves(message)
        else:
            self._add(self._received, origin, message)

    def _leaves(self, message: Message) -> None:
        self._add(self._sent, _site(message, MessageHeaderKey.DESTINATION), message)

    def _add(self, counter: Counter[str], site: str, message: Message) -> None:
        size = encode_payload(message, fobs_ctx=self._context())
        with self._lock:
            counter[site] += size

    def take(self, sites: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """Return bytes since the last call per site, from the site's point of view, and start again."""
        with self._lock:
            counts = {site: {"bytes_sent": self._received[site], "bytes_received": self._sent[site]} for site in sites}
            self._received.clear()
            self._sent.clear()
        return counts


def _site(message: Message, end: str) -> str:
    return str(message.get_header(end, "")).partition(".")[0]
