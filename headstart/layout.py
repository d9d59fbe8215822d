"""The path of every artefact, defined once. dvc.yaml repeats the paths; tests/contract checks that the two agree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart import reviewed
from headstart.base.errors import ParamError
from headstart.base.files import Place, located
from headstart.store.cache import Cache

if TYPE_CHECKING:
    from headstart.params import Params


def find_root(start: Path) -> Path:
    """Return the nearest folder, from `start` upwards, that holds a project; ParamError if there is none."""
    start = start.resolve()
    for folder in (start, *start.parents):
        if (folder / "params.yaml").is_file() and (folder / "dvc.yaml").is_file():
            return folder
    raise ParamError(
        f"{start} is not in a project: neither it nor a folder above it holds params.yaml and dvc.yaml. Go to a"
        " project's folder, or make a project with `headstart new FOLDER`."
    )


@dataclass(frozen=True)
class Layout:
    """Paths below `root`, the folder of params.yaml and dvc.yaml, and the locations of the images and the shards."""

    root: Path
    data: str = ""  # data.root
    store: str | None = None  # cluster.store: where the shards of pixels and features are, if not on this machine
    cache_dir: str | None = None  # cache.dir
    cache_gb: float = 50.0  # cache.max_gb
    keeps_backbones: bool = True  # cache.backbones
    without_labels: str = ""  # data.unlabelled
    part: str = ""  # folder in artifacts/ that has its own manifest, pixels and features; '': artifacts/ itself
    results: Path | None = None  # where artefacts lie, if not in the project

    @classmethod
    def of(cls, root: Path, params: Params) -> Layout:
        """Return the layout of the project at `root` with these parameters."""
        cache = params.cache
        own = cache.dir, cache.max_gb, cache.backbones
        return cls(root, params.data.root, params.cluster.store, *own, params.data.unlabelled)

    def of_unlabelled(self) -> Layout:
        """Return the layout of the images without labels: a manifest and stores of their own, beside one backbone."""
        own = self.cache_dir, self.cache_gb, self.keeps_backbones
        return Layout(self.root, self.without_labels, self.store, *own, part=self.unlabelled.name)

    @property
    def cache(self) -> Cache:
        """Rows and results that took time to compute, shared by all projects of this user; no stage's output."""
        return Cache.of(self.root / Path(self.cache_dir).expanduser() if self.cache_dir else None, self.cache_gb)

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
    def data_root(self) -> Path:
        """The images, or the manifest that names them: relative to the project, absolute, or a URL."""
        return located(self.data, self.root)

    @property
    def unlabelled_root(self) -> Path:
        """The images without labels, or the manifest that names them, as data_root."""
        return located(self.without_labels, self.root)

    @property
    def images(self) -> Path:
        """The folder that image paths are relative to: data.root, or the folder of the manifest."""
        path = self.data_root
        return path.parent if path.suffix.lower() in (".csv", ".parquet") and not path.is_dir() else path

    @property
    def artifacts(self) -> Path:
        """Everything that the stages write, except the default dataset."""
        return self.results or self.root / "artifacts"

    @property
    def manifest(self) -> Path:
        """One row per image: `tables.MANIFEST`."""
        return self._own / "manifest.parquet"

    @property
    def validation(self) -> Path:
        """summary.json, quarantine.csv and slices.parquet."""
        return self._own / "validation"

    @property
    def unlabelled(self) -> Path:
        """What is known of images without labels: unlabelled.json, and a manifest, pixels and features as above."""
        return self.artifacts / "unlabelled"

    @property
    def failed(self) -> Path:
        """What a failed stage found, until it succeeds: quarantine.csv; tracked by neither git nor DVC."""
        return self.artifacts / "failed"

    @property
    def splits(self) -> Path:
        """One row per image: `tables.SPLITS`."""
        return self.artifacts / "splits.parquet"

    @property
    def split_summary(self) -> Path:
        """Classes in label order, image counts per split and class, notes, warnings."""
        return self.artifacts / "split_summary.json"

    @property
    def ranking(self) -> Path:
        """ranking.json: the backbones that were compared, each with its scores and what it costs."""
        return self.artifacts / "ranking"

    @property
    def ranked(self) -> Path:
        """The backbone that won, without times: the stage `backbone` runs again for another winner alone."""
        return self.artifacts / "ranked.json"

    @property
    def backbone(self) -> Path:
        """resize.onnx, backbone.onnx, backbone.safetensors and backbone.json."""
        return self.artifacts / "backbone"

    @property
    def pixels(self) -> Place:
        """A record of which pixels belong to the splits. uint8 [S, S, 3] each; with a shared store, also its shards."""
        return self._place(self._own / "pixels")

    @property
    def features(self) -> Path:
        """embedding.json, and the two stores below."""
        return self._own / "features"

    @property
    def plain_features(self) -> Place:
        """Store of float [1, D]: every image without augmentation."""
        return self._place(self.features / "plain")

    @property
    def views(self) -> Place:
        """Store of float [V, D]: random crops of every train and val image, if `embed.views` asks for them."""
        return self._place(self.features / "views")

    @property
    def head(self) -> Path:
        """head.onnx, head.json, candidates.csv, learning_curve.csv, out_of_fold.parquet."""
        return self.artifacts / "head"

    @property
    def adapt(self) -> Path:
        """adapted.json, and head.onnx for images of another domain, if one was found."""
        return self.artifacts / "adapt"

    @property
    def audit(self) -> Path:
        """findings.parquet, audit.json, groups.csv, counts.json."""
        return self.artifacts / "audit"

    @property
    def reviewed(self) -> Path:
        """What people have decided about single images; git tracks it."""
        return self.root / reviewed.NAME

    @property
    def finetune(self) -> Path:
        """finetune.json; with fine-tuning also backbone.onnx, head.onnx, model.safetensors and tables."""
        return self.artifacts / "finetune"

    @property
    def tuning(self) -> Path:
        """Fine-tuning's checkpoint; tracked by neither git nor DVC."""
        return self.artifacts / "tuning"

    @property
    def accepted(self) -> Path:
        """Which accepted model the new one is compared with, if any."""
        return self.artifacts / "accepted.json"

    @property
    def evaluation(self) -> Path:
        """metrics.json, predictions.parquet and the data of the plots."""
        return self.artifacts / "evaluation"

    @property
    def int8(self) -> Path:
        """int8.json: what was tried and what ships; backbone.int8.onnx if it ships."""
        return self.artifacts / "int8"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.artifacts / "report.html"

    @property
    def export(self) -> Path:
        """The finished model as `export` has checked it."""
        return self.artifacts / "export"

    @property
    def model(self) -> Path:
        """The same, for use; replaced in one step: model.onnx, model.json, conformance images, MODEL_CARD.md."""
        return self.artifacts / "model"

    @property
    def timings(self) -> Path:
        """The duration of each stage's last run here, in seconds; tracked by neither git nor DVC."""
        return self.artifacts / "timings.json"

    @property
    def _own(self) -> Path:
        return self.artifacts / self.part

    def _place(self, folder: Path) -> Place:
        if not self.store:
            return Place(folder, folder)
        return Place(folder, located(self.store, self.root) / folder.relative_to(self.artifacts).as_posix())
