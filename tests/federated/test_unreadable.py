"""In place of an answer that cannot be read, or would end the job, NVFlare gets an error in the name of its site."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.utils.decomposers import flare_decomposers
from nvflare.fuel.f3.cellnet.defs import CellChannel, Encoding, MessageHeaderKey
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.fuel.f3.streaming.stream_types import StreamError
from nvflare.fuel.utils import fobs
from nvflare.private.defs import CellMessageHeaderKeys
from nvflare.private.fed.server.server_runner import ServerRunner

from monai_fedlora.federated.reasons import SITE_FAILED, TOO_LONG, UNREADABLE
from monai_fedlora.federated.unreadable import ANSWER_TOPIC, ENDS_JOBS, LEAST, AnswerGate

TOKEN, SITE = "token-of-north", "north"


class Cell:
    """Passes on what arrives to whoever has asked for it, and sends nothing."""

    decode_pass_through_channels: frozenset[str] = frozenset()
    decode_pass_through_topics: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.callbacks: dict[tuple[str, str], Callable[..., int]] = {}
        self.byte_receiver = SimpleNamespace(
            register_callback=lambda channel, topic, callback: self.callbacks.update({(channel, topic): callback})
        )

    def get_fobs_context(self, props: Any = None) -> dict[str, Any]:
        return dict(props or {})


class Server:
    """A gate before a handler that keeps what reaches it."""

    def __init__(self, most: int = 100) -> None:
        flare_decomposers.register()
        self.handled: list[Message] = []
        self.gate = AnswerGate(
            handle=self.handled.append,
            site_of={TOKEN: SITE}.get,
            job_id="job",
            most=most,  # type: ignore[arg-type]
        )
        self.cell = Cell()
        self.gate.stand_before(self.cell)  # type: ignore[arg-type]

    @property
    def handler(self) -> Any:
        callback: Any = self.cell.callbacks[CellChannel.SERVER_COMMAND, ANSWER_TOPIC]
        return callback.__self__

    def receive(self, payload: Any, *, token: str = TOKEN, error: Exception | None = None) -> None:
        def result() -> Any:
            if error:
                raise error
            return fobs.dumps(payload)

        headers = {
            StreamHeaderKey.CHANNEL: CellChannel.SERVER_COMMAND,
            StreamHeaderKey.TOPIC: ANSWER_TOPIC,
            StreamHeaderKey.PAYLOAD_ENCODING: Encoding.FOBS,
            CellMessageHeaderKeys.TOKEN: token,
        }
        self.handler.blob_cb(SimpleNamespace(headers=headers, result=result))

    def answer(self) -> Shareable:
        (message,) = self.handled
        assert message.get_header(CellMessageHeaderKeys.TOKEN) == TOKEN
        assert message.get_header(MessageHeaderKey.TOPIC) == ANSWER_TOPIC
        assert isinstance(message.payload, Shareable)
        return message.payload


POISON = {"__fobs_type__": "nobody.Knows", "__fobs_data__": {}}


def spoiled() -> Shareable:
    answer = make_reply(ReturnCode.OK)
    answer["more"] = POISON
    return answer


def test_an_answer_that_can_be_read_goes_on_as_it_is() -> None:
    server = Server()
    server.gate.asked(SITE, "train", "t-1")
    server.receive(make_reply(ReturnCode.EXECUTION_EXCEPTION))
    assert server.answer().get_return_code() == ReturnCode.EXECUTION_EXCEPTION
    assert server.gate.found("t-1") is None


@pytest.mark.parametrize("payload", [spoiled(), "no message", 7, [POISON], None], ids=repr)
def test_in_place_of_what_cannot_be_decoded_comes_an_error_for_what_the_site_was_asked(payload: Any) -> None:
    server = Server()
    server.gate.asked(SITE, "train", "t-1")
    server.receive(payload)
    answer = server.answer()
    assert answer.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert answer.get_header(FLContextKey.TASK_NAME) == "train"
    assert answer.get_cookie(FLContextKey.TASK_ID) == "t-1"
    assert answer.get_peer_context().get_job_id() == "job"
    reason = server.gate.found("t-1")
    assert reason is not None and reason.code == UNREADABLE
    assert "nobody" not in reason.text  # nothing that the site has written


@pytest.mark.parametrize("code", ENDS_JOBS)
def test_a_code_for_which_nvflare_ends_jobs_becomes_another_one(code: str) -> None:
    server = Server()
    server.gate.asked(SITE, "validate", "t-1")
    server.receive(make_reply(code))
    assert server.answer().get_return_code() not in ENDS_JOBS
    reason = server.gate.found("t-1")
    assert reason is not None and (reason.code, code in reason.text) == (SITE_FAILED, True)


def test_these_are_all_codes_for_which_nvflare_ends_jobs() -> None:
    assert set(ENDS_JOBS) == set(ServerRunner.ABORT_RETURN_CODES)


@pytest.mark.parametrize(
    ("most", "size", "fits"),
    [(100, LEAST, True), (100, LEAST + 1, False), (2 * LEAST, 2 * LEAST, True), (2 * LEAST, 2 * LEAST + 1, False)],
)
def test_what_is_too_long_is_not_received(most: int, size: int, fits: bool) -> None:
    server = Server(most)
    server.gate.asked(SITE, "train", "t-1")
    stopped: list[Exception] = []
    task = SimpleNamespace(stop=stopped.append)
    stream = SimpleNamespace(task=task, headers={}, get_size=lambda: size, read=lambda count: b"")
    server.handler.handle_blob_cb(SimpleNamespace(headers={}, set_exception=stopped.append), stream, False)
    assert any("exceeds configured limit" in str(error) for error in stopped) is not fits


def test_of_what_was_not_received_the_site_and_the_round_are_known() -> None:
    server = Server()
    server.gate.asked(SITE, "train", "t-1")
    server.receive(None, error=StreamError("Blob size 9 exceeds configured limit 3 (streaming_max_blob_size)"))
    assert server.answer().get_cookie(FLContextKey.TASK_ID) == "t-1"
    reason = server.gate.found("t-1")
    assert reason is not None and reason.code == TOO_LONG


def test_a_message_that_breaks_off_is_left_to_nvflare_which_sends_it_again() -> None:
    server = Server()
    server.gate.asked(SITE, "train", "t-1")
    with pytest.raises(StreamError, match="timed out"):
        server.receive(None, error=StreamError("read timed out after 300 seconds"))
    assert (server.handled, server.gate.found("t-1")) == ([], None)


@pytest.mark.parametrize("token", [TOKEN, "another"])
def test_who_was_asked_nothing_costs_nobody_a_round(token: str) -> None:
    server = Server()
    if token != TOKEN:
        server.gate.asked(SITE, "train", "t-1")
    with pytest.raises(ValueError, match="not allowed"):
        server.receive(spoiled(), token=token)
    assert (server.handled, server.gate.found("t-1")) == ([], None)


def test_with_the_next_task_of_its_site_a_reason_is_forgotten() -> None:
    server = Server()
    for number in ("t-1", "t-2"):
        server.gate.asked(SITE, "train", number)
        server.receive(spoiled())
    assert server.gate.found("t-1") is None and server.gate.found("t-2") is not None


def test_an_error_of_the_handler_is_not_taken_for_one_of_the_answer() -> None:
    server = Server()
    server.gate.asked(SITE, "train", "t-1")

    def fail(message: Message) -> None:
        server.handled.append(message)
        raise RuntimeError("the handler's own")

    server.gate._handle = fail
    with pytest.raises(RuntimeError, match="own"):
        server.receive(make_reply(ReturnCode.OK))
    assert len(server.handled) == 1 and server.gate.found("t-1") is None
