"""Find the heart in a short-axis cine pair, crop around it and normalise the grey levels.

Plain torch without MONAI, and scriptable: exported bundles contain this code as TorchScript, so that preprocessing is
the same in training and in the clinic. No mask is needed: the heart is found by its motion between end-diastole (ED)
and end-systole (ES).

Tensors are (2, X, Y, Z): ED and ES on the channel axis, slices last, one in-plane spacing for both axes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_fedlora.transforms.orientation import orient
from monai_fedlora.transforms.resampling import resample


def _smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (N, H, W) maps with zeros outside; sigma in pixels."""
    radius = math.ceil(3.0 * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    rows = F.conv2d(maps.unsqueeze(1), kernel.reshape(1, 1, -1, 1), padding=[radius, 0])
    return F.conv2d(rows, kernel.reshape(1, 1, 1, -1), padding=[0, radius]).squeeze(1)


def _pooling(image: Tensor, spacing_mm: float) -> int:
    """Number of voxels to pool per axis so that pixels are about 4 mm wide."""
    return max(1, min(int(4.0 / spacing_mm + 0.5), image.shape[1], image.shape[2]))


def motion_map(image: Tensor, spacing_mm: float) -> Tensor:
    """How much the two frames differ at each place of the image plane.

    Every slice of every frame is pooled to pixels of about 4 mm and standardised, which removes gains and offsets
    between frames or slices. The absolute difference is blurred and averaged over the slices; its median (noise) is
    subtracted, and it is clipped at the level that an area of 80 cm^2 exceeds, but not below 30 % of its maximum. So a
    strongly moving right ventricle or a pulsating vessel counts little more than a weakly contracting left ventricle
    (ours).

    Args:
        image: (2, X, Y, Z) grey levels of any scale.
        spacing_mm: in-plane voxel width in mm.

    Returns:
        (X', Y') non-negative map, all zero when nothing moves.
    """
    pooling = _pooling(image, spacing_mm)
    pixel_mm = spacing_mm * pooling
    slices = F.avg_pool2d(image.permute(0, 3, 1, 2).float(), pooling)
    slices = slices - slices.mean(dim=(2, 3), keepdim=True)
    slices = slices / slices.abs().amax(dim=(2, 3), keepdim=True).clamp(min=1e-20)
    slices = slices / slices.square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=1e-6)
    moving = _smooth((slices[0] - slices[1]).abs(), 4.0 / pixel_mm).mean(dim=0)
    moving = (moving - moving.median()).clamp(min=0.0)
    saturated = max(1, min(int(8000.0 / pixel_mm**2), moving.numel()))
    level = torch.maximum(moving.flatten().topk(saturated).values[-1], 0.3 * moving.max())
    return moving.clamp(max=level)


