"""Reading published data sets: those Keras downloads itself, and what TensorFlow Datasets (TFDS) builds.

Both libraries are imported only when a set is read.
"""

import contextlib
import io
import logging
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dltoolkit.data.readers.catalog import tfds_folder, tfds_names, tfds_package
from dltoolkit.data.readers.source import part_of
from dltoolkit.errors import UserError, did_you_mean

LOCAL = "to use local data, give --data a folder of class folders, a table or an .npz file"

Parts = dict[str, tuple[np.ndarray, np.ndarray]]  # part -> pictures (n, h, w[, c]) and labels (n,)


def keras_set(name: str) -> Parts:
    """Read one of `catalogue.KERAS_NAMES`, from ``$KERAS_HOME/datasets`` if it is there, otherwise from the network.

    Raises:
        UserError: if it can neither be found nor downloaded.
    """
    import keras

    with _impatient(), contextlib.redirect_stdout(io.StringIO()):
        try:
            train, test = getattr(keras.datasets, name).load_data()
        except Exception as error:
            folder = Path(os.environ.get("KERAS_HOME", "~/.keras")) / "datasets"
            raise UserError(
                f"keras:{name} is not in {folder} and could not be downloaded ({_network(error)}); {LOCAL}."
            ) from error
    return {"train": train, "test": test}


@dataclass(frozen=True)
class Prepared:
    """A TFDS set that is on this machine.

    Attributes:
        builder: the TFDS builder.
        content, label: the names of its two features; the content is a picture or a text.
        classes: label names in order.
        splits: (TFDS split, number of examples) in order.
        shape: (h, w, c) if all pictures have it, otherwise None.
    """

    builder: Any
    content: str
    label: str
    classes: list[str]
    splits: list[tuple[str, int]]
    shape: tuple[int, int, int] | None

    def batches(self, split: str, *, contents: bool, decoded: bool, size: int = 512) -> Iterator[tuple]:
        """Yield (contents or None, labels) of up to ``size`` examples, in the order of the files.

        Texts are bytes; pictures are arrays if ``decoded``, otherwise the bytes of their files.
        """
        import tensorflow_datasets as tfds

        decoders = None
        if not contents:
            decoders = tfds.decode.PartialDecoding({self.label: True})
        elif not decoded:
            decoders = {self.content: tfds.decode.SkipDecoding()}
        # one file after the other, so that the number of an example is the one TFDS' own split[17:18] means
        config = tfds.ReadConfig(interleave_cycle_length=1)
        with _quiet():
            data = self.builder.as_dataset(split=split, decoders=decoders, read_config=config, shuffle_files=False)
            for batch in data.batch(size).prefetch(2).as_numpy_iterator():
                yield (batch[self.content] if contents else None), batch[self.label]


class Encoded:
    """The undecoded pictures of a prepared set, as bytes, read anew each time they are iterated over.

    Only one batch is in memory at a time.
    """

    def __init__(self, prepared: Prepared, splits: list[str], chosen: np.ndarray):
        """``chosen``: bool (n,), which examples of ``splits``, one after the other, to yield."""
        self._prepared, self._splits, self._chosen = prepared, splits, chosen

    def __len__(self) -> int:
        return int(self._chosen.sum())

    def __iter__(self) -> Iterator[bytes]:
        place = 0
        for split in self._splits:
            for pictures, _ in self._prepared.batches(split, contents=True, decoded=False, size=64):
                wanted = self._chosen[place : place + len(pictures)]
                place += len(pictures)
                yield from pictures[wanted]

    def take(self, indices: np.ndarray) -> "Encoded":
        """Return those at ``indices`` (ascending) of the ones chosen so far."""
        chosen = np.zeros_like(self._chosen)
        chosen[np.flatnonzero(self._chosen)[indices]] = True
        return Encoded(self._prepared, self._splits, chosen)


