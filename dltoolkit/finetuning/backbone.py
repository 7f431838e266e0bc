"""Backbones: the pretrained networks that a value of ``--backbone`` can name, without their heads.

:func:`resolve` turns the name into a :class:`Backbone` once. The recipes then ask this object for the network.
"""

from __future__ import annotations

import contextlib
import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from dltoolkit import data, evaluation, files, models, saved_runs
from dltoolkit.errors import UserError, did_you_mean
from dltoolkit.files import user_path
from dltoolkit.formatting import counted
from dltoolkit.run import Run

if TYPE_CHECKING:
    import keras

    from dltoolkit.data.language.tokenizers import Tokenizer
    from dltoolkit.models.pretrained.text_backbones import TextBackbone

PRESET_OPTIMIZER, PRESET_LEARNING_RATE = "adamw", 1e-4  # of KerasHub decoders, which forget at high rates
PRESET_CONTEXT_LENGTH = 128  # tokens, unless the user sets a length or the network reads fewer
DIGITS = "digits-half"  # the name of the default image backbone, which needs no download


class Backbone:
    """A pretrained network that training continues from; the subclasses are its possible sources.

    Args:
        name: The backbone as the user gave it.
        seed: Seed of random numbers in the network, such as those of dropout.

    Attributes:
        kind: The source of the network, as messages call it.
        spec: The value of ``--backbone`` that names this backbone again.
        pretrained_at_scale: Whether the network was trained on a large data set, as published networks are.
        reads: The inputs that the network may read.
    """

    kind: ClassVar[Literal["the digits", "a keras.applications network", "a KerasHub preset", "a file", "a run"]]
    pretrained_at_scale: ClassVar[bool] = False
    reads: ClassVar[tuple[Literal["image", "text"], ...]] = ("image",)
    image_size_needs_tensorflow = False  # whether the network must be opened to know its image size

    def __init__(self, name: str, seed: int = 0):
        self.name = self.spec = name
        self._seed = seed

    @property
    def image_size(self) -> int | None:
        """The image side in pixels that the network was trained with; None if any size suits it."""
        return None

    @property
    def weights_file(self) -> Path | None:
        """The local file that the weights come from, if they come from one that the user may change."""
        return None

    def check_reads(self, task: Literal["image", "text"]) -> None:
        """Refuse data that the network cannot read as far as this is known without opening it.

        Raises:
            UserError: If the network does not read such data.
        """

    def image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        """Return the network without its head: raw pixels in, features (batch, units) out.

        Raises:
            UserError: If the network cannot be read, or does not read images of this shape.
        """
        features = self._image_features(image_shape)
        shape = features.input_shape[1:]
        if any(size not in (None, actual) for size, actual in zip(shape, image_shape, strict=True)):
            expected, actual = ("x".join(str(size or "any size") for size in each) for each in (shape, image_shape))
            raise UserError(f"{self.name} reads images of {expected}, but the images of the data are {actual}.")
        return models.surgery.with_input_shape(features, image_shape) if None in shape else features

    def _image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        raise NotImplementedError

    def text_features(self, max_length: int, dropout: float = 0.0) -> TextBackbone:
        """Return the network without its head and the encoder that turns texts into its token IDs.

        Args:
            max_length: Maximum number of tokens per text.
            dropout: Dropout rate inside a KerasHub transformer.

        Raises:
            UserError: If the network cannot be read, or does not read texts.
        """
        raise UserError(
            f"{self.name} does not read texts: give --backbone a KerasHub preset or its folder, or a run of "
            "sentiment-analyzer or text-generator."
        )

    def language_model(
        self, context_length: int | None = None, learning_rate: float | None = None
    ) -> tuple[keras.Model, Tokenizer, dict[str, Any]]:
        """Return the network with its language model head, its tokenizer and the options that they decide.

        Args:
            context_length: The value of ``--context-length``.
            learning_rate: The value of ``--learning-rate``.

        Raises:
            UserError: If the network cannot be read, or does not generate text.
        """
        raise UserError(
            f"{self.name} does not generate text: give --backbone a run of text-generator or a KerasHub preset such as "
            "gpt2_base_en."
        )

    def check_unchanged(self, run: Run) -> None:
        """Store the hash of the weights file in a new run, or compare it with the stored hash in a resumed run.

        Raises:
            UserError: If the weights file has changed since the run began.
        """
        path = self.weights_file
        if path is None:
            return
        digest = files.sha256(path)
        if run.info.get("backbone_sha256", digest) != digest:
            raise UserError(
                f"{path} has changed since {run.path.name} began, so it cannot be resumed: train a new run."
            )
        run.update(backbone_sha256=digest)


