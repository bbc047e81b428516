"""The permitted operators of torch: those that only compute, and use no files, processes or state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from monai_fedlora.exporting.check.words import words

ARITHMETIC = words(
    """
    abs add addmm all amax amin any arange argmax argmin avg_pool2d avg_pool3d baddbmm batch_norm bitwise_and
    bitwise_not bmm broadcast_to cat ceil chunk clamp clamp_max clamp_min clone contiguous conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d _convolution cos cumsum detach diagonal div dropout einsum elu
    embedding eq erf exp expand expand_as eye flatten flip floor floor_divide fmod full full_like gather ge gelu
    group_norm gt hardswish index index_select instance_norm isfinite isinf isnan item layer_norm le leaky_relu
    linalg_norm linalg_vector_norm linear log log_softmax logical_and logical_not logical_or logsumexp lt masked_fill
    matmul max max_pool2d max_pool3d maximum mean median min minimum mm movedim mul narrow ne neg nonzero norm numel
    ones ones_like pad permute pixel_shuffle pow prod reciprocal relu remainder repeat repeat_interleave reshape roll
    round rsqrt rsub scalar_tensor scaled_dot_product_attention select sigmoid sign silu sin size slice softmax
    softplus sort split split_with_sizes sqrt square squeeze stack std sub sum t tan tanh tensor to topk transpose
    tril triu type_as unbind unflatten unfold unsqueeze upsample_bicubic2d upsample_bilinear2d upsample_linear1d
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d _upsample_bicubic2d_aa
    _upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d var view view_as where zeros
    zeros_like _unsafe_view __and__ __or__ __xor__
    """
)
"""Operators of ``aten``, by name without the overload."""

SCRIPTING = words(
    """
    __contains__ __getitem__ __is__ __isnot__ __not__ append dict dim extend floordiv format get insert items keys len
    list values
    """
)
"""Further operators of TorchScript's code, on numbers, strings and lists."""

PRIMITIVES = words("NumToTensor RaiseException abs device dtype max min unchecked_cast")
"""Operators ``ops.prim`` of TorchScript."""

SYMBOLIC = frozenset(
    {
        *(f"_operator.{name}" for name in words("add sub mul floordiv mod neg eq ne lt le gt ge and_ or_ not_")),
        *(f"torch.sym_{name}" for name in words("max min not sum")),
        "torch.ops.aten.sym_size.int",
        "torch.ops.aten._assert_async.msg",
        "torch.ops.aten._assert_scalar.default",
    }
)
"""Further operators of an exported program: on sizes, and to refuse an image."""

_GROWING = words("arange broadcast_to expand eye full ones pad repeat repeat_interleave zeros")
_LARGEST_NUMBER = 1 << 31
_LARGEST_TENSOR = 1 << 31  # elements
_OPEN_END = (1 << 63) - 1  # of a slice


def is_too_large(value: Any) -> bool:
    """Whether a literal number is larger than any size, and not the open end of a slice."""
    return type(value) is int and abs(value) > _LARGEST_NUMBER and value != _OPEN_END


def is_huge(name: str, numbers: Iterable[Any]) -> bool:
    """Whether an operator makes a huge tensor, by the literal numbers among its arguments.

    Computed sizes only show when the model runs.
    """
    sizes = [abs(number) for number in numbers if type(number) is int and number]
    return name in _GROWING and math.prod(sizes) > _LARGEST_TENSOR
