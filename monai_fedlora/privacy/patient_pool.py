"""A pool of patients, as a ledger knows it: by marks that nobody without the site's key can turn into codes.

A patient has the same mark however often the data are prepared anew, under whatever name of site or data set, as long
as the code stays. Patients who get new codes are new ones: nothing here can tell that they are not.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection
from dataclasses import dataclass

from monai_fedlora.patient_codes import plain_code

_DIGITS = 16  # hexadecimal ones of a mark: two patients who share one by chance are counted as one, which spends more


@dataclass(frozen=True)
class Pool:
    """Patients who are counted together.

    Attributes:
        marks: one for each code, 16 hexadecimal digits.
    """

    marks: frozenset[str]

    @classmethod
    def of(cls, codes: Collection[str], *, key: bytes) -> Pool:
        """Return the pool of patients with these codes; of a photograph both its own and its patient's code belong in.

        Codes that :func:`monai_fedlora.patient_codes.plain_code` writes alike are the same.
        """
        plain = {plain_code(code) for code in codes}
        return cls(frozenset(hmac.new(key, code.encode(), hashlib.sha256).hexdigest()[:_DIGITS] for code in plain))

    @property
    def name(self) -> str:
        """The same for the same patients, 16 hexadecimal digits."""
        return hashlib.sha256(" ".join(sorted(self.marks)).encode()).hexdigest()[:_DIGITS]

    def shares_with(self, other: Pool) -> bool:
        """Whether somebody is in both."""
        return not self.marks.isdisjoint(other.marks)
