"""The federation in Flower's simulation engine: an app for the clients, an app for the server, FedAvg.

python -m _frameworks.flower work.json
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from _frameworks import usual
from _frameworks.events import TASK, noted
from _frameworks.work import Work

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
PATH = "FRAMEWORKS_WORK"
client_app, server_app = ClientApp(), ServerApp()


@client_app.train()
def train(message: Message, context: Context) -> Message:
    """Train in a worker process of Ray."""
    torch.set_num_threads(1)
    path = os.environ[PATH]
    site = Work.read(path).names[int(context.node_config["partition-id"])]
    round_number = int(message.content["config"]["server-round"]) - 1
    with noted(TASK, site=site, round_number=round_number):
        tensors, cases = usual.train(path, site, message.content["arrays"].to_torch_state_dict(), round_number)
        content = RecordDict({"arrays": ArrayRecord(tensors), "metrics": MetricRecord({"num-examples": cases})})
    return Message(content=content, reply_to=message)


class Weighed(FedAvg):
    """Flower's averaging, with the sizes of the arrays in its messages."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.sent: list[int] = []
        self.received: list[int] = []

    def configure_train(self, server_round: int, arrays: ArrayRecord, config: Any, grid: Grid) -> Any:
        """Note what goes to each site."""
        self.received.append(arrays.count_bytes())
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Any) -> Any:
        """Note what came from each site."""
        replies = list(replies)
        if failed := [reply for reply in replies if reply.has_error()]:
            raise RuntimeError(f"{len(failed)} of {len(replies)} sites failed: {failed[0].error.reason}")
        self.sent += [reply.content["arrays"].count_bytes() for reply in replies]
        return super().aggregate_train(server_round, replies)


@server_app.main()
def serve(grid: Grid, context: Context) -> None:
    """Run the rounds."""
    work = Work.read(os.environ[PATH])
    while len(list(grid.get_node_ids())) < work.sites:
        time.sleep(0.1)
    strategy = Weighed(fraction_evaluate=0.0, min_train_nodes=work.sites, min_available_nodes=work.sites)
    start = ArrayRecord(usual.travelling(usual.network(os.environ[PATH])))
    strategy.start(grid=grid, initial_arrays=start, num_rounds=work.rounds, timeout=float("inf"))
    sent, received = statistics.mean(strategy.sent), statistics.mean(strategy.received)
    work.write_outcome(bytes_sent=sent, bytes_received=received)


def main(path: str) -> None:
    """Simulate."""
    torch.set_num_threads(1)
    os.environ[PATH] = os.path.abspath(path)
    work = Work.read(path)
    run_simulation(
        server_app=server_app,
        client_app=client_app,
        num_supernodes=work.sites,
        backend_config={
            "init_args": {"num_cpus": work.at_once, "num_gpus": 0, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


if __name__ == "__main__":
    from _frameworks import flower  # Ray's workers find the apps under the module's own name

    flower.main(sys.argv[1])
