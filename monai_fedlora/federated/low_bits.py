"""Stochastic rounding of what leaves a site to a few mantissa bits, so that the others cannot carry a hidden message.

A value keeps its sign, its exponent and so many bits of its mantissa. Of the two neighbours on that grid it becomes the
upper one with a chance that is its distance from the lower one in steps (Gupta et al., ICML 2015, section 3.1), so that
sums over values, sites and rounds stay true on average. What is left out is gone for everybody: the number of
values that there are limits what a message can say, whoever wrote it and whatever they know.

Chance comes from a secret of the site and from the message (HMAC-SHA-256). From the secret, because a server that
knew it would learn from every value in which part of its step it lay, and code of a job that knew it could choose
values by what they become. From the message, because an answer that is sent again must be the same again: of one that
is rounded anew each time, the mean over many gives the bits back.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from monai_fedlora.errors import PrivacyError
from monai_fedlora.federated.update import payload_digest
from monai_fedlora.files import for_the_owner, make_folder

KEY_NAME = "low_bits.key"
_KEY_BYTES = 32


def site_key(folder: Path) -> bytes:
    """The site's secret in its private folder, drawn and written where there is none.

    Raises:
        PrivacyError: the file is damaged.
    """
    make_folder(folder)
    path = folder / KEY_NAME
    with suppress(FileExistsError), open(path, "xb", opener=for_the_owner) as stream:
        stream.write(secrets.token_bytes(_KEY_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise PrivacyError(f"{path} does not hold {_KEY_BYTES} bytes; remove it, and another secret is drawn")
    return key


def rounded_payload(payload: Mapping[str, np.ndarray], *, bits: int, key: bytes) -> dict[str, np.ndarray]:
    """Tensors with ``bits`` stored bits of their mantissas; the same message and key give the same.

    Args:
        payload: by key, of floating-point types.
        bits: of each mantissa, without the leading one, from 1.
        key: see :func:`site_key`.

    Raises:
        PrivacyError: a tensor is of another type, as encoded changes are.
    """
    digest = hmac.new(key, payload_digest(payload).encode(), hashlib.sha256).digest()
    random = np.random.default_rng(np.frombuffer(digest, dtype=np.uint32))
    found = {}
    for name, array in sorted(payload.items()):
        if array.dtype.kind != "f":
            raise PrivacyError(
                f"{name!r} is an encoded change, and only values can be rounded: ask for a job with wire_dtype "
                "'float16' and top_k 1, or take kept_bits out of privacy.json"
            )
        found[name] = rounded(array, bits=bits, random=random)
    return {name: found[name] for name in payload}


def rounded(values: np.ndarray, *, bits: int, random: np.random.Generator) -> np.ndarray:
    """Values rounded up or down at random to ``bits`` stored bits of the mantissa, with the same mean.

    A value that has no more bits stays as it is, and no value leaves the range of its type: the largest are rounded
    towards zero.
    """
    mantissa, exponent = np.frexp(values.astype(np.float64))
    scaled = np.ldexp(mantissa, bits + 1)
    chosen = np.ldexp(np.floor(scaled + random.random(values.shape)), exponent - bits - 1)
    towards_zero = np.ldexp(np.trunc(scaled), exponent - bits - 1)
    beyond = np.abs(chosen) > np.finfo(values.dtype).max
    return np.asarray(np.where(beyond, towards_zero, chosen), dtype=values.dtype)
