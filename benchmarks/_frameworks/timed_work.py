"""The work of a site that notes when it works."""

from __future__ import annotations

from _frameworks.timed import timed
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.site_work import SiteWork


class TimedWork(SiteWork):
    """Build a site that notes."""

    def build_site(self) -> Site:
        return timed(super().build_site())
