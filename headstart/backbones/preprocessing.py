"""What is done to an image before a network sees it."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from headstart.onnx.backbone_folder import PreprocessingRecord


@dataclass(frozen=True)
class Preprocessing:
    """What the weights expect: shorter side to `resize_px`, centre square of `input_px`, pixels in 0..1 normalised."""

    input_px: int
    crop_fraction: float
    interpolation: str  # 'bilinear' | 'bicubic'
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def resize_px(self) -> int:
        """The side of the resized square that `input_px` is cropped from, never below it."""
        return max(self.input_px, round(self.input_px / self.crop_fraction))

    @property
    def record(self) -> PreprocessingRecord:
        """The same as backbone.json has it."""
        return PreprocessingRecord(resize_px=self.resize_px, **asdict(self))

    @classmethod
    def of(cls, record: PreprocessingRecord) -> Preprocessing:
        """Return what a backbone.json says."""
        return cls(**record.model_dump(exclude={"resize_px"}))


# EfficientNet-Lite's own, from the TPU repository that its bundled weights come from.
BUNDLED_PREPROCESSING = Preprocessing(224, 0.875, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
