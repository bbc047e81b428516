"""The tokens of a text tower from the files beside its weights, whatever their kind.

Texts are made lower-case and filled up behind their end; what says otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_fedlora import files
from monai_fedlora.errors import FedLoraError, WeightsError
from monai_fedlora.networks.pieces import RULES, find_pieces, read_pieces
from monai_fedlora.networks.text import TokenKind
from monai_fedlora.networks.text_tokens import TextTokens
from monai_fedlora.networks.tokens import find_tokens, read_tokens
from monai_fedlora.networks.weights_sources import find_beside

CONFIG = "tokenizer_config.json"
_DONE: dict[str, Any] = {"do_lower_case": True, "padding_side": "right"}


def find_token_files(source: str | Path, kind: TokenKind) -> tuple[Path, ...]:
    """The files beside the weights of a source that say what its tokens are.

    Raises:
        WeightsError: there are none, or transformers' description beside them is damaged or asks for what is not done.
    """
    if config := find_beside(source, CONFIG):
        _check_config(config)
    return find_tokens(source) if kind == "byte_pairs" else find_pieces(source, kind)


def _check_config(path: Path) -> None:
    try:
        said = files.read_json(path)
    except FedLoraError as error:
        raise WeightsError(str(error)) from error
    if not isinstance(said, dict):
        raise WeightsError(f"{path} is damaged: it holds no settings by name")
    for name, own in _DONE.items():
        if (found := said.get(name, own)) != own:
            raise WeightsError(
                f"{path} says {name} {found!r:.80}, and texts are read here with {own!r}; if the text tower was "
                f"trained with {own!r}, correct the file, else use its images alone, with a method that reads no text"
            )


def read_token_files(paths: Sequence[Path], kind: TokenKind) -> TextTokens:
    """Read the files that :func:`find_token_files` found.

    Raises:
        WeightsError: one of them is damaged or of another kind; the message names it.
    """
    return read_tokens(paths) if kind == "byte_pairs" else read_pieces(paths[0], kind)


def starting_tokens(kind: TokenKind) -> int:
    """How many tokens stand in front of every text, 0 or 1."""
    return int(kind == "byte_pairs" or RULES[kind].start is not None)
