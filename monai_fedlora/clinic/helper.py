"""Run a bundle's model in a process of its own: a model that crashes, hangs or fills the memory costs one study.

A bundle that passes ``monai-fedlora check`` can still end the process that runs it (an integer division by zero in
TorchScript does), which only another process survives. The helper process takes seconds to start, so that it is kept
for several studies, and started again when it has ended. A message is a line of JSON with the bytes of tensors behind
it, so that nothing that the model returns is run as code, and no image is written to a disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import torch
from torch import Tensor

from monai_fedlora.clinic.messages import describe_tensors, read_tensors, tensor_bytes
from monai_fedlora.clinic.opened_model import OpenedModel, device_failed
from monai_fedlora.errors import DataError
from monai_fedlora.scratch import private_folder

SECONDS = 600.0
"""Longest time of one call of the model; the first includes the start of the process (ours)."""
_PATIENCE = 5.0
_LONGEST_LINE = 1 << 20
_LARGEST_TENSOR = 1 << 32
_MOST_TENSORS = 9
_GIBBERISH = "the process of the model said something that cannot be understood, and was stopped"


class Stopped(DataError):
    """The helper ended, or was ended, before the model answered."""


class Helper:
    """A context that owns the helper process: the first call starts it, leaving the context ends it.

    Args:
        bundle: path of the bundle.
        keys: files of public keys, one of which must have signed the bundle.
        seconds: see :data:`SECONDS`.
    """

    def __init__(self, bundle: Path, *, keys: Sequence[Path] = (), seconds: float = SECONDS) -> None:
        self._command = [sys.executable, "-m", "monai_fedlora.clinic.helping", str(bundle), *map(str, keys)]
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stack = contextlib.ExitStack()
        self._scratch: Path | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Helper:
        self._scratch = self._stack.enter_context(private_folder("monai-fedlora-"))
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._stack.close()

    def start(self) -> None:
        """Start the process ahead of the first call."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "TMPDIR": str(self._scratch)},
                start_new_session=True,  # Ctrl-C is for this process
            )

    def call(self, method: str, inputs: Sequence[Tensor], *, model: str) -> tuple[Tensor, ...]:
        """Run a method of the model.

        Args:
            method: "forward", "assess", "preprocessor" or "network".
            inputs: tensors on the CPU.
            model: :func:`fingerprint` of the bundle; the helper must have opened the same.

        Returns:
            The tensors that the method returned, on the CPU.

        Raises:
            RuntimeError: the model raised an error; the message is the model's.
            Stopped: it crashed, took too long or all memory, or cannot start; the next call starts it again.
        """
        with self._lock:
            try:
                return self._call(method, inputs, model)
            except RuntimeError as error:
                if device_failed(error):
                    self._end()
                raise
            except BaseException:
                self._end()
                raise

    def _call(self, method: str, inputs: Sequence[Tensor], model: str) -> tuple[Tensor, ...]:
        self.start()
        assert self._process is not None and self._process.stdout is not None
        watch = threading.Timer(self._seconds, self._process.kill)
        watch.start()
        try:
            with contextlib.suppress(OSError):  # it has ended; perhaps it has said why
                self._send({"method": method, "model": model, "tensors": describe_tensors(inputs)}, inputs)
            return _answer(cast(BinaryIO, self._process.stdout))
        except EOFError:
            if watch.finished.is_set():
                raise Stopped(f"the model did not answer within {self._seconds:g} seconds, and was stopped") from None
            raise self._ended() from None
        finally:
            watch.cancel()

    def _send(self, message: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        for tensor in tensors:
            self._process.stdin.write(tensor_bytes(tensor))
        self._process.stdin.flush()

    def _ended(self) -> Stopped:
        """The reason why the process has closed its output."""
        assert self._process is not None
        try:
            status = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            return Stopped("the process of the model does not answer any more, and was stopped")
        if status == -signal.SIGKILL:
            return Stopped("the system ended the process of the model, probably because it took all memory")
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        return Stopped(f"the model crashed at this study ({how}); other studies may work, and other bundles")

    def _end(self) -> None:
        """End the process, and remove its temporary files."""
        if self._process is None:
            return
        with contextlib.suppress(OSError), self._process as process:  # its end closes the pipes
            process.kill()
        self._process = None
        if self._scratch is not None:
            for left in self._scratch.iterdir():
                shutil.rmtree(left, ignore_errors=True)


class _Part:
    """A callable that runs one method of the model in the helper."""

    def __init__(self, helper: Helper, method: str, model: str, buffers: dict[str, Tensor] | None = None) -> None:
        self._helper, self._method, self._model, self._buffers = helper, method, model, buffers or {}

    def __call__(self, *inputs: Tensor) -> Any:
        found = self._helper.call(self._method, inputs, model=self._model)
        return found[0] if len(found) == 1 else found

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers of the module in whose place this is."""
        yield from self._buffers.items()


class _Script(_Part):
    """In place of a bundle's TorchScript module: the same methods, run in the helper."""

    def __init__(self, helper: Helper, script: torch.jit.ScriptModule, model: str) -> None:
        super().__init__(helper, "forward", model)
        buffers = {name: value.cpu().clone() for name, value in script.preprocessor.named_buffers()}
        self.preprocessor = _Part(helper, "preprocessor", model, buffers)
        self.network = _Part(helper, "network", model)
        self.assess = _Part(helper, "assess", model)


Opened = TypeVar("Opened", bound=OpenedModel)


def isolated(opened: Opened, helper: Helper) -> Opened:
    """The same model, run by a helper, which opens the same bundle."""
    script = cast(torch.jit.ScriptModule, _Script(helper, opened.script, fingerprint(opened)))
    return replace(opened, script=script, device=torch.device("cpu"))


def fingerprint(opened: OpenedModel) -> str:
    """SHA-256 of model and metadata, by which two processes agree that they have opened the same bundle."""
    text = json.dumps([opened.sha256, opened.metadata], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _answer(stream: BinaryIO) -> tuple[Tensor, ...]:
    """Read one answer of the helper.

    Raises:
        EOFError: the stream ends before the answer does.
        RuntimeError: the model raised an error.
        Stopped: the helper says that it cannot go on, or something that is no answer.
    """
    line = stream.readline(_LONGEST_LINE)
    if len(line) < _LONGEST_LINE and not line.endswith(b"\n"):
        raise EOFError
    try:
        message = dict(json.loads(line))
        described = message.get("tensors", [])[: _MOST_TENSORS + 1]
        tensors = tuple(read_tensors(stream, described, limit=_LARGEST_TENSOR))
    except (KeyError, RecursionError, TypeError, ValueError):
        message, tensors = {}, ()
    if isinstance(text := message.get("raised"), str):
        raise RuntimeError(text)
    if not 0 < len(tensors) <= _MOST_TENSORS:
        raise Stopped(str(message.get("useless", _GIBBERISH)))
    return tensors
