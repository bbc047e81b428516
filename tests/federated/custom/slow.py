"""Code of a test job: one site that needs longer than the server waits for a round."""

from __future__ import annotations

import time

from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.app_common.app_constant import AppConstants

from monai_fedlora.federated.executor import SiteExecutor

SECONDS, ROUND, SITE = 12, 1, "site-2"


class SlowExecutor(SiteExecutor):
    """Answers one round late."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Train, then wait, so that there is something to forget."""
        answer = super().execute(task_name, shareable, fl_ctx, abort_signal)
        if shareable.get_header(AppConstants.CURRENT_ROUND) == ROUND and fl_ctx.get_identity_name() == SITE:
            time.sleep(SECONDS)
        return answer
