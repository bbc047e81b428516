"""Code of a test job: sites whose private tensors, and whose shared ones, can be recognised anywhere."""

from __future__ import annotations

from monai_fedlora.federated.executor import SiteExecutor
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.federated.site_work import SiteWork
from monai_fedlora.scope import Role

PRIVATE_MARK = 0.7314453125
SHARED_MARK = -0.6181640625
"""Both are the same number in float16, float32 and float64."""


class CanaryWork(SiteWork):
    """Overwrite every tensor that trains with a mark, after training and before anything is stored or sent."""

    def build_site(self) -> Site:
        site = super().build_site()
        train = site._trainer.run_epochs

        def marked(epochs: int) -> None:
            train(epochs)
            for role, mark in ((Role.PRIVATE, PRIVATE_MARK), (Role.SHARED, SHARED_MARK)):
                for key in site.scope.keys(role):
                    site.network.get_parameter(key).data.fill_(mark)

        site._trainer.run_epochs = marked
        return site


class CanaryExecutor(SiteExecutor):
    """Have the work done by such a site."""

    work = f"{__name__}.CanaryWork"
