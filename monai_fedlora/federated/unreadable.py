"""Answers that NVFlare would end the whole job for, which here cost their site its part of the round.

Left to itself, NVFlare (2.9) ends the server's process of a job when a site's answer cannot be decoded (an array of
objects, a class that nobody has declared), ends the job when the answer's code is one of three, and receives 4 GB of an
answer before it looks at it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.fuel.f3.cellnet.cell import Adapter, Cell
from nvflare.fuel.f3.cellnet.defs import CellChannel
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.blob_streamer import BlobHandler
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.fuel.f3.streaming.stream_types import StreamError
from nvflare.private.defs import CellMessageHeaderKeys

from monai_fedlora.federated.reasons import REASONS, SITE_FAILED, TOO_LONG, UNREADABLE, Reason

ANSWER_TOPIC = "submit_update"
"""On which sites answer, of NVFlare's channel of commands to the server."""
ENDS_JOBS = (ReturnCode.RUN_MISMATCH, ReturnCode.TASK_UNKNOWN, ReturnCode.UNSAFE_JOB)
"""Codes of an answer for which NVFlare ends the job."""
LEAST = 2**20
"""Bytes (ours) that every answer may have before it is received; what is longer than it can need is not opened."""
_ELSEWHERE = SimpleNamespace(fqcn="")
"""In place of what NVFlare's reader knows of its own process, which it ends if that is a job's."""
_Handler = Callable[..., Any]


class AnswerGate:
    """Hands on an error in a site's name in place of an answer that is too long, unreadable, or would end the job.

    The server then goes on as with every other failure of a site: nobody is waited for in vain. Messages that break off
    are left to NVFlare, whose sites send them again.

    Args:
        handle: takes what can be read, NVFlare's own handler of commands.
        site_of: the name of the site that a token belongs to; None of nobody.
        job_id: of the job.
        most: bytes of an answer that is received; at least :data:`LEAST` are.
    """

    def __init__(
        self, *, handle: _Handler, site_of: Callable[[str | None], str | None], job_id: str, most: int
    ) -> None:
        self._handle, self._site_of, self._job_id, self._most = handle, site_of, job_id, max(most, LEAST)
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[str, str]] = {}
        self._found: dict[str, Reason] = {}

    def stand_before(self, cell: Cell) -> None:
        """Have a cell's answers pass here."""
        self._cell = cell
        handler = BlobHandler(self._read)
        handler.max_blob_size = min(handler.max_blob_size or self._most, self._most)
        cell.byte_receiver.register_callback(CellChannel.SERVER_COMMAND, ANSWER_TOPIC, handler.handle_blob_cb)

    def asked(self, site: str, task: str, task_id: str) -> None:
        """Learn what a site is about to be asked: an answer that cannot be read does not say what it is about."""
        with self._lock:
            _, before = self._asked.get(site, ("", ""))
            self._found.pop(before, None)
            self._asked[site] = (task, task_id)

    def found(self, task_id: str | None) -> Reason | None:
        """Why the answer to a task was not handed on; None of one that was."""
        with self._lock:
            return self._found.get(task_id or "")

    def _read(self, future: Any, *args: Any, **kwargs: Any) -> None:
        """Take a streamed message, as NVFlare's reader of requests does."""
        read = threading.Event()

        def hand_on(request: Message, *args: Any, **kwargs: Any) -> Any:
            read.set()
            answer = request.payload
            code = answer.get_return_code() if isinstance(answer, Shareable) else ReturnCode.OK
            site = self._site_of(request.get_header(CellMessageHeaderKeys.TOKEN))
            if not isinstance(answer, Shareable):
                reason = Reason.of(UNREADABLE).about("it is no message of NVFlare's")
            elif code in ENDS_JOBS:
                reason = Reason(SITE_FAILED, f"the site answered {code!r}; {REASONS[SITE_FAILED]}")
            else:
                return self._handle(request, *args, **kwargs)
            error = self._error(site, reason)
            return self._handle(Message(request.headers, error) if error else request, *args, **kwargs)

        try:
            Adapter(hand_on, _ELSEWHERE, self._cell).call(future, *args, **kwargs)
        except Exception as error:
            if read.is_set() or (reason := _reason(error)) is None:
                raise
            site = self._site_of(future.headers.get(CellMessageHeaderKeys.TOKEN))
            if (reply := self._error(site, reason)) is None:
                raise
            headers = {key: value for key, value in future.headers.items() if key != StreamHeaderKey.PAYLOAD_ENCODING}
            known = SimpleNamespace(headers=headers, result=lambda: reply)
            Adapter(self._handle, _ELSEWHERE, self._cell).call(known, *args, **kwargs)

    def _error(self, site: str | None, reason: Reason) -> Shareable | None:
        """What NVFlare shall see in place of a site's answer; None where it was asked nothing."""
        with self._lock:
            if site is None or site not in self._asked:
                return None
            task, task_id = self._asked[site]
            self._found[task_id] = reason
        context = FLContext()
        context.set_prop(FLContextKey.CURRENT_RUN, self._job_id, private=False, sticky=False)
        reply = make_reply(ReturnCode.EXECUTION_RESULT_ERROR)
        reply.set_peer_context(context)
        reply.set_header(FLContextKey.TASK_NAME, task)
        reply.add_cookie(FLContextKey.TASK_ID, task_id)
        return reply


def _reason(error: Exception) -> Reason | None:
    """Why a message cannot be read; None where its way here has failed."""
    if not isinstance(error, StreamError):
        return Reason.of(UNREADABLE).about(type(error).__name__)
    return Reason.of(TOO_LONG) if "configured limit" in str(error) else None
