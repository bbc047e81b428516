"""A process that runs a bundle's model for this one: a model that crashes, hangs or fills the memory costs one study.

A bundle that passes ``monai-fedlora check`` can still end the process that runs it (an integer division by zero in
TorchScript does), and nothing short of another process survives that. The helper lives over studies, because it takes
seconds to start, and is started again after it ended. Messages are a line of JSON, and the bytes of tensors behind it,
so that nothing that a model says is code here, and no image lies on a disk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from monai_fedlora.clinic.bundle import Classifier
from monai_fedlora.clinic.messages import DTYPES, describe_tensors, tensor_bytes
from monai_fedlora.errors import DataError
from monai_fedlora.scratch import private_folder

SECONDS = 600.0
"""What one call of the model may take, the first one with the start of the process (ours)."""
_PATIENCE = 5.0
_LONGEST_LINE = 1 << 20
_LARGEST_TENSOR = 1 << 32
_CHUNK = 1 << 20


class Stopped(DataError):
    """The helper ended, or was ended, before the model answered."""


class Helper:
    """The process, which the first call starts; a context that ends it.

    Args:
        bundle: what it opens.
        keys: files of the public keys one of which the bundle must be signed with.
        seconds: see :data:`SECONDS`.
    """

    def __init__(self, bundle: Path, *, keys: Sequence[Path] = (), seconds: float = SECONDS) -> None:
        self._command = [sys.executable, "-m", "monai_fedlora.clinic.helping", str(bundle), *map(str, keys)]
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = bytearray()
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
        """Let it begin to load, before the first call."""
        if self._process is None:
            self._buffer.clear()
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
            method: "forward", "assess", or "preprocessor" or "network" for these parts.
            inputs: on the CPU.
            model: fingerprint of the bundle that is meant, see :func:`fingerprint`.

        Returns:
            What it returned, on the CPU.

        Raises:
            RuntimeError: the model raised it; the message is its own.
            Stopped: it crashed, took too long or all memory, or cannot start; the next call starts it again.
        """
        with self._lock:
            try:
                return self._call(method, inputs, model)
            except RuntimeError:
                raise
            except BaseException:
                self._end()
                raise

    def _call(self, method: str, inputs: Sequence[Tensor], model: str) -> tuple[Tensor, ...]:
        deadline = time.monotonic() + self._seconds
        self.start()
        self._send({"method": method, "model": model, "tensors": describe_tensors(inputs)}, inputs)
        answer = self._line(deadline)
        if isinstance(text := answer.get("raised"), str):
            raise RuntimeError(text)
        if isinstance(text := answer.get("useless"), str):
            raise Stopped(text)
        return tuple(self._tensors(answer.get("tensors"), deadline))

    def _send(self, message: dict[str, Any], tensors: Sequence[Tensor]) -> None:
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            for tensor in tensors:
                self._process.stdin.write(tensor_bytes(tensor))
            self._process.stdin.flush()
        except OSError:
            self._read_some(time.monotonic() + _PATIENCE)  # why it ended, if it says so
            if b"\n" not in self._buffer:
                raise self._ended() from None

    def _line(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._read_some(deadline)
            if len(self._buffer) > _LONGEST_LINE and b"\n" not in self._buffer[:_LONGEST_LINE]:
                raise _gibberish()
        end = self._buffer.index(b"\n")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            raise _gibberish() from None
        if not isinstance(message, dict):
            raise _gibberish()
        return message

    def _tensors(self, described: Any, deadline: float) -> Iterator[Tensor]:
        if not isinstance(described, list) or not 0 < len(described) < 10:
            raise _gibberish()
        for entry in described:
            try:
                dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
                plain = all(type(size) is int and size >= 0 for size in shape)
            except (TypeError, KeyError):
                raise _gibberish() from None
            size = math.prod(shape) * dtype.itemsize if plain else _LARGEST_TENSOR
            if not plain or size >= _LARGEST_TENSOR:
                raise _gibberish()
            while len(self._buffer) < size:
                self._read_some(deadline)
            content = self._buffer[:size]
            del self._buffer[:size]
            yield torch.frombuffer(content, dtype=dtype).reshape(shape) if size else torch.zeros(shape, dtype=dtype)

    def _read_some(self, deadline: float) -> None:
        assert self._process is not None and self._process.stdout is not None
        stream = self._process.stdout.fileno()
        if not select.select([stream], [], [], max(deadline - time.monotonic(), 0.0))[0]:
            raise Stopped(f"the model did not answer within {self._seconds:g} seconds, and was stopped")
        chunk = os.read(stream, _CHUNK)
        if not chunk:
            raise self._ended()
        self._buffer += chunk

    def _ended(self) -> Stopped:
        """Why the process is not there any more."""
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
        """End the process, and remove what it left."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process = None
        if self._scratch is not None:
            for left in self._scratch.iterdir():
                shutil.rmtree(left, ignore_errors=True)


class _Part:
    """A method of the model, which runs in the helper."""

    def __init__(self, helper: Helper, method: str, model: str, buffers: dict[str, Tensor] | None = None) -> None:
        self._helper, self._method, self._model, self._buffers = helper, method, model, buffers or {}

    def __call__(self, *inputs: Tensor) -> Any:
        found = self._helper.call(self._method, inputs, model=self._model)
        return found[0] if len(found) == 1 else found

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """As of the module that this stands for."""
        yield from self._buffers.items()


class _Script(_Part):
    """What stands for a bundle's module."""

    def __init__(self, helper: Helper, script: torch.jit.ScriptModule, model: str) -> None:
        super().__init__(helper, "forward", model)
        buffers = {name: value.cpu().clone() for name, value in script.preprocessor.named_buffers()}
        self.preprocessor = _Part(helper, "preprocessor", model, buffers)
        self.network = _Part(helper, "network", model)
        self.assess = _Part(helper, "assess", model)


def isolated(classifier: Classifier, helper: Helper) -> Classifier:
    """The same classifier, whose model runs in a helper that opens the same bundle."""
    script = cast(torch.jit.ScriptModule, _Script(helper, classifier.script, fingerprint(classifier)))
    return replace(classifier, script=script, device=torch.device("cpu"))


def fingerprint(classifier: Classifier) -> str:
    """What tells whether two processes have opened the same bundle."""
    text = json.dumps([classifier.sha256, classifier.metadata], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _gibberish() -> Stopped:
    return Stopped("the process of the model said something that cannot be understood, and was stopped")
