"""Data sets of TensorFlow Datasets (TFDS), which is imported only to read one."""

import contextlib
import io
import logging
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit import network
from dltoolkit.data.readers.catalog import tfds_folder, tfds_is_installed, tfds_names
from dltoolkit.data.readers.source import split_name
from dltoolkit.errors import UserError, did_you_mean

Progress = Callable[[str, int, int], None]
USE_LOCAL_DATA = "to use local data, give --data a folder of class folders, a table or an .npz file"


@dataclass(frozen=True)
class PreparedDataset:
    """A TFDS data set whose files are on this machine.

    Attributes:
        builder: Its TFDS builder.
        content: Name of the feature that contains the image or the text.
        label: Name of the feature that contains the label.
        classes: Names of the labels in order.
        split_sizes: (TFDS split, number of examples) in order.
        shape: (height, width, channels) if all images have the same shape, otherwise None.
    """

    builder: Any
    content: str
    label: str
    classes: list[str]
    split_sizes: list[tuple[str, int]]
    shape: tuple[int, int, int] | None

    def batches(self, split: str, *, contents: bool, decoded: bool, size: int = 512) -> Iterator[tuple]:
        """Yield (contents, labels) of batches in the order of the files.

        Args:
            split: TFDS split.
            contents: Whether to read the images or texts; otherwise None replaces them.
            decoded: Whether images are arrays instead of the bytes of their files. Texts are always bytes.
            size: Maximum number of examples in a batch.
        """
        import tensorflow_datasets as tfds

        decoders = None
        if not contents:
            decoders = tfds.decode.PartialDecoding({self.label: True})
        elif not decoded:
            decoders = {self.content: tfds.decode.SkipDecoding()}
        # One file after the other, so that example 17 is the one that TFDS calls split[17:18]
        config = tfds.ReadConfig(interleave_cycle_length=1)
        with _quiet():
            data = self.builder.as_dataset(split=split, decoders=decoders, read_config=config, shuffle_files=False)
            for batch in data.batch(size).prefetch(2).as_numpy_iterator():
                yield (batch[self.content] if contents else None), batch[self.label]


class EncodedImages:
    """The encoded images of a data set, which are read again in each iteration, one batch at a time.

    Args:
        dataset: The data set.
        splits: TFDS splits, one after the other.
        mask: bool (n,), True for the examples of the splits that are included.
    """

    def __init__(self, dataset: PreparedDataset, splits: list[str], mask: np.ndarray):
        self._dataset, self._splits, self._mask = dataset, splits, mask

    def __len__(self) -> int:
        return int(self._mask.sum())

    def __iter__(self) -> Iterator[bytes]:
        start = 0
        for split in self._splits:
            for images, _ in self._dataset.batches(split, contents=True, decoded=False, size=64):
                yield from images[self._mask[start : start + len(images)]]
                start += len(images)

    def take(self, indices: np.ndarray) -> "EncodedImages":
        """Return the images at these indices (ascending) of the included ones."""
        mask = np.zeros_like(self._mask)
        mask[np.flatnonzero(self._mask)[indices]] = True
        return EncodedImages(self._dataset, self._splits, mask)


def prepare(reference: str, noun: str, progress: Progress | None = None) -> PreparedDataset:
    """Return a data set for classification after downloading and preparing it if necessary.

    Args:
        reference: NAME, NAME/CONFIG or NAME:VERSION.
        noun: Kind of its examples, "image" or "text".
        progress: Function that is called with the task, the amount that is done and the total.

    Raises:
        UserError: If it does not exist, cannot be downloaded, or has no images (or texts) with one label each.
    """
    builder, (content, label) = _prepare_builder(reference, lambda it: _find_features(it, reference, noun), progress)
    features, splits = builder.info.features, builder.info.splits
    shape = features[content].shape
    same_shape = features[content].np_dtype == np.uint8 and len(shape) == 3 and None not in shape
    return PreparedDataset(
        builder,
        content,
        label,
        classes=list(features[label].names),
        split_sizes=[(str(split), info.num_examples) for split, info in splits.items() if info.num_examples],
        shape=tuple(shape) if same_shape else None,
    )


def contains_texts(reference: str) -> bool:
    """Return whether a data set has texts but no images, without downloading it."""
    import tensorflow_datasets as tfds

    with _quiet():
        features = _features(_open_builder(reference))
    types = [type(feature) for feature in features.values()]
    return tfds.features.Text in types and tfds.features.Image not in types


def read_texts(reference: str) -> dict[str, list[str]]:
    """Return the texts of a data set by split ("train", "validation", "test"), or by "" if it has a single split.

    Raises:
        UserError: As in :func:`prepare`; also if the data set does not have exactly one text feature.
    """
    import tensorflow_datasets as tfds

    def find_text(builder: Any) -> str:
        features = _features(builder)
        names = [name for name, feature in features.items() if type(feature) is tfds.features.Text]
        if len(names) != 1:
            raise UserError(
                f"{reference} does not have exactly one text feature (its features: "
                f"{', '.join(features) or 'unnamed'}): choose a data set of plain text, such as tiny_shakespeare."
            )
        return names[0]

    builder, text = _prepare_builder(reference, find_text, None)
    config = tfds.ReadConfig(interleave_cycle_length=1)
    names = [str(split) for split, info in builder.info.splits.items() if info.num_examples]
    splits = {split_name(name): name for name in names if split_name(name)} if len(names) > 1 else {"": names[0]}
    texts = {}
    with _quiet():
        for split, name in splits.items():
            data = builder.as_dataset(split=name, read_config=config, shuffle_files=False)
            texts[split] = [example[text].decode() for example in data.as_numpy_iterator()]
    return texts


