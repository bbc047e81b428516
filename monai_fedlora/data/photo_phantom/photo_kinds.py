"""The two kinds of photographs (dermoscopy, fundus) with their classes, cameras and generators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from monai_fedlora.data.photo_phantom import lesions, retinopathy
from monai_fedlora.data.photo_phantom.dermatoscopes import DERMATOSCOPES, Dermatoscope
from monai_fedlora.data.photo_phantom.dermoscopy import Dermoscopy, make_dermoscopy
from monai_fedlora.data.photo_phantom.fundus import Fundus, make_fundus
from monai_fedlora.data.photo_phantom.fundus_cameras import FUNDUS_CAMERAS, FundusCamera
from monai_fedlora.data.photo_phantom.optics import encode, encode_mask
from monai_fedlora.measures.structures import LESION

Camera: TypeAlias = Dermatoscope | FundusCamera


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of photographs.

    Attributes:
        name: as settings and commands call it.
        classes: all classes, in the order of the published labels.
        demo: the default classes of a site's phantom.
        cameras: cameras by letter.
        make: generates a picture, with the arguments of :func:`make_dermoscopy`.
        unit: ``lesion`` or ``patient``, which may have several pictures.
        doubles: share of the pictures whose unit has two (ours).
        structures: what its masks outline; () where it has none.
    """

    name: str
    classes: tuple[str, ...]
    demo: tuple[str, ...]
    cameras: Mapping[str, Camera]
    make: Callable[..., Dermoscopy | Fundus]
    unit: str
    doubles: float
    structures: tuple[str, ...] = ()

    def file(self, group: str, camera: Camera, seed: tuple[int, ...], *, shot: int, size: int, suffix: str) -> bytes:
        """Return the file of a picture; arguments as for :func:`make_dermoscopy` and :func:`encode`."""
        return encode(self.make(group, camera, seed, shot=shot, size=size).pixels, camera.optics, suffix)

    def masked_file(
        self, group: str, camera: Camera, seed: tuple[int, ...], *, shot: int, size: int, suffix: str
    ) -> tuple[bytes, bytes]:
        """Return :meth:`file` and the file of its mask; a kind without structures has none."""
        picture = self.make(group, camera, seed, shot=shot, size=size)
        assert isinstance(picture, Dermoscopy)
        return encode(picture.pixels, camera.optics, suffix), encode_mask(picture.mask)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "dermoscopy": Kind(
            name="dermoscopy", classes=lesions.CLASSES, demo=("NV", "MEL", "BKL", "VASC"), cameras=DERMATOSCOPES,
            make=make_dermoscopy, unit="lesion", doubles=0.25, structures=(LESION,),
        ),
        "fundus": Kind(
            name="fundus", classes=retinopathy.GRADES, demo=retinopathy.GRADES, cameras=FUNDUS_CAMERAS,
            make=make_fundus, unit="patient", doubles=0.5,
        ),
    }
)  # fmt: skip
"""Kinds by name."""