class DigitsBackbone(Backbone):
    """A small classifier that is trained on the bundled digits 0 to 4 when it is built.

    Args:
        name: The backbone as the user gave it; None if the user gave none.
        seed: Seed of its training.
    """

    kind = "the digits"

    def __init__(self, name: str | None, seed: int):
        super().__init__(DIGITS, seed)
        self.spec = name

    def _image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        splits = data.image.dataset.load("digits", seed=self._seed)
        if image_shape != splits.image_shape:
            shape = "x".join(map(str, image_shape))
            raise UserError(
                f"The images of the data are {shape}: give --backbone a network that reads such images, for example "
                "MobileNetV2 ('dltoolkit list backbones' lists more); the default network reads only digits of 8x8x1."
            )
        rows = splits.train[splits.labels[splits.train] < 5]
        extractor = evaluation.feature_extractor.train(
            splits.images[rows], splits.labels[rows], splits.classes[:5], seed=self._seed
        )
        return models.surgery.without_head(extractor.model, self.name)


class ApplicationBackbone(Backbone):
    """A network of ``keras.applications``.

    Args:
        name: The backbone as the user gave it.
        architecture: Its key in ``keras_applications.APPLICATIONS``.
        weights: Path of a weights file; None for the ImageNet weights that Keras publishes.
    """

    kind = "a keras.applications network"
    pretrained_at_scale = True

    def __init__(self, name: str, architecture: str, weights: str | None):
        super().__init__(name)
        self._architecture, self._weights = architecture, weights

    @property
    def image_size(self) -> int:
        return models.pretrained.keras_applications.APPLICATIONS[self._architecture].image_size

    @property
    def weights_file(self) -> Path | None:
        return user_path(self._weights) if self._weights else None

    def _image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        weights = str(self.weights_file or "imagenet")
        return models.pretrained.image_backbones.from_application(self._architecture, image_shape, weights)


class PresetBackbone(Backbone):
    """A preset of KerasHub: a name, ``hf://…``, ``kaggle://…`` or a local folder."""

    kind = "a KerasHub preset"
    pretrained_at_scale = True
    image_size_needs_tensorflow = True
    reads = ("image", "text")

    @property
    def image_size(self) -> int | None:
        return models.pretrained.keras_hub.image_size(self.name)

    def _image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        return models.pretrained.image_backbones.from_preset(self.name, image_shape)

    def text_features(self, max_length: int, dropout: float = 0.0) -> TextBackbone:
        return models.pretrained.text_backbones.from_preset(self.name, max_length, dropout)

    def language_model(
        self, context_length: int | None = None, learning_rate: float | None = None
    ) -> tuple[keras.Model, Tokenizer, dict[str, Any]]:
        model, tokenizer, size = models.language.gpt.from_preset(self.name)
        max_length = size.pop("max_length")
        decided = {
            **size,
            "ensemble_size": 1,
            "dropout": 0.0,
            "context_length": min(context_length or PRESET_CONTEXT_LENGTH, max_length),
            "optimizer": PRESET_OPTIMIZER,
            "learning_rate": learning_rate or PRESET_LEARNING_RATE,
        }
        return model, data.language.tokenizers.KerasHubTokenizer(tokenizer), decided


class FileBackbone(Backbone):
    """An image classifier in a ``.keras`` file, which is loaded once."""

    kind = "a file"
    image_size_needs_tensorflow = True

    @property
    def weights_file(self) -> Path:
        return user_path(self.name)

    @functools.cached_property
    def _model(self) -> keras.Model:
        import keras

        keras.utils.set_random_seed(self._seed)  # dropout layers draw their seeds when they are loaded
        model = models.model_file.load_model(self.weights_file)
        inputs, outputs = len(model.inputs), len(model.outputs)
        if (inputs, outputs) != (1, 1):
            ends = f"{counted(inputs, 'input')} and {counted(outputs, 'output')}"
            raise UserError(f"{self.name} has {ends}: give --backbone a classifier with one of each.")
        if len(model.input_shape) != 4:
            shape = ", ".join(map(str, model.input_shape[1:]))
            raise UserError(
                f"{self.name} does not read images (batch, height, width, channels): its inputs are (batch, {shape})."
            )
        return model

    @property
    def image_size(self) -> int | None:
        return self._model.input_shape[1]

    def _image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        return models.surgery.without_head(self._model, self.name)


