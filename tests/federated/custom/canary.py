"""Code of a test job: sites whose private tensors, and whose shared ones, can be recognised anywhere."""

from __future__ import annotations

from nvflare.apis.fl_context import FLContext

from monai_fedlora.federated.executor import SiteExecutor
from monai_fedlora.federated.federated_site import Site
from monai_fedlora.scope import Role

PRIVATE_MARK = 0.7314453125
SHARED_MARK = -0.6181640625
"""Both are the same number in float16, float32 and float64."""


class CanaryExecutor(SiteExecutor):
    """Overwrite every tensor that trains with a mark, after training and before anything is stored or sent."""

    def _build_site(self, fl_ctx: FLContext) -> Site:
        site = super()._build_site(fl_ctx)
        train = site._trainer.run_epochs

        def marked(epochs: int) -> None:
            train(epochs)
            for role, mark in ((Role.PRIVATE, PRIVATE_MARK), (Role.SHARED, SHARED_MARK)):
                for key in site.scope.keys(role):
                    site.network.get_parameter(key).data.fill_(mark)

        site._trainer.run_epochs = marked
        return site