def _prepare_builder(reference: str, find_features: Callable[[Any], Any], progress: Progress | None) -> tuple[Any, Any]:
    """Return the builder of a prepared data set, and the features that ``find_features`` returns for it."""
    if not tfds_is_installed():
        raise UserError("TFDS data sets need tensorflow-datasets: pip install tensorflow-datasets importlib_resources.")
    folder, name = tfds_folder(), _base_name(reference)
    before = _files(folder, name)
    with _quiet():
        try:
            builder = _open_builder(reference)
            features = find_features(builder)
            if not builder.is_prepared():
                _download(builder, reference, progress)
        except BaseException:
            _remove_new_files(folder, name, before)
            raise
    return builder, features


def _open_builder(reference: str) -> Any:
    import tensorflow_datasets as tfds

    name = _base_name(reference)
    try:
        return tfds.builder(reference, data_dir=tfds_folder())
    except tfds.core.registered.DatasetNotFoundError:
        raise UserError(
            f"TensorFlow Datasets has no data set '{name}'.{did_you_mean(name, tfds_names())} "
            "All names: https://www.tensorflow.org/datasets/catalog."
        ) from None
    except Exception as error:
        config = reference.partition("/")[2].partition(":")[0]
        configs = [config]
        with contextlib.suppress(Exception):
            configs = list(tfds.builder_cls(name).builder_configs)
        if config not in configs:
            raise UserError(
                f"{name} has no config '{config}'.{did_you_mean(config, configs)} Its configs: "
                f"{', '.join(configs[:20]) or 'none'}{', …' if len(configs) > 20 else ''}."
            ) from None
        raise UserError(f"TensorFlow Datasets cannot open '{reference}': {_shorten(error, 300)}.") from error


def _download(builder: Any, reference: str, progress: Progress | None) -> None:
    """Download and prepare a data set."""
    from tensorflow_datasets.core.download import download_manager, downloader
    from tensorflow_datasets.core.utils import tqdm_utils

    open_url = downloader._open_url

    def open_if_answered(url: str, **options: Any) -> Any:
        network.check_answers(url)  # TFDS would retry for minutes
        return open_url(url, timeout=network.STALL_TIMEOUT, **options)

    if progress:
        progress(f"Downloading {reference}", 0, 1)
    show_bars = tqdm_utils._active and sys.stderr.isatty()
    try:
        with _replaced(downloader, "_open_url", open_if_answered), _replaced(tqdm_utils, "_active", show_bars):
            builder.download_and_prepare()
    except download_manager.NonMatchingChecksumError as error:
        file = re.search(r"downloaded to (\S+?),? has wrong", str(error))
        raise UserError(
            f"A file of {reference}{f', {file[1]},' if file else ''} is not the one that TensorFlow Datasets expects "
            f"(its checksum differs): remove it to download it again; {USE_LOCAL_DATA}."
        ) from error
    except Exception as error:
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and "anual" in str(error):
            raise UserError(
                f"{reference} has to be downloaded by hand: put its files into {tfds_folder()}/downloads/manual "
                f"(see https://www.tensorflow.org/datasets/catalog/{builder.name}); {USE_LOCAL_DATA}."
            ) from error
        raise _download_error(reference, error) from error


def _download_error(reference: str, error: Exception) -> UserError:
    message = f"{type(error).__name__} {error}"
    if isinstance(error, ImportError):
        return UserError(
            f"To prepare {reference}, TensorFlow Datasets needs another package ({_shorten(error)}): install it; "
            f"{USE_LOCAL_DATA}."
        )
    if re.search("resol|onnection|timed? ?out|Max retries|unreachable|answer|HTTP|URL|Download", message):
        return UserError(
            f"{reference} cannot be downloaded ({network.explain(error)}): check the connection, or put a prepared "
            f"copy into {tfds_folder()}; {USE_LOCAL_DATA}."
        )
    return UserError(f"TensorFlow Datasets cannot prepare {reference} ({_shorten(error)}); {USE_LOCAL_DATA}.")


def _find_features(builder: Any, reference: str, noun: str) -> tuple[str, str]:
    """Return the names of the features that contain the image (or text) and its label."""
    import tensorflow_datasets as tfds

    content_type = {"image": tfds.features.Image, "text": tfds.features.Text}[noun]
    features, keys = _features(builder), builder.info.supervised_keys
    if not (keys and len(keys) == 2 and all(isinstance(key, str) for key in keys)):
        matches = [
            [key for key, feature in features.items() if type(feature) is feature_type]
            for feature_type in (content_type, tfds.features.ClassLabel)
        ]
        keys = [names[0] if len(names) == 1 else "" for names in matches]
    content, label = (features.get(key) for key in keys)
    if not isinstance(content, content_type) or not isinstance(label, tfds.features.ClassLabel):
        raise UserError(
            f"{reference} has no {noun} feature with one class label (its features: "
            f"{', '.join(features) or 'unnamed'}): choose a data set for {noun} classification."
        )
    return keys[0], keys[1]


def _features(builder: Any) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    return dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}


def _base_name(reference: str) -> str:
    return re.split("[/:]", reference)[0]


def _files(folder: Path, name: str) -> set[Path]:
    parents = (folder / "downloads", folder / name)
    return {path for parent in parents for path in (folder, parent, *parent.rglob("*")) if path.exists()}


def _remove_new_files(folder: Path, name: str, before: set[Path]) -> None:
    """Remove the new files of a failed attempt, except complete downloads, which the next attempt uses."""
    for path in sorted(_files(folder, name) - before, reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()  # fails if the folder is not empty
        elif ".tmp." in str(path) or (folder / name) in path.parents:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a module within a block."""
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the output and the log messages of TFDS within a block."""
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _shorten(error: Exception, max_length: int = 120) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
