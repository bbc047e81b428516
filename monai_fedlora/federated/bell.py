"""Deprecated: how jobs of earlier versions name the components of :mod:`monai_fedlora.federated.wake_up`.

NVFlare imports a job's components by the dotted names in its configuration, before any code of ours could
translate them.
"""

from monai_fedlora.federated.wake_up import WakeUpListener as BellListener
from monai_fedlora.federated.wake_up import WakeUpSender as TaskBell

__all__ = ["BellListener", "TaskBell"]
