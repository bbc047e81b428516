"""A GPU for machines without one: real tensors in the processor's memory that behave like those of `cuda:0`.

A test that takes the fixture ``gpu`` (or enters :func:`pretended_gpu`) finds `torch.cuda` available, and whatever it
puts on "cuda" lies on the pretended device, which

- refuses operations across devices where CUDA refuses them, also in the backward pass, in optimisers and in clipping;
  tensors without an axis may come from the host where CUDA allows that, and the counters of a fused optimiser may not;
- refuses `numpy()`, and random numbers by a generator of the host;
- notes every copy between host and device and everything else for which a program waits for the device, with the line
  in this package that asked for it (:attr:`PretendedGPU.events`, :meth:`PretendedGPU.watched`);
- has a memory of a chosen size, which counts what lies on it and runs out.

The mark of the device is on a tensor's storage, so that views, `.data`, `detach`, parameters and MONAI's tensors have
it as well. A mode below autograd (`TorchDispatchMode`) sees every operation, and methods of `torch.Tensor` that never
get there (`device`, `to`, `cpu`, `numpy`, `tolist` and so on) are replaced meanwhile.

What it cannot see or do:

- what another thread computes: the mode belongs to the thread that entered it;
- what C++ decides by the device, which is the CPU there: kernels, their order of summation and memory formats are the
  CPU's. Mixed precision follows CUDA's lists of operations where networks use them, for tensors of the host as well;
- the device of a tensor that C++ makes from nothing within a call: there it goes with any, and afterwards it is the
  host's unless it met one of the device;
- `torch.compile`, TorchScript (:meth:`PretendedGPU.unwatched`), CUDA graphs, streams, several devices, and anything
  about time; a copy from the host that is not to block counts as not blocking, pinned or not;
- random numbers of CUDA: they are the CPU's, of the one global generator.
"""

from __future__ import annotations

import sys
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

GPU = torch.device("cuda:0")
_CPU = torch.device("cpu")
_PLACE = "pretended_place"
_ON_GPU = "gpu"
_PACKAGE = str(Path(__file__).resolve().parent.parent / "monai_fedlora")
_OVERHEAD = (str(Path(torch.__file__).parent), __file__)

_MADE_LIKE = ("empty_like", "full_like", "ones_like", "rand_like", "randint_like", "randn_like", "zeros_like")
_MADE_NEW = ("new_empty", "new_full", "new_ones", "new_zeros")
_INDEXED = frozenset({"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"})
_COPIES = frozenset({"copy_", "_foreach_copy_"})
_TAKES_HOST_SCALARS = frozenset({"fill_", "fill", "masked_fill", "masked_fill_", "where", "lerp", "lerp_", "copy"})
_WAITS = frozenset(
    {
        *("_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "bincount", "repeat_interleave"),
        *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "histogram"),
        *("_linalg_check_errors", "_linalg_svd", "_linalg_eigh", "linalg_eig", "linalg_lstsq"),
    }
)
"""Operations whose result has to be known on the host, or whose size depends on values."""


@dataclass(frozen=True)
class Event:
    """Something between host and device.

    Attributes:
        kind: "to device", "to host", or "wait" for anything else that the host waits for.
        operation: its name in PyTorch.
        where: file and line in this package that asked for it, or of the nearest code outside of PyTorch.
        waits: whether the host stands still until the device has done all it was told to.
    """

    kind: str
    operation: str
    where: str
    waits: bool

    def __str__(self) -> str:
        return f"{self.kind}: {self.operation} at {self.where}"


@dataclass
class Watched:
    """What happened in a block of code."""

    events: list[Event] = field(default_factory=list)

    @property
    def waits(self) -> Counter[str]:
        """How often the host has waited for the device, and where."""
        return Counter(str(event) for event in self.events if event.waits)

    @property
    def to_host(self) -> Counter[str]:
        """Copies to the host, and where."""
        return Counter(str(event) for event in self.events if event.kind == "to host")

    @property
    def to_device(self) -> Counter[str]:
        """Copies to the device, and where."""
        return Counter(str(event) for event in self.events if event.kind == "to device")


