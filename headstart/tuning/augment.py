"""Training views of an image: torchvision's random transforms, seeded by (seed, draw, image) and nothing else."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    from headstart import params as parameters
    from headstart.onnx.backbone_folder import PreprocessingRecord

_VERSION = "1"  # increment it when the same seed would give other views


def number_from(*parts: object) -> int:
    """Return a 63-bit seed derived from `parts`."""
    return int.from_bytes(hashlib.sha256(":".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop, flip, policy and erasing, applied to pixels that are stored at a larger size."""

    seed: int
    input_px: int
    interpolation: str  # 'bilinear' | 'bicubic'
    mean: tuple[float, float, float]  # of the backbone, 0..1; erased areas are filled with it
    crop_area: float  # smallest crop, as a share of the stored square, 0..1
    flip: bool
    policy: str  # 'none' | 'trivial' (Müller & Hutter 2021) | 'rand' (Cubuk et al. 2020)
    erasing: float  # probability (Zhong et al. 2020)

    @classmethod
    def of(cls, settings: parameters.Finetune, backbone: PreprocessingRecord) -> Augmentation:
        """Return the augmentation that the parameters ask for, at the size of a backbone's input."""
        return cls(
            settings.seed,
            backbone.input_px,
            backbone.interpolation,
            backbone.mean,
            settings.crop_area,
            settings.flip,
            settings.policy,
            settings.erasing,
        )

    def __str__(self) -> str:
        shown = [f"{name}={value}" for name, value in vars(self).items() if name != "_transforms"]
        return f"views {_VERSION}, torchvision {version('torchvision')}, {', '.join(shown)}"

    def view(self, pixels: np.ndarray, image_id: str, draw: int) -> torch.Tensor:
        """Return uint8 [3, I, I] for uint8 [S, S, 3]. The global random state is unchanged."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(number_from(self.seed, draw, image_id))
            drawn: torch.Tensor = self._transforms(as_tensor(pixels))
        return drawn

    @cached_property
    def _transforms(self) -> Any:
        from torchvision.transforms import v2

        resample = v2.InterpolationMode(self.interpolation)
        steps = [v2.RandomResizedCrop(self.input_px, (self.crop_area, 1.0), interpolation=resample, antialias=True)]
        if self.flip:
            steps.append(v2.RandomHorizontalFlip())
        if self.policy == "trivial":
            steps.append(v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR))
        if self.policy == "rand":
            steps.append(v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR))
        if self.erasing:
            steps.append(v2.RandomErasing(self.erasing, value=[round(255 * level) for level in self.mean]))
        return v2.Compose(steps)


def as_tensor(pixels: np.ndarray) -> torch.Tensor:
    """Return uint8 [..., H, W, 3] as a contiguous tensor [..., 3, H, W]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3)))


def centre(pixels: np.ndarray, input_px: int) -> torch.Tensor:
    """Return the centre uint8 [..., 3, I, I] of uint8 [..., S, S, 3], which is used outside training."""
    start = round((pixels.shape[-2] - input_px) / 2)
    return as_tensor(pixels[..., start : start + input_px, start : start + input_px, :])
