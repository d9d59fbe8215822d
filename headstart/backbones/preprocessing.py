"""What is done to an image before a network sees it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from headstart.onnx.backbone_folder import Fit, PreprocessingRecord


@dataclass(frozen=True)
class Preprocessing:
    """What is done: the image to a square of `resize_px`, the centre `input_px` of it, pixels in 0..1 normalised."""

    input_px: int
    crop_fraction: float
    interpolation: str  # 'bilinear' | 'bicubic'
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: Fit = "crop"

    @property
    def resize_px(self) -> int:
        """The side of the resized square that `input_px` is cropped from, never below it."""
        return max(self.input_px, round(self.input_px / self.crop_fraction))

    @property
    def bar_level(self) -> int:
        """The grey, 0..255, of the bars that `fit` pad adds: that of the mean."""
        return round(255 * sum(self.mean) / 3)

    def fitted(self, fit: Fit, crop_fraction: float | None) -> Preprocessing:
        """Return the same with another `fit`.

        Who asks for the whole image gets all of it: no centre is cut out then, unless `crop_fraction` is given.
        """
        return self if fit == "crop" else replace(self, fit=fit, crop_fraction=crop_fraction or 1.0)

    @property
    def record(self) -> PreprocessingRecord:
        """The same as backbone.json has it."""
        return PreprocessingRecord(resize_px=self.resize_px, **asdict(self))

    @classmethod
    def of(cls, record: PreprocessingRecord) -> Preprocessing:
        """Return what a backbone.json says."""
        return cls(**record.model_dump(exclude={"resize_px"}))