class Steps:
    """What happened in every iteration of an engine, from the loading of its batch to the last handler.

    Attributes:
        found: epoch and events of the iterations.
    """

    def __init__(self, gpu: PretendedGPU) -> None:
        self.found: list[tuple[int, Watched]] = []
        self._gpu = gpu

    def attach(self, engine: Engine) -> None:
        """Watch an engine that has all its handlers."""
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._end)

    def _begin(self, engine: Engine) -> None:
        self._start = len(self._gpu.events)

    def _end(self, engine: Engine) -> None:
        self.found.append((engine.state.epoch, Watched(self._gpu.events[self._start :])))


class PretendedGPU(TorchDispatchMode):
    """See the module; made by :func:`pretended_gpu`.

    Attributes:
        memory: bytes of the device.
        allocated: bytes that lie on it now.
        peak: the most since the beginning or `torch.cuda.reset_peak_memory_stats`.
        events: in the order in which they happened.
    """

    def __init__(self, memory: int) -> None:
        super().__init__()
        self.memory = memory
        self.allocated = self.peak = 0
        self.events: list[Event] = []
        self._said_by_python = 0
        self._moving: torch.device | None = None

    @contextmanager
    def watched(self) -> Iterator[Watched]:
        """Collect what happens in a block."""
        start, found = len(self.events), Watched()
        try:
            yield found
        finally:
            found.events = self.events[start:]

    @contextmanager
    def unwatched(self) -> Iterator[None]:
        """See no operation in a block: TorchScript writes wrong constants while something does."""
        with _disable_current_modes():
            yield

    def note(self, kind: str, operation: str, *, waits: bool = True) -> None:
        """Write down an event that the calling code caused."""
        self.events.append(Event(kind, operation, _asking_line(), waits))

    # ---- where tensors lie --------------------------------------------------------------------------------

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor lies on the device."""
        return _place(tensor) == _ON_GPU

    def put(self, tensor: Tensor) -> Tensor:
        """Let a tensor's storage lie on the device.

        Raises:
            torch.OutOfMemoryError: there is no room for it.
        """
        storage = _storage(tensor)
        if storage is None or getattr(storage, _PLACE, None) == _ON_GPU:
            return tensor
        size = storage.nbytes()
        if self.allocated + size > self.memory:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / 2**20:.2f} MiB. GPU 0 has a total capacity of "
                f"{self.memory / 2**20:.2f} MiB of which {(self.memory - self.allocated) / 2**20:.2f} MiB is free."
            )
        setattr(storage, _PLACE, _ON_GPU)
        self.allocated += size
        self.peak = max(self.peak, self.allocated)
        weakref.finalize(storage, self._freed, size).atexit = False
        return tensor

    def _freed(self, size: int) -> None:
        self.allocated -= size

    # ---- operations ---------------------------------------------------------------------------------------

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if not isinstance(func, torch._ops.OpOverload):
            return func(*args, **kwargs)
        name = func._schema.name.partition("::")[2]
        asked = kwargs.get("device")
        if asked is not None and asked.type == "cuda":
            kwargs["device"] = _CPU
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        tensors = [*_tensors_in((*args, *kwargs.values()))]
        call = _call()
        places = [_place(tensor, call) for tensor in tensors]
        if name == "_to_copy":
            return self._copied(func, args, kwargs, asked)
        on_gpu = _ON_GPU in places
        if on_gpu and name in _COPIES:
            self._note_copies(name, args)
        elif on_gpu:
            if any(place != _ON_GPU for place in places):
                self._check(func, name, args, kwargs, call)
                for tensor, place in zip(tensors, places, strict=True):
                    if place == call:
                        self.put(tensor)
            self._note_waits(name, args, kwargs)
        target = self._target(places, asked, call)
        if target == _ON_GPU and (generator := kwargs.get("generator")) is not None:
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found {generator.device.type!r}")
        if name == "convolution_backward" and target == _ON_GPU:
            result = _gradients_of_convolution(func, args)
        else:
            result = func(*args, **kwargs)
        if target is not None and name not in _COPIES:
            for made in _tensors_in((result,)):
                if target == _ON_GPU:
                    self.put(made)
                elif (storage := _storage(made)) is not None:
                    setattr(storage, _PLACE, target)
        return result

    def _target(self, places: list[_Place], asked: torch.device | None, call: _Call) -> _Place:
        """Where results lie; None leaves them on the host."""
        if asked is not None and asked.type == "cuda":
            return _ON_GPU
        if asked is not None and (self._said_by_python or asked.type != "cpu"):
            return None
        if _ON_GPU in places:
            return _ON_GPU
        return call if None not in places and (places or asked is not None) else None

    def _copied(self, func: Any, args: tuple, kwargs: dict[str, Any], asked: torch.device | None) -> Tensor:
        source = args[0]
        target = self._moving or asked or _device_of(source)
        if self._moving is None and asked is not None and asked.type == "cpu" and self.holds(source):
            target = GPU  # C++ takes the tensor for one of the CPU, and wants no other device
        result: Tensor = func(*args, **kwargs)
        if target.type == "cuda":
            self.put(result)
        if target.type != _device_of(source).type:
            kind = "to device" if target.type == "cuda" else "to host"
            self.note(kind, "to", waits=not kwargs.get("non_blocking"))
        return result

    def _note_copies(self, name: str, args: tuple) -> None:
        targets, sources = ([args[0]], [args[1]]) if isinstance(args[0], Tensor) else args[:2]
        waits = not (len(args) > 2 and args[2])
        for target, source in zip(targets, sources, strict=True):
            places = _place(target), _place(source)
            if places == (None, _ON_GPU):
                self.note("to host", name, waits=waits)
            elif places == (_ON_GPU, None):
                self.note("to device", name, waits=waits)

    def _note_waits(self, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        if name in _INDEXED and isinstance(args[0], Tensor):
            given = [index for index in args[1] if isinstance(index, Tensor)]
            if any(_place(index) is None for index in given):
                self.note("to device", f"{name} by indices of the host")
            elif any(index.dtype in (torch.bool, torch.uint8) for index in given) and not _is_filled(args):
                self.note("wait", f"{name} by a mask")
        elif name == "repeat_interleave" and kwargs.get("output_size") is not None:
            return
        elif name in _WAITS:
            self.note("to host" if name == "_local_scalar_dense" else "wait", _SPOKEN.get(name, name))

    def _check(self, func: Any, name: str, args: tuple, kwargs: dict[str, Any], call: _Call) -> None:
        """Refuse what CUDA refuses of an operation of which some tensor lies on the device."""
        scalars = torch.Tag.pointwise in func.tags or name in _TAKES_HOST_SCALARS or name in _INDEXED
        for place, argument in enumerate(func._schema.arguments):
            value = args[place] if place < len(args) else kwargs.get(argument.name)
            if value is None or (name in _INDEXED and argument.name == "indices"):
                continue
            written = argument.alias_info is not None and argument.alias_info.is_write
            several = isinstance(value, (list, tuple))
            for tensor in value if several else [value]:
                if not isinstance(tensor, Tensor) or _place(tensor, call) is not None:
                    continue
                if written or several or not scalars or tensor.dim():
                    raise RuntimeError(
                        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and "
                        f"cpu! ({argument.name!r} of {func} is on the cpu; asked by {_asking_line()})"
                    )

    # ---- what never becomes an operation ------------------------------------------------------------------

    def move(self, tensor: Tensor, device: torch.device, **settings: Any) -> Tensor:
        """A copy of a tensor on the other device."""
        if tensor.requires_grad and torch.is_grad_enabled():
            moved: Tensor = _Moved.apply(tensor, self, device, settings)
            return moved
        return self._move(tensor, device, settings)

    def _move(self, tensor: Tensor, device: torch.device, settings: dict[str, Any]) -> Tensor:
        before, self._moving = self._moving, device
        try:
            return _original("to")(tensor, _CPU, **{**settings, "copy": True})
        finally:
            self._moving = before

    @contextmanager
    def said_by_python(self) -> Iterator[None]:
        """Take the host for meant where a device is "cpu"."""
        self._said_by_python += 1
        try:
            yield
        finally:
            self._said_by_python -= 1


class _Moved(torch.autograd.Function):
    """A copy to another device whose gradient comes back."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, gpu: PretendedGPU, device: torch.device, settings: dict[str, Any]) -> Tensor:
        ctx.gpu, ctx.source, ctx.dtype = gpu, _device_of(tensor), tensor.dtype
        return gpu._move(tensor.detach(), device, settings)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return ctx.gpu._move(gradient, ctx.source, {"dtype": ctx.dtype}), None, None, None