def tfds_set(reference: str, noun: str, progress: Callable[[str, int, int], None] | None = None) -> Prepared:
    """Find, or download and prepare, the TFDS set ``reference`` (NAME, NAME/CONFIG, NAME:VERSION).

    Args:
        noun: "picture" or "text": what its examples have to be.

    Raises:
        UserError: if there is no such set, it cannot be downloaded, or it has no picture (or text) with one label.
    """
    builder, (content, label) = _prepared(reference, lambda builder: _fields(builder, reference, noun), progress)
    features, splits = builder.info.features, builder.info.splits
    shape = features[content].shape
    fixed = features[content].np_dtype == np.uint8 and len(shape) == 3 and None not in shape
    return Prepared(
        builder,
        content,
        label,
        classes=list(features[label].names),
        splits=[(str(split), info.num_examples) for split, info in splits.items() if info.num_examples],
        shape=tuple(shape) if fixed else None,
    )


def tfds_holds_texts(reference: str) -> bool:
    """Tell whether a TFDS set has texts and no pictures, without preparing it."""
    import tensorflow_datasets as tfds

    with _quiet():
        features = _builder(reference, re.split("[/:]", reference)[0]).info.features
    kinds = [type(feature) for feature in features.values()] if isinstance(features, tfds.features.FeaturesDict) else []
    return tfds.features.Text in kinds and tfds.features.Image not in kinds


def tfds_texts(reference: str) -> dict[str, list[str]]:
    """Return the texts of a TFDS set by split, "train" and its siblings; "" for a set with a single split.

    Raises:
        UserError: as `tfds_set`; also if it has not exactly one field of text, or none to train on.
    """
    import tensorflow_datasets as tfds

    def text_field(builder: Any) -> str:
        features = builder.info.features
        fields = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        found = [name for name, feature in fields.items() if type(feature) is tfds.features.Text]
        if len(found) != 1:
            raise UserError(
                f"{reference} has not one field of text (its fields: {', '.join(fields) or 'unnamed'}): choose a set "
                "of running text, such as tiny_shakespeare."
            )
        return found[0]

    builder, field = _prepared(reference, text_field, None)
    config = tfds.ReadConfig(interleave_cycle_length=1)
    names = [str(split) for split, info in builder.info.splits.items() if info.num_examples]
    parts = {(part_of(name) or "") if len(names) > 1 else "": name for name in names}
    parts.pop("" if len(names) > 1 else None, None)
    with _quiet():
        return {
            part: [
                example[field].decode()
                for example in builder.as_dataset(
                    split=name, read_config=config, shuffle_files=False
                ).as_numpy_iterator()
            ]
            for part, name in parts.items()
        }


def _prepared(
    reference: str, fields: Callable[[Any], Any], progress: Callable[[str, int, int], None] | None
) -> tuple[Any, Any]:
    """Return the builder of a set that is on this machine now, and the fields that were found to be of use."""
    if tfds_package() is None:
        raise UserError("TFDS data sets need tensorflow-datasets: pip install tensorflow-datasets importlib_resources.")
    folder, name = tfds_folder(), re.split("[/:]", reference)[0]
    before = _contents(folder, name)
    with _quiet():
        try:
            builder = _builder(reference, name)
            found = fields(builder)
            if not builder.is_prepared():
                _prepare(builder, reference, progress)
        except BaseException:
            _remove_new(folder, name, before)
            raise
    return builder, found


