from __future__ import annotations

import pytest
import torch

from monai_fedlora.engines.precision import autocast
from monai_fedlora.errors import ConfigError


@pytest.mark.parametrize(("precision", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16)])
def test_a_matrix_product_has_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    opened = autocast("cpu", precision)
    for _ in range(2):
        with opened():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_another_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fp16'; it is either 'off' or 'bf16'"):
        autocast("cpu", "fp16")
