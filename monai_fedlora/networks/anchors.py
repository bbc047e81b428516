"""What images are compared with: the features of every class's texts, computed once by a checkpoint's text tower."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from monai_fedlora import files
from monai_fedlora.errors import ConfigError, WeightsError
from monai_fedlora.files import make_folder
from monai_fedlora.networks.catalogue import BUILT_IN, architecture
from monai_fedlora.networks.clip_text import ClipText, TextShape, load_clip_text
from monai_fedlora.networks.prompts import Prompts
from monai_fedlora.networks.text import TextSettings
from monai_fedlora.networks.text_tokens import TextTokens
from monai_fedlora.networks.token_files import find_token_files, read_token_files
from monai_fedlora.networks.vit import ViTSettings
from monai_fedlora.networks.weights_sources import find_weights
from monai_fedlora.source_digest import source_digest

_FORMAT = 1  # of an entry of the cache
_SCALE = "logit_scale"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextAnchors:
    """Classes as a CLIP checkpoint puts them, and what leads from its image tower to them.

    Attributes:
        features: (C, E) float32, a row of length 1 per class.
        projection: (E, D) float32, of the image tower's pooled features.
        logit_scale: logarithm of what cosines are multiplied by.
        digest: SHA-256 over the checkpoint, its tokens, every text, the tower's settings and the code; equal ones mean
            equal features.
    """

    features: torch.Tensor
    projection: torch.Tensor
    logit_scale: float
    digest: str

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.projection.ndim != 2 or self.features.shape[1] != self.projection.shape[0]:
            raise ConfigError(
                f"text features {tuple(self.features.shape)} and a projection {tuple(self.projection.shape)} cannot be "
                "compared; they must be (C, E) and (E, D)"
            )


def text_shape(size: str) -> tuple[TextShape, ViTSettings]:
    """The shapes of a CLIP architecture's text and image towers.

    Raises:
        ConfigError: there is no such architecture, or it is no CLIP.
    """
    chosen = architecture(size)
    if chosen.text is None or not isinstance(chosen.shape, ViTSettings):
        known = ", ".join(name for name, other in BUILT_IN.items() if other.text)
        raise ConfigError(f"a {size} network cannot read texts; choose a size that can: {known}")
    return chosen.text, chosen.shape


def text_anchors(
    source: str | Path,
    *,
    size: str,
    classes: Sequence[str],
    prompts: Prompts | None = None,
    cache: Path | None = None,
    sha256: str | None = None,
) -> TextAnchors:
    """Compute the text features of classes, or recall them.

    A class's feature is the mean of its texts' features, each brought to length 1, brought to length 1 (Radford et al.,
    arXiv 2103.00020, section 3.1.4).

    Args:
        source: of a CLIP checkpoint in transformers' layout, see
            :func:`monai_fedlora.networks.weights_sources.find_weights`, with the files of its tokens beside the
            weights.
        size: name of its architecture.
        classes: names in label order, each different.
        prompts: how they are put into words; None for the defaults.
        cache: folder in which features are kept under a name that follows from the checkpoint, its tokens, the
            texts, the tower's settings and the code. From there they come without the text tower. None keeps nothing.
        sha256: of the checkpoint that the image tower is from; None for any.

    Raises:
        ConfigError: ``size`` is no CLIP, a class has no text, or a text is longer than this CLIP reads.
        WeightsError: a file is missing, damaged or does not fit; or the checkpoint is not the image tower's.
    """
    text, image = text_shape(size)
    texts = (prompts or Prompts()).texts(classes)
    files = find_weights(source)
    checkpoint = files.sha256()
    if sha256 is not None and checkpoint != sha256.lower():
        raise WeightsError(
            f"the texts are read by {files.path} (SHA-256 {checkpoint}) and the images by a file with SHA-256 "
            f"{sha256.lower()}; both towers must come from one checkpoint"
        )
    token_files = find_token_files(source, text.tokens)
    digest = _digest(checkpoint, token_files, texts, text)
    entry = cache / f"{digest}.safetensors" if cache else None
    if entry and (found := _recall(entry, digest, len(texts), text.embed_dim, image.dim)):
        return found
    made = _compute(source, size, dict(zip(classes, texts, strict=True)), digest)
    if entry:
        _keep(entry, made)
    return made


def read_clip(source: str | Path, size: str) -> tuple[TextTokens, ClipText]:
    """Read the tokens and the text side of a checkpoint; arguments as for :func:`text_anchors`.

    Raises:
        ConfigError: ``size`` is no CLIP.
        WeightsError: a file is missing, damaged or does not fit.
    """
    text, image = text_shape(size)
    tokens = read_token_files(find_token_files(source, text.tokens), text.tokens)
    if tokens.size != text.vocabulary:
        raise WeightsError(
            f"{source} comes with {tokens.size} tokens, and a {size} text tower reads {text.vocabulary}; "
            "they are of different checkpoints"
        )
    own = {"end": text.end_token} | ({"pad": text.pad_token} if isinstance(text, TextSettings) else {})
    for name, number in own.items():
        if (found := getattr(tokens, name)) != number:
            does = "ends" if name == "end" else "fills up"
            raise WeightsError(
                f"{source} comes with tokens of which number {found} {does} a text, and a {size} text tower reads "
                f"{number} there; they are of different checkpoints"
            )
    return tokens, load_clip_text(find_weights(source), text, dim=image.dim)


def _digest(checkpoint: str, token_files: Sequence[Path], texts: Sequence[Sequence[str]], text: TextShape) -> str:
    try:
        tokens = [files.sha256(path) for path in token_files]
    except OSError as error:
        raise WeightsError(f"{token_files[0].parent} cannot be read: {error}") from error
    key = {"format": _FORMAT, "checkpoint": checkpoint, "tokens": tokens, "texts": texts}
    key |= {"tower": dataclasses.asdict(text), "code": source_digest(), "torch": torch.__version__}
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


@torch.no_grad()
def _compute(source: str | Path, size: str, texts: Mapping[str, Sequence[str]], digest: str) -> TextAnchors:
    text, _ = text_shape(size)
    tokens, clip = read_clip(source, size)
    rows = tokens.rows(texts, context=text.context)
    features = functional.normalize(clip.tower(rows), dim=-1)
    means = features.unflatten(0, (len(texts), -1)).mean(dim=1)
    return TextAnchors(
        features=functional.normalize(means, dim=-1),
        projection=clip.projection,
        logit_scale=clip.logit_scale,
        digest=digest,
    )


def _tensors(anchors: TextAnchors) -> dict[str, torch.Tensor]:
    return {
        "features": anchors.features,
        "projection": anchors.projection,
        _SCALE: torch.tensor(anchors.logit_scale, dtype=torch.float64),
    }


def _checksum(tensors: dict[str, torch.Tensor]) -> str:
    return hashlib.sha256(b"".join(tensors[key].contiguous().numpy().tobytes() for key in sorted(tensors))).hexdigest()


def _keep(entry: Path, anchors: TextAnchors) -> None:
    """Write an entry that its owner alone can read; a folder that cannot be written to is no error."""
    tensors = _tensors(anchors)
    try:
        make_folder(entry.parent)
        files.save_tensors(entry, tensors, {"digest": anchors.digest, "checksum": _checksum(tensors)})
    except OSError as error:
        _log.warning("the text features are not kept, %s cannot be written: %s", entry, error)


def _recall(entry: Path, digest: str, n_classes: int, embed_dim: int, dim: int) -> TextAnchors | None:
    """The features of a cache entry; None where it is missing, incomplete or of another name."""
    if not entry.is_file():
        return None
    shapes = {"features": (n_classes, embed_dim), "projection": (embed_dim, dim), _SCALE: ()}
    try:
        mapped, metadata = files.load_tensors(entry)
        tensors = {key: value.clone() for key, value in mapped.items()}  # whoever cuts the file short does no harm then
    except WeightsError:
        tensors, metadata = {}, {}
    whole = {key: tuple(value.shape) for key, value in tensors.items()} == shapes
    if not whole or metadata != {"digest": digest, "checksum": _checksum(tensors)}:
        _log.warning("%s is damaged or not what its name says; the text features are computed again", entry)
        return None
    return TextAnchors(
        features=tensors["features"],
        projection=tensors["projection"],
        logit_scale=float(tensors[_SCALE]),
        digest=digest,
    )