_IN_FLOAT32 = (
    *("acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log1p", "log2", "reciprocal", "rsqrt", "sinh"),
    *("tan", "softplus", "pow.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "softmax.int", "log_softmax.int"),
    *("layer_norm", "native_layer_norm", "group_norm", "rms_norm", "cosine_similarity", "logsumexp", "cumprod"),
    *("cumsum", "sum", "sum.dim_IntList", "norm.Scalar", "norm.ScalarOpt_dim", "linalg_vector_norm"),
)
"""What CUDA's mixed precision computes in float32, and the CPU's in the type that it gets."""
_AS_IT_COMES = ("cat", "stack", "index_copy")
"""What the CPU's mixed precision brings to one type, and CUDA's leaves alone."""


def _with_cudas_autocast() -> torch.library.Library:
    """Let mixed precision on the CPU follow CUDA's lists of operations, for as long as what this returns is kept."""
    below = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def raised(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16) else value

    def in_float32(operation: Any) -> Callable:
        def computed(*args: Any, **kwargs: Any) -> Any:
            with torch._C._ExcludeDispatchKeyGuard(below):
                return operation(*map(raised, args), **{name: raised(value) for name, value in kwargs.items()})

        return computed

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in _AS_IT_COMES:
            library.impl(name, torch.library.fallthrough_kernel, "AutocastCPU")
    for name in _IN_FLOAT32:
        packet, _, overload = name.partition(".")
        operation = getattr(getattr(torch.ops.aten, packet), overload or "default")
        library.impl(name, in_float32(operation), "AutocastCPU")
    return library


_SPOKEN = {"_local_scalar_dense": "item", "_unique2": "unique", "_linalg_check_errors": "a check in torch.linalg"}


def _is_filled(args: tuple) -> bool:
    """Whether one value is put where a mask says, which needs no list of places."""
    return len(args) > 2 and isinstance(args[2], Tensor) and args[2].numel() == 1 and len(args[1]) == 1


def _tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors among what an operation takes or gives."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors_in(value)


def _storage(tensor: Tensor) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        try:
            return torch._C.TensorBase.untyped_storage(tensor)
        except (NotImplementedError, RuntimeError):  # sparse, or without content
            return None


def _gradients_of_convolution(func: Any, args: tuple) -> tuple[Tensor | None, ...]:
    """In float32: the CPU's gradient of a grouped weight in bfloat16 holds memory that nobody wrote."""
    kind = args[0].dtype
    wide = [value.float() if isinstance(value, Tensor) else value for value in args]
    return tuple(None if found is None else found.to(kind) for found in func(*wide))


_Call = tuple[int, Any, int]
_Place = str | _Call | None
"""The device, the host (None), or any for as long as the call takes in which C++ made a tensor."""


def _call() -> _Call:
    """Which call of Python an operation is part of: all operations of one in C++ have the same."""
    frame = sys._getframe(2)
    return id(frame), frame.f_code, frame.f_lasti


def _place(tensor: Tensor, call: _Call | None = None) -> _Place:
    place = getattr(_storage(tensor), _PLACE, None)
    return place if place in (_ON_GPU, call) else None


def _device_of(tensor: Tensor) -> torch.device:
    return GPU if _place(tensor) == _ON_GPU else _DEVICE.__get__(tensor)


_DEVICE: Any = torch._C.TensorBase.device


def _original(name: str) -> Any:
    """A method of tensors as PyTorch has it."""
    return getattr(torch._C.TensorBase, name)


def _asking_line() -> str:
    frame: Any = sys._getframe(1)
    nearest = ""
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_PACKAGE):
            return f"{file[len(_PACKAGE) + 1 :]}:{frame.f_lineno}"
        if not nearest and not file.startswith(_OVERHEAD):
            nearest = f"{'/'.join(Path(file).parts[-2:])}:{frame.f_lineno}"
        frame = frame.f_back
    return nearest