def heart_centre(image: Tensor, spacing_mm: float) -> Tensor:
    """Centre of the beating heart (both ventricles) in the image plane.

    The strongest blob of the motion map under a broad prior around the image centre, refined to sub-voxel
    precision by mean shift with a heart-sized window (ours).

    Args:
        image: (2, X, Y, Z) ED and ES grey levels of any scale, finite.
        spacing_mm: in-plane voxel width in mm.

    Returns:
        (2,) float32 centre in voxels, voxel centres at integers; the image centre if nothing moves.
    """
    prior_mm = 70.0
    blob_mm = 20.0
    window_mm = 40.0
    pooling = _pooling(image, spacing_mm)
    pixel_mm = spacing_mm * pooling
    moving = motion_map(image, spacing_mm)
    rows, columns = moving.shape[0], moving.shape[1]
    middle = torch.tensor([(image.shape[1] - 1) / 2.0, (image.shape[2] - 1) / 2.0], device=image.device)
    x = (torch.arange(rows, device=image.device) * pooling + (pooling - 1) / 2.0 - middle[0]) * spacing_mm
    y = (torch.arange(columns, device=image.device) * pooling + (pooling - 1) / 2.0 - middle[1]) * spacing_mm
    x, y = x.unsqueeze(1), y.unsqueeze(0)
    weight = moving * torch.exp(-0.5 * (x**2 + y**2) / prior_mm**2)
    if float(weight.sum()) <= 0.0:
        return middle
    peak = int(_smooth(weight.unsqueeze(0), blob_mm / pixel_mm).argmax())
    centre_x, centre_y = x[peak // columns, 0], y[0, peak % columns]
    for _ in range(20):
        near = weight * torch.exp(-0.5 * ((x - centre_x) ** 2 + (y - centre_y) ** 2) / window_mm**2)
        total = near.sum().clamp(min=1e-20)
        centre_x, centre_y = (near * x).sum() / total, (near * y).sum() / total
    return middle + torch.stack([centre_x, centre_y]) / spacing_mm


def crop_start(centre: float, length: int, size: int) -> int:
    """First voxel of a window of ``size`` voxels around ``centre`` that lies inside 0..length; 0 if it does not fit."""
    if length <= size:
        return 0
    return min(max(math.floor(centre - (size - 1) / 2.0 + 0.5), 0), length - size)


def percentile(values: Tensor, percent: float) -> Tensor:
    """Percentile of all values with linear interpolation between ranks, exact for any number of values.

    Equal to ``numpy.percentile(values, percent)``; fast for percentiles near 0 or 100.

    Args:
        values: tensor of any shape, not empty.
        percent: in 0..100.

    Returns:
        Scalar tensor.
    """
    flat = values.flatten()
    last = flat.numel() - 1
    position = percent / 100.0 * last
    below = min(int(position), last)
    above = min(below + 1, last)
    if percent < 50.0:
        tail = flat.topk(above + 1, largest=False).values
        low, high = tail[below], tail[above]
    else:
        tail = flat.topk(last - below + 1).values
        low, high = tail[last - below], tail[last - above]
    return low + (high - low) * (position - below)


def normalise_cine(image: Tensor, size: tuple[int, int, int], spacing_mm: float) -> Tensor:
    """Crop around the heart, clip and rescale the grey levels of each frame, pad to ``size``.

    In plane the crop is centred on the heart and stays inside the image where possible; a smaller image is padded
    symmetrically. Of too many slices the middle ones are kept; missing slices are zeros at the end.
    Each frame is clipped to its 0.95 and 99.5 percentiles inside the crop and rescaled to [0, 1], as CineMA
    does (Fu et al., arXiv 2506.00679); padding is 0 and does not enter the percentiles.

    Args:
        image: (2, X, Y, Z) ED and ES grey levels, finite, on a grid of ``spacing_mm`` in plane.
        size: output voxels (x, y, z).
        spacing_mm: in-plane voxel width in mm.

    Returns:
        (2, \\*size) float32 in [0, 1]; a frame without contrast is 0.
    """
    centre = heart_centre(image, spacing_mm)
    x = crop_start(float(centre[0]), image.shape[1], size[0])
    y = crop_start(float(centre[1]), image.shape[2], size[1])
    z = max(image.shape[3] - size[2], 0) // 2
    crop = image[:, x : x + size[0], y : y + size[1], z : z + size[2]].float()
    frames: list[Tensor] = []
    for frame in crop:
        low = percentile(frame, 0.95)
        contrast = percentile(frame, 99.5) - low
        if float(contrast) > 0.0:
            frames.append(((frame - low) / contrast).clamp(0.0, 1.0))
        else:
            frames.append(torch.zeros_like(frame))
    pad_x, pad_y, pad_z = size[0] - crop.shape[1], size[1] - crop.shape[2], size[2] - crop.shape[3]
    padding = [0, pad_z, pad_y // 2, pad_y - pad_y // 2, pad_x // 2, pad_x - pad_x // 2]
    return F.pad(torch.stack(frames), padding)


class CinePreprocessor(nn.Module):
    """Canonical order of axes, resampling and `normalise_cine` as a scriptable module."""

    def __init__(self, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
        super().__init__()
        self.size = (int(size[0]), int(size[1]), int(size[2]))
        self.spacing = (float(spacing[0]), float(spacing[1]), float(spacing[2]))

    def forward(self, image: Tensor, affine: Tensor) -> Tensor:
        """(B, 2, X, Y, Z) grey levels in any order of axes with (B, 4, 4) affines -> (B, 2, \\*size) in [0, 1]."""
        prepared: list[Tensor] = []
        for index in range(len(image)):
            oriented, moved = orient(image[index], affine[index])
            resampled, _ = resample(oriented, moved, [self.spacing[0], self.spacing[1], self.spacing[2]])
            prepared.append(normalise_cine(resampled, self.size, self.spacing[0]))
        return torch.stack(prepared)

    @torch.jit.export
    def unknown(self, image: Tensor) -> Tensor:
        """Affines (B, 4, 4) for images (B, 2, X, Y, Z) of the network's voxel size with unknown orientation."""
        steps = torch.tensor([self.spacing[0], self.spacing[1], self.spacing[2], 1.0], dtype=torch.float64)
        return (torch.eye(4, dtype=torch.float64) * steps).unsqueeze(0).expand(len(image), 4, 4).to(image.device)
