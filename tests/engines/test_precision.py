from __future__ import annotations

import pytest
import torch

from monai_fedlora.engines.precision import autocast, computing, float32_settings
from monai_fedlora.errors import ConfigError


@pytest.mark.parametrize(
    ("precision", "dtype"), [("off", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_matrix_product_has_the_precision_asked_for(precision: str, dtype: torch.dtype) -> None:
    opened = autocast("cpu", precision)
    for _ in range(2):
        with opened():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_another_precision_is_refused() -> None:
    with pytest.raises(ConfigError, match="'fp16'; choose from off, tf32, bf16"):
        autocast("cpu", "fp16")


def flags() -> tuple[bool, bool, str, str]:
    backends = torch.backends
    return (
        backends.cuda.matmul.allow_tf32,
        backends.cudnn.allow_tf32,
        torch.get_float32_matmul_precision(),
        *float32_settings(torch.device("cuda"))[1:],
    )


@pytest.mark.parametrize("precision", ["off", "tf32", "bf16"])
def test_products_and_convolutions_use_tf32_alike_and_as_before_afterwards(precision: str) -> None:
    before, network = flags(), torch.nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError), computing(network, precision):
        assert flags()[:2] == (precision == "tf32", precision == "tf32")
        with computing(network, precision):
            pass
        assert flags()[:2] == (precision == "tf32", precision == "tf32")
        raise ZeroDivisionError
    assert flags() == before


def test_features_of_a_gpu_are_of_its_precision() -> None:
    gpu, network, found = torch.device("cuda"), torch.nn.Linear(2, 2), []
    for precision in ("off", "tf32"):
        with computing(network, precision):
            found.append(float32_settings(gpu))
            assert float32_settings(torch.device("cpu")) == ("none", "none")
    assert found[0] != found[1]
