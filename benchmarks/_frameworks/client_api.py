"""The federation as NVFlare's recipe makes it of a Client API script.

python -m _frameworks.client_api work.json
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.recipe import SimEnv

from _frameworks.work import Work
from monai_fedlora.federated.traffic import TrafficMeter

NAME = "usual"


class Meter(FLComponent):
    """NVFlare's own count of the bytes between the server and each site, from a round's start to the next one's.

    Args:
        sites: their number.
        path: of the file that gets a line of JSON for each round.
    """

    def __init__(self, sites: int, path: str) -> None:
        super().__init__()
        self.sites = sites
        self.path = path

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Follow the rounds."""
        if event_type == EventType.START_RUN:
            self._traffic = TrafficMeter(fl_ctx.get_engine().get_cell())
        elif event_type == AppEventType.ROUND_STARTED:
            counts = self._traffic.take(tuple(f"site-{number}" for number in range(1, self.sites + 1)))
            with open(self.path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(counts) + "\n")


def main(path: str) -> None:
    """Simulate."""
    work, folder = Work.read(path), Path(path).resolve().parent
    traffic = folder / "traffic.jsonl"
    recipe = FedAvgRecipe(
        name=NAME,
        model={"class_path": "_frameworks.usual.Travelling", "args": {"path": str(folder / Path(path).name)}},
        min_clients=work.sites,
        num_rounds=work.rounds,
        train_script=str(Path(__file__).with_name("client_api_script.py")),
        train_args=str(folder / Path(path).name),
    )
    recipe._job.to_server(Meter(sites=work.sites, path=str(traffic)))
    environment = SimEnv(
        clients=list(work.names), num_clients=work.sites, num_threads=work.at_once, workspace_root=str(folder / "run")
    )
    recipe.execute(environment)
    rounds = [json.loads(line) for line in traffic.read_text(encoding="utf-8").splitlines()][2:]
    counts = [counted for sites in rounds for counted in sites.values()]
    work.write_outcome(
        **{key: statistics.mean(counted[key] for counted in counts) for key in ("bytes_sent", "bytes_received")}
    )


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    from _frameworks import client_api  # the job names its component by the module's own name

    client_api.main(sys.argv[1])
