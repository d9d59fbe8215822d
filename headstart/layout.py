"""The path of every artefact, each spelled once. dvc.yaml repeats them; tests/contract holds the two together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headstart.base.files import located


@dataclass(frozen=True)
class Layout:
    """Paths below `root`, the folder that holds params.yaml and dvc.yaml."""

    root: Path

    @property
    def params(self) -> Path:
        """The parameters, the only file that a user edits."""
        return self.root / "params.yaml"

    @property
    def weights(self) -> Path:
        """Downloaded weights, kept between runs; tracked by neither git nor DVC."""
        return self.root / "data" / "weights"

    @property
    def digits(self) -> Path:
        """The embedded default dataset."""
        return self.root / "data" / "digits"

    @property
    def artifacts(self) -> Path:
        """Everything the stages write, but for the default dataset."""
        return self.root / "artifacts"

    @property
    def manifest(self) -> Path:
        """One row an image: `tables.MANIFEST`."""
        return self.artifacts / "manifest.parquet"

    @property
    def validation(self) -> Path:
        """summary.json and quarantine.csv."""
        return self.artifacts / "validation"

    @property
    def splits(self) -> Path:
        """One row an image: `tables.SPLITS`."""
        return self.artifacts / "splits.parquet"

    @property
    def split_summary(self) -> Path:
        """Classes in their order, images per class and split, warnings."""
        return self.artifacts / "split_summary.json"

    @property
    def backbone(self) -> Path:
        """resize.onnx, backbone.onnx and backbone.json."""
        return self.artifacts / "backbone"

    @property
    def pixels(self) -> Path:
        """Store of uint8 [S, S, 3]."""
        return self.artifacts / "pixels"

    @property
    def features(self) -> Path:
        """embedding.json, and the stores below."""
        return self.artifacts / "features"

    @property
    def plain_features(self) -> Path:
        """Store of float [1, D]: every image as it is."""
        return self.features / "plain"

    @property
    def views(self) -> Path:
        """Store of float [V, D]: random crops of every image of train and val, where `embed.views` asks for them."""
        return self.features / "views"

    @property
    def head(self) -> Path:
        """head.safetensors, head.json, candidates.csv."""
        return self.artifacts / "head"

    @property
    def finetune(self) -> Path:
        """finetune.json; with fine-tuning backbone.onnx, head.safetensors, model.safetensors and more beside it."""
        return self.artifacts / "finetune"

    @property
    def tuning(self) -> Path:
        """What fine-tuning keeps for itself: checkpoint, frozen layers' output; tracked by neither git nor DVC."""
        return self.artifacts / "tuning"

    @property
    def evaluation(self) -> Path:
        """metrics.json, predictions.parquet, the data of the plots, report.html."""
        return self.artifacts / "evaluation"

    @property
    def int8(self) -> Path:
        """int8.json: what was tried and what ships; backbone.int8.onnx, if one does."""
        return self.artifacts / "int8"

    @property
    def model(self) -> Path:
        """What is handed over: model.onnx, model.json, conformance vectors, MODEL_CARD.md."""
        return self.artifacts / "model"

    @property
    def timings(self) -> Path:
        """Seconds a stage took when it last ran here; tracked by neither git nor DVC."""
        return self.artifacts / "timings.json"

    def shards(self, folder: Path, store: str | None) -> Path:
        """Return where the shards of the store `folder` lie: in it, or below `store`, a path or URL all workers see."""
        return located(store, self.root) / folder.relative_to(self.artifacts).as_posix() if store else folder

    def data_root(self, root: str) -> Path:
        """Return the path of `data.root`: relative to the project, absolute, or a URL."""
        return located(root, self.root)

    def images_folder(self, root: str) -> Path:
        """Return the folder that paths in the manifest are relative to: `data.root`, or where that file lies."""
        path = self.data_root(root)
        return path.parent if path.suffix.lower() in (".csv", ".parquet") and not path.is_dir() else path