def _builder(reference: str, name: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(reference, data_dir=tfds_folder())
    except tfds.core.registered.DatasetNotFoundError:
        raise UserError(
            f"TensorFlow Datasets has no set called '{name}'.{did_you_mean(name, tfds_names())} "
            "All names: https://www.tensorflow.org/datasets/catalog."
        ) from None
    except Exception as error:
        config = reference.partition("/")[2].partition(":")[0]
        known = [config]
        with contextlib.suppress(Exception):
            known = list(tfds.builder_cls(name).builder_configs)
        if config not in known:
            raise UserError(
                f"{name} has no variant '{config}'.{did_you_mean(config, known)} Its variants: "
                f"{', '.join(known[:20]) or 'none'}{', …' if len(known) > 20 else ''}."
            ) from None
        raise UserError(f"TensorFlow Datasets cannot open '{reference}': {_short(error, 300)}.") from error


def _prepare(builder: Any, reference: str, progress: Callable[[str, int, int], None] | None) -> None:
    """Download and build a set."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import download_manager, downloader

    if progress:
        progress(f"Downloading {reference}", 0, 1)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    retries, downloader.MAX_RETRIES = downloader.MAX_RETRIES, 2  # ten, the default, hold an offline user for minutes
    try:
        with _impatient():
            builder.download_and_prepare()
    except download_manager.NonMatchingChecksumError as error:
        what = re.search(r"downloaded to (\S+?),? has wrong", str(error))
        raise UserError(
            f"A file of {reference}{f', {what[1]},' if what else ''} is not the one TensorFlow Datasets expects "
            f"(its checksum differs): remove it to download it anew; or, {LOCAL}."
        ) from error
    except Exception as error:
        if builder.MANUAL_DOWNLOAD_INSTRUCTIONS and "anual" in str(error):
            raise UserError(
                f"{reference} has to be downloaded by hand: put its files into {tfds_folder()}/downloads/manual "
                f"(see https://www.tensorflow.org/datasets/catalog/{builder.name}); or, {LOCAL}."
            ) from error
        # downloads that go on in threads of their own have nothing more to say
        logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
        raise _cannot(reference, error) from error
    finally:
        downloader.MAX_RETRIES = retries


def _cannot(reference: str, error: Exception) -> UserError:
    kind = f"{type(error).__name__} {error}"
    if isinstance(error, ImportError):
        return UserError(f"To build {reference}, TensorFlow Datasets needs another package ({_short(error)}); {LOCAL}.")
    if re.search("resol|onnection|timed? ?out|Max retries|unreachable|HTTP|URL|Download", kind):
        return UserError(
            f"{reference} could not be downloaded ({_network(error)}): check the connection, or put a prepared copy "
            f"into {tfds_folder()}; {LOCAL}."
        )
    return UserError(f"TensorFlow Datasets could not prepare {reference} ({_short(error)}); {LOCAL}.")


def _fields(builder: Any, reference: str, noun: str) -> tuple[str, str]:
    """Return the names of the features that hold the picture (or the text) and its label."""
    import tensorflow_datasets as tfds

    wanted = {"picture": tfds.features.Image, "text": tfds.features.Text}[noun]
    features = builder.info.features
    fields = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    keys = builder.info.supervised_keys
    if not (keys and len(keys) == 2 and all(isinstance(key, str) for key in keys)):
        found = [
            [key for key, feature in fields.items() if type(feature) is kind]
            for kind in (wanted, tfds.features.ClassLabel)
        ]
        keys = [names[0] if len(names) == 1 else "" for names in found]
    content, label = (fields.get(key) for key in keys)
    if not isinstance(content, wanted) or not isinstance(label, tfds.features.ClassLabel):
        raise UserError(
            f"{reference} has no {noun} with one class label (its fields: {', '.join(fields) or 'unnamed'}): "
            f"choose a set for the classification of {noun}s."
        )
    return keys[0], keys[1]


def _contents(folder: Path, name: str) -> set[Path]:
    places = (folder / "downloads", folder / name)
    return {path for place in places for path in (folder, place, *place.rglob("*")) if path.exists()}


def _remove_new(folder: Path, name: str, before: set[Path]) -> None:
    """Remove what a failed attempt left; what was there before and complete downloads stay."""
    for path in sorted(_contents(folder, name) - before, reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()  # if it is empty
        elif ".tmp." in str(path) or (folder / name) in path.parents:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Give up on a silent network after ten seconds."""
    saved = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        yield
    finally:
        socket.setdefaulttimeout(saved)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what TFDS prints and logs off the terminal."""
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


def _network(error: Exception) -> str:
    text = str(error)
    if re.search("resol|Name or service", text):
        return "no network, or the host is not known"
    if re.search("timed? ?out", text):
        return "the host does not answer"
    return _short(error)


def _short(error: Exception, length: int = 120) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else text[: length - 1] + "…"
