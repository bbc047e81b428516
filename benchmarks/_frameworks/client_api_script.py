"""The script of a site in NVFlare's Client API: receive, train, send."""

from __future__ import annotations

import argparse
from pathlib import Path

import nvflare.client as flare
import torch

from _frameworks import usual
from _frameworks.events import TASK, noted


def main() -> None:
    """Answer every task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    path = str(parser.parse_args().work)
    torch.set_num_threads(1)
    flare.init()
    site = flare.get_site_name()
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        number = int(received.current_round)
        with noted(TASK, site=site, round_number=number):
            tensors, cases = usual.train(
                path, site, {key: torch.as_tensor(value) for key, value in received.params.items()}, number
            )
        flare.send(flare.FLModel(params=tensors, params_type="FULL", meta={"NUM_STEPS_CURRENT_ROUND": cases}))


if __name__ == "__main__":
    main()
