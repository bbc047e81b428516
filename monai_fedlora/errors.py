"""Errors whose message is meant for the person at the keyboard.

Each message says what is wrong, what probably caused it and what to do. The command line prints them
without a traceback.
"""

import difflib
from collections.abc import Sequence


def nearest(word: str, known: Sequence[str]) -> str:
    """End of a message about an unknown word: the most similar one, whatever its case, or all that are known."""
    cased = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), cased, n=1)
    if not known:
        return ""
    return f"; did you mean {cased[close[0]]!r}?" if close else f"; choose from {', '.join(known)}"


class FedLoraError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(FedLoraError):
    """A setting is unknown, out of range or contradicts another one."""


class OtherVersions(ConfigError):
    """A job was made with other versions of packages than are installed here."""


class OtherBundle(ConfigError):
    """A job was made with another bundle of the same name than is installed here."""


class DataError(FedLoraError):
    """A patient file, label or split cannot be used as it is."""


class WeightsError(FedLoraError):
    """A weights file is unreadable, has the wrong keys or is not the pinned one."""


class OtherBackbone(WeightsError):
    """A backbone is not the one whose hash was pinned."""


class PrivacyError(FedLoraError):
    """Something that must stay in the site was about to leave it, or the server sent something undeclared."""


class PolicyError(PrivacyError):
    """A job needs something that the site's own policy does not allow, or the policy cannot be read."""


class NotApproved(PolicyError):
    """The site's policy asks for approval, and nobody there has approved this job."""


class ExportError(FedLoraError):
    """A run cannot be turned into a bundle."""


class OutOfMemory(FedLoraError):
    """Memory ran out, of a GPU or of the machine; what was being done is no reason to doubt a file."""


class Diverged(FedLoraError):
    """The loss or its gradient is not finite, while the images are."""


class WorkerDied(FedLoraError):
    """The process that a site trains in was ended from outside, or crashed."""


class Aborted(FedLoraError):
    """Work was stopped on request; none of its results are kept."""
