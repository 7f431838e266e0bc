"""Autoregressive decoding: language models that read a prompt once, then one token at a time.

The decoders of the project's own networks run in NumPy on the CPU: TensorFlow takes longer to start and to compile the
functions than they take to write a page. A decoder has four methods: ``new_state`` returns the state of a batch,
``prefill`` reads the prompt of one row, and ``decode_step`` reads one more token of every row. ``read`` reads a text
without a state.
"""

from __future__ import annotations

import functools
import io
import itertools
import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dltoolkit.errors import UserError
from dltoolkit.models import model_size
from dltoolkit.models.language import cached_layers

if TYPE_CHECKING:
    import h5py
    import keras

PARTS = {  # layers within a layer, in the order of their weights
    "DecoderBlock": ("qkv", "proj", "fc1", "fc2"),
    "SimpleRNN": ("cell",),
    "LSTM": ("cell",),
    "GRU": ("cell",),
}
RECURRENT = {
    "SimpleRNN": cached_layers.CachedRNN,
    "LSTM": cached_layers.CachedLSTM,
    "GRU": cached_layers.CachedGRU,
}


@dataclass(frozen=True)
class LayerWeights:
    """A layer of a Keras model: the name of its class, its configuration and its weights float32."""

    class_name: str
    config: dict[str, Any]
    weights: list[np.ndarray]


def build(model: keras.Model) -> CachedDecoder | EnsembleDecoder | UncachedDecoder:
    """Return the fastest decoder for a language model."""
    if all(layer.name != "bigram_embedding" for layer in model.layers):
        return UncachedDecoder(model)
    layers = {
        layer.name: LayerWeights(
            type(layer).__name__, layer.get_config(), [weight.astype(np.float32) for weight in layer.get_weights()]
        )
        for layer in model.layers
    }
    return _build_cached(layers)


def load(path: Path) -> CachedDecoder | EnsembleDecoder | None:
    """Return the decoder for the .keras file of a model of ``gpt.build``, without TensorFlow.

    Returns:
        The decoder, or None if the file holds another network.

    Raises:
        UserError: If the file is damaged.
    """
    status = path.stat()
    return _load(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _load(path: Path, modified: int, size: int) -> CachedDecoder | EnsembleDecoder | None:
    """Return the decoder for a file, which is read again after it has been written again."""
    try:
        with zipfile.ZipFile(path) as archive:
            if model_size.is_compressed(archive, size):
                raise ValueError("compressed")
            layers = {layer["name"]: layer for layer in json.loads(archive.read("config.json"))["config"]["layers"]}
            if "bigram_embedding" not in layers:
                return None
            weights = _read_weights(archive.read("model.weights.h5"), layers)
        return _build_cached(
            {name: LayerWeights(layers[name]["class_name"], layers[name]["config"], weights[name]) for name in weights}
        )
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, AttributeError, zipfile.BadZipFile):
        raise UserError(f"{path} is damaged or not a Keras model, and was not loaded.") from None