class RunBackbone(Backbone):
    """The network of an earlier run, which is loaded once.

    Args:
        name: The run as the user gave it.
        seed: Seed of random numbers in the network, such as those of dropout.
        run: The run.
    """

    kind = "a run"
    reads = ("image", "text")

    def __init__(self, name: str, seed: int, run: Run):
        super().__init__(name, seed)
        self.run = run
        if name == "latest":  # would name another run later
            self.spec = str(run.path)

    @property
    def image_size_needs_tensorflow(self) -> bool:
        return not self._recorded_shape

    @property
    def _recorded_shape(self) -> tuple[int | None, ...]:
        """The shape of one input in run.json; empty if training did not record it."""
        return tuple(self.run.info.get("model", {}).get("input_shape", ()))

    @functools.cached_property
    def _model(self) -> keras.Model:
        import keras

        keras.utils.set_random_seed(self._seed)  # dropout layers draw their seeds when they are loaded
        return self.run.model

    def check_reads(self, task: Literal["image", "text"]) -> None:
        if self._recorded_shape:
            self._input_shape(f"{task}s", 3 if task == "image" else 1)
        if self.run.info["config"].get("model") == "ngram":
            raise UserError(
                f"{self.name} is a run of --model=ngram, which cannot be a backbone because it counts n-grams instead "
                "of reading sequences: give --backbone a run of --model=cnn, lstm, gru, rnn or transformer, a run of "
                "text-generator, or a KerasHub preset."
            )

    @property
    def weights_file(self) -> Path:
        return self.run.path / "model.keras"

    @property
    def image_size(self) -> int | None:
        return self._input_shape("images", 3)[0]

    def _image_features(self, image_shape: tuple[int, int, int]) -> keras.Model:
        self._input_shape("images", 3)
        return models.surgery.without_head(self._model, self.name)

    def text_features(self, max_length: int, dropout: float = 0.0) -> TextBackbone:
        self._input_shape("texts", 1)
        return models.pretrained.text_backbones.from_run(self._model, self.run.path, self.name, max_length)

    def language_model(
        self, context_length: int | None = None, learning_rate: float | None = None
    ) -> tuple[keras.Model, Tokenizer, dict[str, Any]]:
        if self.run.info["recipe"] != "text-generator":
            raise UserError(f"{self.name} is a run of {self.run.info['recipe']}, which does not generate text.")
        sizes = {name: size for name, size in self.run.info["resolved"].items() if name != "batch_tokens"}
        decided = {"model": self.run.info["config"]["model"], **sizes}
        return self._model, evaluation.text_generation.load_tokenizer(self.run), decided

    def _input_shape(self, inputs: str, axes: int) -> tuple[int | None, ...]:
        """Return the shape of one input, or raise a UserError if the network does not read ``inputs``."""
        shape = self._recorded_shape or self._model.input_shape[1:]
        if len(shape) != axes:
            raise UserError(f"{self.name} is a run of {self.run.info['recipe']}, which does not read {inputs}.")
        return shape


def resolve(name: str | None, *, weights: str | None = None, out_dir: str = "saved_models", seed: int = 0) -> Backbone:
    """Return the backbone that a value of ``--backbone`` names.

    Args:
        name: A name of ``dltoolkit list backbones``, a KerasHub preset or its folder, a run, or a ``.keras`` file;
            None for the default image backbone.
        weights: Path of a weights file for a network of ``keras.applications``; None for the ImageNet weights.
        out_dir: The folder of the runs.
        seed: Seed of random numbers in the network.

    Raises:
        UserError: If there is no backbone of this name.
    """
    if name in (None, DIGITS):
        return DigitsBackbone(name, seed)
    if architecture := models.pretrained.keras_applications.find(name):
        return ApplicationBackbone(name, architecture, weights)
    if models.pretrained.keras_hub.is_preset(name):
        return PresetBackbone(name)
    if name.endswith(".keras"):
        if not os.path.exists(user_path(name)):
            raise UserError(f"There is no file {name}: give --backbone an existing .keras file.")
        return FileBackbone(name, seed)
    if os.path.isfile(user_path(name)):
        raise UserError(f"{name} is not a .keras file; other files are not opened, because a pickle may run code.")
    with contextlib.suppress(saved_runs.RunNotFound):
        return RunBackbone(name, seed, saved_runs.load(name, out_dir))
    presets = models.pretrained.keras_hub.preset_names()
    if name in presets:
        return PresetBackbone(name)
    run_names = [run.path.name for run in saved_runs.runs(out_dir)]
    near = did_you_mean(name, [*models.pretrained.keras_applications.APPLICATIONS, *presets, *run_names])
    raise UserError(
        f"There is no backbone '{name}': give a name of 'dltoolkit list backbones', a KerasHub preset, a run or a "
        f".keras file.{near}"
    )
