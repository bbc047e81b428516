"""The helper process: ``python -m monai_fedlora.clinic.helping BUNDLE [KEY ...]``, see the module `helper`."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from monai_fedlora.clinic.defects import reason_of

_SHARE_OF_MEMORY = 0.9
"""Share of the machine's memory that a model on the CPU may take (ours)."""
_Request = tuple[dict[str, Any], list[Any]]


def main(bundle: str, *keys: str) -> None:
    """Open a bundle, and answer requests on standard input until it is closed."""
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to standard error
    requests: queue.Queue[_Request] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    try:
        methods, device, model = _prepare(Path(bundle), [Path(key) for key in keys])
    except Exception as error:
        _say(channel, {"useless": reason_of(error)})
        return
    while True:
        request, inputs = requests.get()
        if request["model"] != model:
            _say(channel, {"useless": f"{bundle} was changed meanwhile; start again"})
            return
        _answer(channel, methods[request["method"]], inputs, device)


def _answer(channel: BinaryIO, method: Callable[..., Any], inputs: Sequence[Any], device: Any) -> None:
    import torch

    from monai_fedlora.clinic.messages import describe_tensors, tensor_bytes

    try:
        with torch.no_grad():
            found = method(*(tensor.to(device) for tensor in inputs))
        tensors = [found] if isinstance(found, torch.Tensor) else list(found)
        described = describe_tensors(tensors)
        content = [tensor_bytes(tensor) for tensor in tensors]
    except Exception as error:
        _say(channel, {"raised": str(error).strip()[-2000:] or type(error).__name__})
        return
    _say(channel, {"tensors": described}, content)


def _prepare(bundle: Path, keys: Sequence[Path]) -> tuple[Mapping[str, Callable[..., Any]], Any, str]:
    _be_expendable()
    import torch

    from monai_fedlora.clinic.helper import fingerprint
    from monai_fedlora.clinic.measuring import open_model
    from monai_fedlora.clinic.threads import torch_threads
    from monai_fedlora.exporting.keys import read_public_keys

    torch.set_num_threads(torch_threads())
    opened = open_model(bundle, keys=read_public_keys(keys))
    if opened.device.type == "cpu":
        _limit_memory()
    script = opened.script
    methods = {"forward": script, "preprocessor": script.preprocessor, "network": script.network}
    if hasattr(script, "assess"):
        methods["assess"] = script.assess
    return methods, opened.device, fingerprint(opened)


def _listen(stream: BinaryIO, requests: queue.Queue[_Request]) -> None:
    """Queue the requests of a stream; at its end, end the process at once, whatever it computes."""
    from monai_fedlora.clinic.messages import read_tensors

    try:
        for line in stream:
            request = json.loads(line)
            requests.put((request, list(read_tensors(stream, request["tensors"]))))
    finally:
        os._exit(0)


def _say(channel: BinaryIO, message: dict[str, Any], content: Sequence[bytes] = ()) -> None:
    channel.write(json.dumps(message).encode() + b"\n")
    for part in content:
        channel.write(part)
    channel.flush()


def _be_expendable() -> None:
    """Let the system end this process first if memory runs out, and write no core dump."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_memory() -> None:
    import resource

    with contextlib.suppress(OSError, ValueError):
        page = resource.getpagesize()
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * page
        free = int(_SHARE_OF_MEMORY * os.sysconf("SC_PHYS_PAGES") * page)
        resource.setrlimit(resource.RLIMIT_AS, (taken + free, taken + free))


if __name__ == "__main__":
    main(*sys.argv[1:])
