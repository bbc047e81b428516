"""Text prompts for classes: templates with a ``{class}`` placeholder, and the words that fill it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_fedlora.errors import ConfigError, nearest
from monai_fedlora.files import read_json
from monai_fedlora.resources import bundle_path

PLACEHOLDER = "{class}"
LONGEST = 200
"""Most characters of a template or a class text (ours); CLIP reads about 70 words."""

_BRACES = re.compile(r"\{[^{}]*\}|[{}]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompts:
    """How classes are put into words.

    With several templates a class is the mean of its texts, CLIP's prompt ensemble (Radford et al., arXiv 2103.00020).

    Attributes:
        templates: sentences with ``{class}`` where the class goes, each different.
        class_texts: what goes there, by class name. Classes that are not classified may be in it. Empty: the names
            themselves, with blanks for underscores.

    Raises:
        ConfigError: a template lacks the placeholder, or has another one; or a text is empty, too long or not
            printable.
    """

    templates: tuple[str, ...] = ("a photo of {class}",)
    class_texts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.templates, tuple) or not self.templates:
            raise ConfigError(f"the prompts are {self.templates!r}; they must be a list of one or more sentences")
        for template in self.templates:
            _check_template(template)
        if len(set(self.templates)) < len(self.templates):
            raise ConfigError("the prompts must be different sentences; the same one twice only counts double")
        if not isinstance(self.class_texts, Mapping):
            raise ConfigError(f"class_texts is {self.class_texts!r}; it must be a mapping from class names to texts")
        for name, text in self.class_texts.items():
            _check_text(f"the text of class {name!r}", text)
            if _BRACES.search(text):
                raise ConfigError(f"the text of class {name!r} is {text!r}; braces belong into a prompt only")

    @classmethod
    def from_json(cls, value: Any) -> Prompts:
        """Parse what :func:`dataclasses.asdict` made, after it has been through JSON.

        Raises:
            ConfigError: it is something else, or see :class:`Prompts`.
        """
        if not isinstance(value, Mapping) or set(value) != {"templates", "class_texts"}:
            raise ConfigError(f"prompts are {value!r}; they have templates and class_texts")
        templates = value["templates"]
        return cls(
            templates=tuple(templates) if isinstance(templates, list) else templates, class_texts=value["class_texts"]
        )

    def texts(self, classes: Sequence[str]) -> list[list[str]]:
        """The texts of every class, one per template.

        Raises:
            ConfigError: there are texts for classes, but none for one of these; or two classes read the same.
        """
        texts = {
            name: [template.replace(PLACEHOLDER, self._text(name)) for template in self.templates] for name in classes
        }
        first: dict[str, str] = {}
        for name, (sentence, *_) in texts.items():
            if sentence in first:
                raise ConfigError(
                    f"the classes {first[sentence]!r} and {name!r} have the same text {sentence!r}; nothing could tell "
                    "them apart"
                )
            first[sentence] = name
        return [texts[name] for name in classes]

    def _text(self, name: str) -> str:
        if not self.class_texts:
            return name.replace("_", " ")
        if name not in self.class_texts:
            close = difflib.get_close_matches(name, self.class_texts, n=1)
            hint = f"; did you mean it by {close[0]!r}?" if close else ""
            raise ConfigError(
                f"class_texts has no text for class {name!r}{hint}; give one for every class (job and compare: "
                f"--class-text {name}='...' or --prompts FILE; a bundle: --class_texts), or for none at all: {{}} "
                "takes the classes' names"
            )
        return self.class_texts[name]


def bundle_prompts(name: str) -> Prompts:
    """Return how a bundle's training puts classes into words.

    Raises:
        ConfigError: there is no such bundle, or it says nothing of it, or nothing sensible.
    """
    settings = read_json(bundle_path(name) / "configs" / "train.json")
    templates, texts = (settings.get(key) for key in ("prompts", "class_texts"))
    if templates is None or texts is None:
        raise ConfigError(
            f"the bundle {name} has no prompts for a method that compares images with texts; choose a bundle that has "
            "prompts and class_texts, such as image_2d_pfedst_classification"
        )
    return Prompts.from_json({"templates": templates, "class_texts": texts})


def own_prompts(
    bundle: str,
    classes: Sequence[str],
    *,
    file: str | Path | Mapping[str, Any] | None = None,
    class_texts: Mapping[str, str] | None = None,
) -> Prompts:
    """How classes of one's own are put into words, where the bundle does not know them or says it otherwise.

    Args:
        bundle: whose sentences and texts hold where nothing else is said.
        classes: the names; texts of others are left out.
        file: JSON with ``templates``, ``class_texts`` or both, which take the place of the bundle's, or what such a
            file holds. With an empty ``class_texts`` the names are the texts.
        class_texts: by class; these win.

    Raises:
        ConfigError: the file cannot be read or says something else, or ``class_texts`` names another class.
    """
    said = {} if file is None else dict(file) if isinstance(file, Mapping) else read_json(file)
    if not isinstance(said, dict) or set(said) - {"templates", "class_texts"} or (file is not None and not said):
        raise ConfigError(f"{file}: prompts are a JSON object with templates, class_texts or both")
    before = bundle_prompts(bundle)
    prompts = Prompts.from_json({"templates": list(before.templates), "class_texts": dict(before.class_texts), **said})
    given = dict(class_texts or {})
    for name in given:
        if name not in classes:
            raise ConfigError(f"there is a text for {name!r}, which is none of the classes{nearest(name, classes)}")
    texts = {**prompts.class_texts, **given}
    return replace(prompts, class_texts={name: texts[name] for name in classes if name in texts})


def _check_template(template: Any) -> None:
    _check_text("the prompt", template)
    found = _BRACES.findall(template)
    if wrong := [part for part in found if part != PLACEHOLDER]:
        raise ConfigError(f"the prompt {template!r} holds {wrong[0]!r}; the only placeholder is {PLACEHOLDER}")
    if not found:
        raise ConfigError(
            f"the prompt {template!r} has no place for the class; write {PLACEHOLDER} where its name goes, as in "
            f"'a photo of {PLACEHOLDER}'"
        )


def _check_text(what: str, text: Any) -> None:
    if not isinstance(text, str) or not text.strip():
        raise ConfigError(f"{what} is {text!r}; it must be a text that is not empty")
    if len(text) > LONGEST:
        raise ConfigError(f"{what} has {len(text)} characters, more than {LONGEST}: {text[:40]!r}...; shorten it")
    if not text.isprintable():
        raise ConfigError(f"{what} is {text!r}; it may only hold printable characters, in one line")
