"""Opens a dataset directory for the trainer: its manifest, with the bins of hashed features."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.manifest import DatasetManifest, DotbiasError, Shard, Side, Split, fingerprint, join, read_manifest
from trainer.config import TrainerConfig
from trainer.data.files import open_file

# Inputs of the signature `recommend` besides the features of the user side, see `trainer.output.recommend`.
_RECOMMEND_INPUTS = ("exclude", "k")


class ShardPart(Shard):
    """Describes the `rows` rows of a shard from row `first` on; the file has `file_rows`, and the other fields its."""

    first: int
    file_rows: int


@dataclass(frozen=True)
class Dataset:
    """Holds the manifest of a dataset and the options of the trainer that its tables depend on.

    Attributes:
        path: the directory.
        manifest: its contents.
        num_bins: rows of the table of each feature with encoding `hashing`, from `trainer.hashing`.
        cache: directory with decoded shards, see `trainer.data.cache`; None without a cache.
    """

    path: str
    manifest: DatasetManifest
    num_bins: Mapping[str, int]
    cache: str | None = None

    @classmethod
    def open(cls, path: str, config: TrainerConfig) -> Dataset:
        """Read the manifest and check that a model can be trained on it.

        Raises:
            DotbiasError: there is no complete dataset, it cannot be trained on, or `trainer.hashing` does not fit it.
        """
        manifest = read_manifest(path, open_file)
        sides = {feature.side for feature in manifest.features.values()}
        if sides != {"user", "item"}:
            raise DotbiasError(
                f"{path} should have features of both sides, user and item. Received: {sorted(sides)}; "
                "set `side` in `pipeline.features` and preprocess again."
            )
        # With another name, TensorFlow would rename the input of the export, or refuse to write it after training.
        if unfit := [name for name in manifest.features if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)]:
            raise DotbiasError(
                f"Names of features become inputs of the exported model, so they should be letters, digits and '_'. "
                f"Received: {unfit[0]!r}; rename the column and preprocess again."
            )
        if taken := [name for name, of in manifest.features.items() if of.side == "user" and name in _RECOMMEND_INPUTS]:
            raise DotbiasError(
                f"{taken[0]!r} is an input of the signature `recommend` of the exported model, so a feature of users "
                "cannot have that name; rename the column and preprocess again."
            )
        if not manifest.splits["train"].rows:
            raise DotbiasError(f"{path} has no train rows; `counts` in its manifest says where the rows went.")
        return cls(path, manifest, _num_bins(manifest, config))

    def file(self, name: str) -> str:
        """Return the path of a file that the manifest names."""
        return join(self.path, name)

    def cache_file(self, name: str) -> str:
        """Return the path of the cache file of the shard `name`."""
        assert self.cache is not None
        return join(self.cache, name)

    def split(self, name: str) -> Split:
        return self.manifest.splits[name]

    @property
    def sides(self) -> dict[str, Side]:
        """Return `user` or `item` by feature."""
        return {name: feature.side for name, feature in self.manifest.features.items()}

    @property
    def table_rows(self) -> dict[str, int]:
        """Return the number of rows of the table of each feature; its indices are smaller."""
        features = self.manifest.features.items()
        return {name: self.num_bins.get(name) or feature.num_indices for name, feature in features}

    @property
    def fingerprint(self) -> str:
        """Return a hash of the manifest, which includes the checksums of the shards."""
        return fingerprint(self.manifest.model_dump(mode="json"))


def _num_bins(manifest: DatasetManifest, config: TrainerConfig) -> dict[str, int]:
    hashed = [name for name, feature in manifest.features.items() if feature.encoding == "hashing"]
    if missing := [name for name in hashed if name not in config.hashing]:
        raise DotbiasError(
            f"The dataset holds tokens of {missing[0]!r} (encoding `hashing`), so `trainer.hashing` should say into "
            f"how many bins: hashing: {{{missing[0]}: {{num_bins: 100000}}}}. Received: {sorted(config.hashing)}."
        )
    if unknown := sorted(set(config.hashing) - set(hashed)):
        raise DotbiasError(
            f"`trainer.hashing` should name features with encoding `hashing`: {hashed}. Received: {unknown[0]!r}."
        )
    return {name: config.hashing[name].num_bins for name in hashed}


def side_features(data: Dataset, side: Side) -> list[str]:
    """Return the features of a side in the order of the configuration; the first names users, or items."""
    return [name for name, of_feature in data.sides.items() if of_feature == side]