# ---- what is replaced meanwhile ------------------------------------------------------------------------------


def _methods(gpu: PretendedGPU) -> dict[str, Any]:
    """Methods of `torch.Tensor`."""

    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        rest = {key: kwargs.pop(key) for key in ("copy", "memory_format") if key in kwargs}
        if "other" in kwargs or (args and isinstance(args[0], Tensor)):
            other = kwargs.pop("other") if "other" in kwargs else args[0]
            device, dtype, non_blocking = _device_of(other), other.dtype, kwargs.get("non_blocking", False)
        else:
            device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
            if memory_format is not None:
                rest["memory_format"] = memory_format
        settings = {"dtype": dtype, "non_blocking": non_blocking, **rest}
        here = _device_of(self).type
        if device is None or device.type == here:
            return _original("to")(self, **{key: value for key, value in settings.items() if value is not None})
        if {device.type, here} != {"cuda", "cpu"}:
            return _original("to")(self, device, **settings)
        return gpu.move(self, device, **settings)

    def cpu(self: Tensor, **settings: Any) -> Tensor:
        return gpu.move(self, _CPU, **settings) if gpu.holds(self) else _original("cpu")(self, **settings)

    def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
        return self if gpu.holds(self) else gpu.move(self, GPU, non_blocking=non_blocking)

    def numpy(self: Tensor, *, force: bool = False) -> Any:
        if not gpu.holds(self):
            return _original("numpy")(self, force=force)
        if not force:
            raise _no_array()
        return _original("numpy")(cpu(self.detach()))

    def as_array(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        if gpu.holds(self):
            raise _no_array()
        return as_array_before(self, *args, **kwargs)

    def tolist(self: Tensor) -> Any:
        if gpu.holds(self):
            gpu.note("to host", "tolist")
        return _original("tolist")(self)

    def deepcopy(self: Tensor, memo: dict) -> Tensor:
        if not gpu.holds(self):
            return deepcopy_before(self, memo)
        with _disable_current_modes():
            return gpu.put(deepcopy_before(self, memo))

    def new_tensor(self: Tensor, data: Any, **settings: Any) -> Tensor:
        settings = {"dtype": self.dtype, "device": _device_of(self), **settings}
        made: Tensor = torch.tensor(data, **settings)
        return made

    def put_in(self: Tensor, index: Any, value: Any) -> None:
        if gpu.holds(self) and isinstance(value, (bool, int, float)):
            value = torch.full((), value, dtype=self.dtype, device=GPU)
        put_in_before(self, index, value)

    deepcopy_before, as_array_before, put_in_before = Tensor.__deepcopy__, Tensor.__array__, Tensor.__setitem__
    return {
        "device": property(_device_of),
        "is_cuda": property(gpu.holds),
        "is_cpu": property(lambda self: not gpu.holds(self) and _DEVICE.__get__(self).type == "cpu"),
        "get_device": lambda self: 0 if gpu.holds(self) else -1,
        "to": to,
        "cpu": cpu,
        "cuda": cuda,
        "numpy": numpy,
        "__array__": as_array,
        "tolist": tolist,
        "__deepcopy__": deepcopy,
        "__setitem__": put_in,
        "new_tensor": new_tensor,
        **{name: _saying(gpu, _original(name)) for name in _MADE_NEW},
        "pin_memory": lambda self, *device: self,
        "is_pinned": lambda self, *device: False,
    }


def _saying(gpu: PretendedGPU, function: Callable) -> Callable:
    """A function of a tensor whose word on the device counts, "cpu" too, which C++ says of everything here."""

    def made(*args: Any, **settings: Any) -> Any:
        if settings.get("device") is None:
            return function(*args, **settings)
        with gpu.said_by_python():
            return function(*args, **settings)

    return made


def _functions(gpu: PretendedGPU) -> dict[str, Callable]:
    """Functions of `torch` that make tensors."""

    def moved(function: Callable) -> Callable:
        def made(data: Any, *args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            if not isinstance(data, Tensor) or not gpu.holds(data):
                found = function(data, *args, **kwargs)
                return found if device is None else found.to(device)
            found = data if function is as_tensor_before else data.detach().clone()
            return found.to(device=device, dtype=kwargs.get("dtype"))

        return made

    as_tensor_before = torch.as_tensor
    found = {name: _saying(gpu, getattr(torch, name)) for name in _MADE_LIKE}
    return {**found, "tensor": moved(torch.tensor), "as_tensor": moved(torch.as_tensor)}


def _grouping(gpu: PretendedGPU) -> Callable:
    """How optimisers and clipping group tensors by their device."""

    def grouped(*args: Any) -> dict[Any, Any]:
        return {
            (GPU if groups[0] and groups[0][0] is not None and gpu.holds(groups[0][0]) else device, dtype): (
                groups,
                rest,
            )
            for (device, dtype), (groups, rest) in before(*args).items()
        }

    before = torch._C._group_tensors_by_device_and_dtype
    return grouped


def _cuda(gpu: PretendedGPU) -> dict[str, Any]:
    """Functions of `torch.cuda`."""

    def reset_peak(*device: Any) -> None:
        gpu.peak = gpu.allocated

    nothing = lambda *args, **kwargs: None  # noqa: E731
    properties = SimpleNamespace(
        name="Pretended GPU", major=9, minor=0, total_memory=gpu.memory, multi_processor_count=1
    )
    return {
        "_lazy_init": nothing,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *args, **kwargs: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": nothing,
        "get_device_name": lambda *device: properties.name,
        "get_device_capability": lambda *device: (properties.major, properties.minor),
        "get_device_properties": lambda *device: properties,
        "synchronize": lambda *device: gpu.note("wait", "synchronize"),
        "mem_get_info": lambda *device: (gpu.memory - gpu.allocated, gpu.memory),
        "memory_allocated": lambda *device: gpu.allocated,
        "max_memory_allocated": lambda *device: gpu.peak,
        "memory_reserved": lambda *device: gpu.allocated,
        "max_memory_reserved": lambda *device: gpu.peak,
        "reset_peak_memory_stats": reset_peak,
        "empty_cache": nothing,
        "manual_seed": nothing,
        "manual_seed_all": nothing,
        "get_rng_state": lambda *device: torch.get_rng_state(),
        "set_rng_state": nothing,
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state_all": nothing,
    }


def _autocast(real: type) -> type:
    """`torch.autocast`, which for CUDA sets the CPU's flags too, by which C++ goes here."""

    class Autocast(real):  # type: ignore[misc, valid-type]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(device_type, *args, **kwargs)
            self._under = real("cpu", *args, **kwargs) if device_type == "cuda" else None

        def __enter__(self) -> Any:
            if self._under is not None:
                self._under.__enter__()
            return super().__enter__()

        def __exit__(self, *error: Any) -> Any:
            super().__exit__(*error)
            if self._under is not None:
                self._under.__exit__(*error)

    return Autocast


def _no_array() -> TypeError:
    return TypeError(
        "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first. "
        f"(asked by {_asking_line()})"
    )


@contextmanager
def pretended_gpu(*, memory: int = 80 * 2**30) -> Iterator[PretendedGPU]:
    """Let this thread have a GPU inside the block.

    Args:
        memory: bytes of it.
    """
    import torch._dynamo  # which looks at the functions that are replaced below

    gpu = PretendedGPU(memory)
    with pytest.MonkeyPatch.context() as patch:
        replaced: Sequence[tuple[Any, dict[str, Any]]] = (
            (Tensor, _methods(gpu)),
            (torch, _functions(gpu)),
            (torch.cuda, _cuda(gpu)),
            (torch._C, {"_group_tensors_by_device_and_dtype": _grouping(gpu)}),
        )
        for owner, replacements in replaced:
            for name, replacement in replacements.items():
                patch.setattr(owner, name, replacement)
        autocast = _autocast(torch.autocast)
        for module in (torch, torch.amp, torch.amp.autocast_mode):
            patch.setattr(module, "autocast", autocast)
        library = _with_cudas_autocast()
        try:
            with gpu:
                yield gpu
        finally:
            library._destroy()


@pytest.fixture
def gpu() -> Iterator[PretendedGPU]:
    """A pretended GPU, which "auto" and "cuda" mean during the test."""
    with pretended_gpu() as device:
        yield device
