"""A component of a site's own, beside those of every job, that spoils what the site answers once a file says how."""

from __future__ import annotations

from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext

UNDECODABLE, HUGE, ENDING = "undecodable", "huge", "ending"
_HUGE = 1 << 28  # bytes


class Poison(FLComponent):
    """Changes answers after all filters of the site, as only somebody can who rules over the site.

    Args:
        place: file with one of :data:`UNDECODABLE`, :data:`HUGE` and :data:`ENDING`; without it, nothing happens.
    """

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Spoil what all filters have let through."""
        if event_type != EventType.AFTER_TASK_RESULT_FILTER or not Path(self.place).is_file():
            return
        answer, how = fl_ctx.get_prop(FLContextKey.TASK_RESULT), Path(self.place).read_text(encoding="utf-8")
        if how == UNDECODABLE:  # what NVFlare's serialiser writes of a class that nobody has declared
            answer["more"] = {"__fobs_type__": "nobody.Knows", "__fobs_data__": {}}
        elif how == HUGE:
            answer["more"] = bytes(_HUGE)
        else:
            answer.set_return_code(ReturnCode.UNSAFE_JOB)
