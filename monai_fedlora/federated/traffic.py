"""Counting the bytes that NVFlare moves between the server and each site."""

from __future__ import annotations

import threading
from collections import Counter

from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.cellnet.utils import encode_payload
from nvflare.fuel.f3.message import Message


class TrafficMeter:
    """Sizes of all messages of the server's cell by peer, as NVFlare's own statistics count them.

    A size is the length of a message's encoded payload. Everything counts: tensors, task requests,
    heartbeats.
    """

    def __init__(self, cell: Cell) -> None:
        core = cell.core_cell
        self._context = core.get_fobs_context
        self._lock = threading.Lock()
        self._received: Counter[str] = Counter()
        self._sent: Counter[str] = Counter()
        core.add_incoming_filter("*", "*", self._count, self._received, MessageHeaderKey.ORIGIN)
        core.add_outgoing_reply_filter("*", "*", self._count, self._sent, MessageHeaderKey.DESTINATION)
        core.add_outgoing_request_filter("*", "*", self._count, self._sent, MessageHeaderKey.DESTINATION)

    def _count(self, message: Message, counter: Counter[str], peer: str) -> None:
        encode_payload(message, fobs_ctx=self._context())
        site = str(message.get_header(peer, "")).partition(".")[0]
        with self._lock:
            counter[site] += len(message.payload or b"")

    def take(self, sites: tuple[str, ...]) -> dict[str, dict[str, int]]:
        """Return bytes since the last call per site, from the site's point of view, and start again."""
        with self._lock:
            counts = {site: {"bytes_sent": self._received[site], "bytes_received": self._sent[site]} for site in sites}
            self._received.clear()
            self._sent.clear()
        return counts
