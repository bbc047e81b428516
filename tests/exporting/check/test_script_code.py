"""TorchScript code: arithmetic passes, and every way to another operator does not."""

from __future__ import annotations

import io
import zipfile

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_fedlora.exporting.check.script_code import code_objection

HARMLESS = """class Net(Module):
  __parameters__ = ["weight", ]
  __buffers__ = []
  weight : Tensor
  training : bool
  inner : __torch__.torch.nn.modules.linear.Linear
  def forward(self: __torch__.monai_fedlora.exporting.net.Net,
    x: Tensor) -> Tensor:
    _0 = __torch__.monai_fedlora.transforms.localise.percentile
    inner = self.inner
    if bool(torch.any(torch.gt(x, 1.))):
      ops.prim.RaiseException("no", "builtins.ValueError")
    else:
      pass
    y = _0((inner).forward(x, ), 5., )
    return torch.mul(y, getattr(self, "weight"))
"""


def test_arithmetic_passes() -> None:
    assert code_objection(HARMLESS) is None


@pytest.mark.parametrize(
    "line",
    [
        "torch.save(x, '/tmp/x')",
        "y = torch.save",
        "y = torch",
        "ops.aten.from_file('x')",
        "ops.prim.ModuleContainerIndex(x)",
        "ops.quantized.load(x)",
        "torch.ops.aten.save(x)",
        "x.save('/tmp/x')",
        "(x).tofile('/tmp/x')",
        "self.weight.save('x')",
        "getattr(x, 'save')('x')",
        "getattr(x, name)",
        "x[0]('y')",
        "fork(x)",
        "y = fork",
        "_0 = x.save\n    _0('y')",
        "_1 = x.save\n    _1('y')",
        "_0, _1 = x.save, x.save\n    _0('y')",
        "print(x)",
        "__torch__.torch.classes.a.B(x)",
        "y = __torch__.os.system",
        "import os",
        "lambda: x",
        "y = [z for z in x]",
        "y = f'{x}'",
        "with x: pass",
        "del x",
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    assert code_objection(HARMLESS.replace("    inner = self.inner\n", f"    inner = self.inner\n    {line}\n"))


def test_a_decorator_is_refused() -> None:
    assert "decorates f" in str(code_objection("@torch.jit.unused\ndef f(x: Tensor) -> Tensor:\n  return x\n"))


class Leak(torch.nn.Module):
    """A module that a script can be made of, and that reads a file when it runs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/dev/null", size=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_a_script_that_reads_files_is_refused() -> None:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(Leak()), stream)
    with zipfile.ZipFile(stream) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".py"))
        text = archive.read(name).decode().replace(f"__torch__.{__name__}.", "__torch__.monai_fedlora.")
    assert code_objection(text) == "calls torch.from_file, which is no arithmetic"


@given(st.text())
def test_no_text_crashes_the_check(text: str) -> None:
    assert code_objection(text) is None or code_objection(text)
