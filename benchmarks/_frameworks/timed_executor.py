"""The executor of a site that notes when it works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvflare.apis.fl_context import FLContext

from _frameworks.timed import timed
from monai_fedlora.federated.executor import SiteExecutor

if TYPE_CHECKING:
    from monai_fedlora.federated.federated_site import Site


class TimedExecutor(SiteExecutor):
    """Build a site that notes."""

    def _build_site(self, fl_ctx: FLContext) -> Site:
        return timed(super()._build_site(fl_ctx))
