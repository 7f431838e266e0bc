"""Networks as TensorFlow functions with named inputs and outputs, which every format is converted from.

A function holds the variables of the network once, and nothing else of Keras. Test-time augmentation and the
calibration temperature are layers of the saved model already, so that the probabilities are those of ``predict``.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from dltoolkit.models import fused
from dltoolkit.models.language import decoder_layers, gpt

if TYPE_CHECKING:
    from dltoolkit.run import Run

SIGNATURE = "serving_default"  # name of the only signature of a SavedModel


@dataclass(frozen=True)
class Graph:
    """A network as a function.

    Attributes:
        module: The function ``module.answer`` and its variables.
        specs: The inputs by name; a size is None if a runtime may choose it.
        state: Names of the inputs of a language model that are outputs of its last call, by their output names.
    """

    module: tf.Module
    specs: dict[str, tf.TensorSpec]
    state: dict[str, str] = field(default_factory=dict)

    @property
    def empty_state(self) -> dict[str, list[int]]:
        """Shape of each state input before the first token of one text."""
        names = self.state.values()
        return {name: [1, *(0 if size is None else size for size in self.specs[name].shape[1:])] for name in names}

    @property
    def function(self) -> Any:
        """The function, traced for the sizes of ``specs``."""
        return self.module.answer.get_concrete_function()


def of_run(run: Run, batch: int | None) -> Graph:
    """Return the network of a run for a number of inputs per call, or None for any."""
    if run.has_verb("stream_text"):
        return language_model(run.model, batch)
    return (classifier if run.has_verb("predictor") else generator)(run.model, batch)


def classifier(model: keras.Model, batch: int | None = None) -> Graph:
    """Return the function of a classifier, from raw pixels or token IDs to ``logits`` and ``probabilities``.

    Args:
        model: Raw inputs in, logits (batch, classes) out.
        batch: Fixed number of inputs of a call; None for any number.
    """
    is_image = len(model.input_shape) == 4
    spec = tf.TensorSpec(
        (batch, *model.input_shape[1:]), "uint8" if is_image else "int32", name="image" if is_image else "token_ids"
    )

    def answer(inputs):
        logits = tf.cast(model(inputs, training=False), tf.float32)
        return {"logits": logits, "probabilities": tf.nn.softmax(logits)}

    return _graph(answer, [spec], model.variables)


def generator(model: keras.Model, batch: int | None = None) -> Graph:
    """Return the function of a generator, from ``noise`` and, with classes, ``label`` to ``image``, -1 to 1."""
    latents = model.inputs[0]
    specs = [tf.TensorSpec((batch, latents.shape[1]), "float32", name="noise")]
    if len(model.inputs) == 1:
        return _graph(lambda noise: {"image": _as_float(model(noise, training=False))}, specs, model.variables)
    specs.append(tf.TensorSpec((batch,), "int32", name="label"))
    return _graph(
        lambda noise, label: {"image": _as_float(model([noise, label], training=False))}, specs, model.variables
    )


def language_model(model: keras.Model, batch: int | None = None) -> Graph:
    """Return the function of a language model, from ``token_ids`` (batch, time) to ``logits`` (batch, time, tokens).

    A network of this package reads only the new tokens of a text. What it keeps of the earlier ones are further inputs,
    ``previous_ids`` and the keys and values or states of each layer, and outputs, which are called ``new_…``.
    """
    token_ids = tf.TensorSpec((batch, None), "int32", name="token_ids")
    if all(layer.name != "bigram_embedding" for layer in model.layers):
        return _graph(lambda ids: {"logits": _as_float(model(ids, training=False))}, [token_ids], model.variables)
    names = {layer.name for layer in model.layers}
    suffixes = itertools.takewhile(lambda suffix: f"logits{suffix}" in names, map(gpt.layer_suffix, itertools.count()))
    steps = [_Step(model, suffix) for suffix in suffixes]
    state = [spec for step in steps for spec in step.specs(batch)]
    specs = [token_ids, tf.TensorSpec((batch,), "int32", name="previous_ids"), *state]

    def answer(ids, previous_ids, *values):
        before = tf.concat([tf.expand_dims(previous_ids, 1), ids[:, :-1]], axis=1)
        states = dict(zip((spec.name for spec in state), values, strict=True))
        logits = [step(before, ids, states) for step in steps]
        mean = logits[0] if len(logits) == 1 else decoder_layers.average_logits(logits)
        return {"logits": mean, **{f"new_{name}": value for name, value in states.items()}}

    variables = [*model.variables, *(variable for step in steps for variable in step.variables)]
    return _graph(answer, specs, variables, {f"new_{spec.name}": spec.name for spec in state})


def _graph(answer: Callable, specs: Sequence[tf.TensorSpec], variables: Sequence[Any], state: Any = None) -> Graph:
    def traced(*inputs):
        with fused.plain_ops(), _no_calls():
            return answer(*inputs)

    module = tf.Module()
    module.variables_of_the_network = [variable.value for variable in variables]
    module.answer = tf.function(traced, input_signature=specs, autograph=False)
    return Graph(module, {spec.name: spec for spec in specs}, state or {})


@contextlib.contextmanager
def _no_calls() -> Iterator[None]:
    """Let functions within a function be parts of it, such as those of Keras for convolutions in groups.

    XLA compiles them, and no file holds what it compiles.
    """
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def _as_float(tensor: Any) -> tf.Tensor:
    return tf.cast(tensor, tf.float32)


class _Step:
    """One network of a language model, which reads tokens that follow others.

    Args:
        model: A model of ``gpt.build``.
        suffix: Suffix of the names of its layers.
    """

    def __init__(self, model: keras.Model, suffix: str):
        layers = {layer.name: layer for layer in model.layers}
        self._embedding, self._bigrams, self._head = (
            layers[f"{name}{suffix}"] for name in ("embedding", "bigram_embedding", "logits")
        )
        self._norm = layers.get(f"norm{suffix}")
        self._layers: list[tuple[keras.layers.Layer, list[str]]] = []  # each with the names of its states
        self.variables: list[Any] = []
        for number in itertools.count(1):
            if layer := layers.get(f"block_{number}{suffix}"):
                states = ("key", "value")
            elif layer := layers.get(f"layer_{number}{suffix}"):
                layer = self._with_states(layer)
                states = ("hidden", "cell") if isinstance(layer, keras.layers.LSTM) else ("hidden",)
            else:
                break
            self._layers.append((layer, [f"{state}_{number}{suffix}" for state in states]))

    def _with_states(self, layer: keras.layers.RNN) -> keras.layers.RNN:
        """Return a copy of a recurrent layer that also returns its last states."""
        copy = type(layer).from_config({**layer.get_config(), "return_state": True})
        copy.build((None, None, layer.cell.kernel.shape[0]))
        copy.set_weights(layer.get_weights())
        self.variables += copy.variables
        return copy

    def specs(self, batch: int | None) -> list[tf.TensorSpec]:
        """Return the states of all layers."""
        result = []
        for layer, names in self._layers:
            if isinstance(layer, decoder_layers.DecoderBlock):
                shape = (batch, layer.heads, None, layer.qkv.kernel.shape[0] // layer.heads)
            else:
                shape = (batch, layer.units)
            result += [tf.TensorSpec(shape, "float32", name=name) for name in names]
        return result

    def __call__(self, previous_ids, ids, states):
        """Return the logits of tokens, and replace the states of the layers."""
        x = self._embedding(ids) + self._bigrams.lookup(previous_ids, ids)
        blocks = [names for layer, names in self._layers if isinstance(layer, decoder_layers.DecoderBlock)]
        if blocks:  # matrices are multiplied without the shapes that products of arrays need
            window, x = decoder_layers.Window(ids, states[blocks[0][0]]), tf.reshape(x, (-1, x.shape[-1]))
        for layer, names in self._layers:
            before = [states[name] for name in names]
            if isinstance(layer, decoder_layers.DecoderBlock):
                x, *new = layer.step(x, *before, window)
            else:
                x, *new = layer(x, initial_state=before)
            states.update(zip(names, new, strict=True))
        logits = self._head(x if self._norm is None else self._norm(x))
        return tf.reshape(logits, window.shape(logits.shape[-1])) if blocks else logits