def _read_weights(content: bytes, layers: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """Return the weights of each layer from the HDF5 file of a Keras model, whose groups hold the names of layers."""
    import h5py

    weights = {}
    with h5py.File(io.BytesIO(content)) as file:
        for key in file["layers"]:
            group = _child(file["layers"], key)
            name = _child(group, "vars").attrs["name"]
            parts = [_child(group, part) for part in PARTS.get(layers[name]["class_name"], ())] or [group]
            weights[name] = [array for part in parts for array in _read_arrays(_child(part, "vars"))]
    return weights


def _child(group: h5py.Group, name: str) -> Any:
    """Return an entry of a group; a link to another file is refused."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError("not an entry of this file")
    return group[name]


def _read_arrays(group: h5py.Group) -> list[np.ndarray]:
    arrays = []
    for name in sorted(group, key=int):
        dataset = _child(group, name)
        if dataset.external or dataset.id.get_storage_size() != dataset.nbytes:
            raise ValueError("not stored as it is")  # so that a small file cannot ask for a lot of memory
        arrays.append(dataset[()].astype(np.float32))
    return arrays


def _build_cached(layers: dict[str, LayerWeights]) -> CachedDecoder | EnsembleDecoder:
    heads = sorted(name for name in layers if re.fullmatch(r"logits(_model_\d+)?", name))
    decoders = [CachedDecoder(layers, head.removeprefix("logits")) for head in heads]
    return decoders[0] if len(decoders) == 1 else EnsembleDecoder(decoders)


class CachedDecoder:
    """A decoder that keeps the keys and values of a GPT, or the states of a recurrent model.

    Args:
        layers: The layers of a model of ``gpt.build`` by name.
        suffix: Suffix of the names of one model of an ensemble.
    """

    def __init__(self, layers: dict[str, LayerWeights], suffix: str = ""):
        (self._embedding,) = layers[f"embedding{suffix}"].weights
        (self._bigram_embedding,) = layers[f"bigram_embedding{suffix}"].weights
        (self._head,) = layers[f"logits{suffix}"].weights
        self.vocab_size = self._head.shape[1]
        self._layers: list[cached_layers.CachedBlock | cached_layers.CachedRNN] = []
        for index in itertools.count(1):
            if block := layers.get(f"block_{index}{suffix}"):
                self._layers.append(cached_layers.CachedBlock(block.weights, block.config["heads"]))
            elif layer := layers.get(f"layer_{index}{suffix}"):
                self._layers.append(RECURRENT[layer.class_name](layer.weights))
            else:
                break
        self._norm = layers.get(f"norm{suffix}")

    def new_state(self, rows: int, window: int) -> list[Any]:
        """Return the state of a batch: the previous tokens, the lengths of the texts, and the state of each layer.

        The other methods change it.

        Args:
            rows: Number of texts.
            window: Maximum number of tokens of a text.
        """
        counts = np.zeros((2, rows), np.int64)
        return [counts[0], counts[1], *(layer.new_state(rows, window) for layer in self._layers)]

    def prefill(self, state: list[Any], row: int, token_ids: np.ndarray) -> np.ndarray:
        """Read the prompt of a row instead of its earlier text, and return the logits of the next token (vocab_size,).

        Args:
            state: State of the batch.
            row: Index of the row.
            token_ids: Prompt, int (time,), with 1 to ``window`` tokens.
        """
        return self._logits(self._read(state, row, token_ids)[-1])

    def read(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the logits of the next token after each token of a text, (time, vocab_size).

        Args:
            token_ids: The text, int (time,), with at least one token.
        """
        return self._logits(self._read(self.new_state(1, len(token_ids)), 0, token_ids))

    def decode_step(self, state: list[Any], token_ids: np.ndarray) -> np.ndarray:
        """Read one more token of each row, int (rows,), and return the logits of the next token (rows, vocab_size)."""
        previous_ids, lengths, *layer_states = state
        x = self._embed(previous_ids, token_ids.astype(np.int64))[:, None]
        for layer, layer_state in zip(self._layers, layer_states, strict=True):
            x = layer.decode_step(x, layer_state, lengths)
        previous_ids[:] = token_ids
        lengths += 1
        return self._logits(x)[:, 0]

    def _read(self, state: list[Any], row: int, token_ids: np.ndarray) -> np.ndarray:
        """Return the outputs of the layers for the prompt of a row, (time, units), and store its state."""
        previous_ids, lengths, *layer_states = state
        token_ids = np.asarray(token_ids, np.int64)
        x = self._embed(np.concatenate([[0], token_ids[:-1]]), token_ids)[None]
        for layer, layer_state in zip(self._layers, layer_states, strict=True):
            x = layer.prefill(x, layer_state, row)
        previous_ids[row], lengths[row] = token_ids[-1], len(token_ids)
        return x[0]

    def _embed(self, previous_ids: np.ndarray, token_ids: np.ndarray) -> np.ndarray:
        buckets = len(self._bigram_embedding)
        bigrams = cached_layers.hash_bigrams(previous_ids, token_ids, len(self._embedding), buckets)
        return self._embedding[token_ids] + self._bigram_embedding[bigrams]

    def _logits(self, x: np.ndarray) -> np.ndarray:
        if self._norm:
            x = cached_layers.rms_norm(x, self._norm.config["epsilon"]) * self._norm.weights[0]
        return x @ self._head


class EnsembleDecoder:
    """A decoder for an ensemble, which averages the probabilities of its models.

    Args:
        decoders: A decoder for each model.
    """

    def __init__(self, decoders: list[CachedDecoder]):
        self._decoders = decoders
        self.vocab_size = decoders[0].vocab_size

    def new_state(self, rows: int, window: int) -> list[Any]:
        """Return the states of all models; see :meth:`CachedDecoder.new_state`."""
        return [decoder.new_state(rows, window) for decoder in self._decoders]

    def prefill(self, state: list[Any], row: int, token_ids: np.ndarray) -> np.ndarray:
        """Read the prompt of a row as :meth:`CachedDecoder.prefill` does."""
        return _average(
            [decoder.prefill(part, row, token_ids) for decoder, part in zip(self._decoders, state, strict=True)]
        )

    def read(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the logits after each token of a text as :meth:`CachedDecoder.read` does."""
        return _average([decoder.read(token_ids) for decoder in self._decoders])

    def decode_step(self, state: list[Any], token_ids: np.ndarray) -> np.ndarray:
        """Read one more token of each row as :meth:`CachedDecoder.decode_step` does."""
        return _average(
            [decoder.decode_step(part, token_ids) for decoder, part in zip(self._decoders, state, strict=True)]
        )


def _average(logits: list[np.ndarray]) -> np.ndarray:
    """Return the logarithm of the mean probabilities of several logits (…, vocab_size)."""
    tiny = np.finfo(np.float32).tiny  # so that the logarithm of a probability of 0 is a number
    return np.log(np.mean([cached_layers.softmax(part) for part in logits], axis=0) + tiny)


class UncachedDecoder:
    """A decoder for any language model, which reads the whole window for each token.

    Each row is read by itself, so that it does not depend on the other rows.

    Args:
        model: Token IDs int32 (batch, time) -> logits (batch, time, vocab_size) that do not depend on later tokens.
    """

    def __init__(self, model: keras.Model):
        import tensorflow as tf

        self.vocab_size = model.output_shape[-1]
        self._logits_at = tf.function(
            lambda token_ids, position: tf.cast(model(token_ids, training=False)[0, position], tf.float32)
        )
        self._logits = tf.function(
            lambda token_ids: tf.cast(model(token_ids, training=False)[0], tf.float32), reduce_retracing=True
        )

    def new_state(self, rows: int, window: int) -> list[np.ndarray]:
        """Return the state of a batch: the tokens and the lengths of the texts; see :meth:`CachedDecoder.new_state`."""
        return [np.zeros((rows, window), np.int32), np.zeros(rows, np.int64)]

    def prefill(self, state: list[np.ndarray], row: int, token_ids: np.ndarray) -> np.ndarray:
        """Read the prompt of a row as :meth:`CachedDecoder.prefill` does."""
        texts, lengths = state
        texts[row, : len(token_ids)], lengths[row] = token_ids, len(token_ids)
        return self._read(texts[row], lengths[row])

    def read(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the logits after each token of a text as :meth:`CachedDecoder.read` does."""
        return self._logits(np.asarray(token_ids, np.int32)[None]).numpy()

    def decode_step(self, state: list[np.ndarray], token_ids: np.ndarray) -> np.ndarray:
        """Read one more token of each row as :meth:`CachedDecoder.decode_step` does."""
        texts, lengths = state
        texts[np.arange(len(texts)), lengths] = token_ids
        lengths += 1
        return np.stack([self._read(text, length) for text, length in zip(texts, lengths, strict=True)])

    def _read(self, text: np.ndarray, length: int) -> np.ndarray:
        import tensorflow as tf

        return self._logits_at(tf.constant(text[None]), tf.constant(length - 1, tf.int32)).numpy()
