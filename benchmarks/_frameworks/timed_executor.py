"""The executor of a site that notes when it works."""

from __future__ import annotations

from monai_fedlora.federated.executor import SiteExecutor


class TimedExecutor(SiteExecutor):
    """Have the work done by a site that notes."""

    work = "_frameworks.timed_work.TimedWork"
