"""The server's last workflow: the final evaluation at the sites that are there, and never a wait for nobody."""

from __future__ import annotations

import time

from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.workflows.broadcast_and_process import BroadcastAndProcess

_PATIENCE = 60.0
"""Seconds in which a site comes back after the last round, if none is connected (ours)."""
_CHECKED = 0.2


class FinalRound(BroadcastAndProcess):
    """Ask all connected sites for their evaluation of the last model.

    NVFlare's own (2.9) waits for ever if none is connected and no timeout is set.
    """

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Ask those that are there; where none is, note that for all of them and end."""
        end = time.monotonic() + _PATIENCE
        while not (connected := [client.name for client in fl_ctx.get_engine().get_clients()]):
            if abort_signal.triggered or time.monotonic() >= end:
                self.processor.create_task_data(self.task_name, fl_ctx)
                self.processor.final_process(fl_ctx)
                return
            time.sleep(_CHECKED)
        self.clients = connected
        super().control_flow(abort_signal, fl_ctx)
