"""Everything that the toolkit uses of Keras and KerasHub beyond their public interfaces.

Each function or class names the private parts that it relies on. All were written for Keras 3.15 and KerasHub 0.32.
After an upgrade of Keras, run ``tests/test_models_keras_internals.py``, which checks the behavior that users would
miss.
"""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from keras.src.backend import config
from keras.src.saving import serialization_lib

# Models and layers


class GraphNode(NamedTuple):
    """One call of a layer or an operation in a functional model.

    Attributes:
        operation: The layer or operation that is called.
        inputs: The tensors that it reads.
        outputs: The tensors that it returns.
    """

    operation: keras.Operation
    inputs: list[keras.KerasTensor]
    outputs: list[keras.KerasTensor]


def graph_nodes(model: keras.Model) -> list[GraphNode]:
    """Return the calls in a functional model, each after the calls whose outputs it reads.

    Relies on ``Functional._nodes_by_depth`` and on the attributes of ``keras.src.ops.node.Node``.
    """
    depths = sorted(model._nodes_by_depth, reverse=True)
    nodes = [node for depth in depths for node in model._nodes_by_depth[depth]]
    return [GraphNode(node.operation, list(node.input_tensors), list(node.outputs)) for node in nodes]


def all_layers(layer: keras.layers.Layer, include_self: bool = True) -> list[keras.layers.Layer]:
    """Return a layer or model and all layers within it, however deep.

    Relies on ``Layer._flatten_layers``. The public ``Model.layers`` lacks the sublayers of composite layers.
    """
    return layer._flatten_layers(include_self=include_self)


def output_specs(
    model: keras.Model, inputs: list[keras.KerasTensor], check: Callable[[str, keras.KerasTensor], None]
) -> list[keras.KerasTensor]:
    """Return the shapes and types of a functional model's outputs for some inputs, without computing values.

    Relies on ``Function._run_through_graph`` and ``Sequential._functional``. Other models have no outputs here.

    Args:
        model: The model.
        inputs: Shapes and types of its inputs.
        check: Is called with the name and each output of each layer, also of those in models within the model.
    """

    def compute(operation: keras.Operation) -> Callable[..., Any]:
        def outputs_of(*args: Any, **options: Any) -> Any:
            if isinstance(operation, keras.Model) and _graph(operation):
                outputs = run(operation, next(iter((*args, *options.values()))))
            else:
                outputs = operation.compute_output_spec(*args, **options)
            for tensor in keras.tree.flatten(outputs):
                if isinstance(tensor, keras.KerasTensor):
                    check(operation.name, tensor)
            return outputs

        return outputs_of

    def run(functional: keras.Model, tensors: Any) -> Any:
        return _graph(functional)._run_through_graph(tensors, operation_fn=compute)

    return keras.tree.flatten(run(model, inputs)) if _graph(model) else []


def _graph(model: keras.Model) -> Any:
    graph = getattr(model, "_functional", model)
    return graph if hasattr(graph, "_nodes_by_depth") else None


def seed_generators(model: keras.Model) -> list[tuple[keras.layers.Layer, keras.random.SeedGenerator]]:
    """Return the layers of a model that draw random numbers, each with its seed generator.

    Relies on the attribute ``seed_generator``, in which Keras' layers and those of this package keep it.
    """
    pairs = [(layer, getattr(layer, "seed_generator", None)) for layer in all_layers(model, include_self=False)]
    return [(layer, generator) for layer, generator in pairs if isinstance(generator, keras.random.SeedGenerator)]


def gelu_variant(activation: Callable) -> str | None:
    """Return "exact" or "tanh" for a GELU activation of Keras or KerasHub, otherwise None.

    Relies on the name of ``keras_hub.src.utils.keras_utils.gelu_approximate``.
    """
    if activation is keras.activations.gelu:
        return "exact"
    return "tanh" if getattr(activation, "__name__", "") == "gelu_approximate" else None


class AttentionBase(keras.layers.MultiHeadAttention):
    """A ``keras.layers.MultiHeadAttention`` whose attention is computed by :meth:`attend`.

    Overrides ``_compute_attention`` and relies on ``_inverse_sqrt_key_dim``, ``_dropout`` and ``_dropout_layer``.
    Attention over several axes and calls that ask for the attention scores are left to Keras.
    """

    def attend(self, query, key, value, attention_mask, scale: float, training):
        """Return the attended values.

        Args:
            query: Queries of shape (batch, time, heads, head_dim).
            key: Keys of shape (batch, key_time, heads, head_dim).
            value: Values of shape (batch, key_time, heads, head_dim).
            attention_mask: Mask of shape (batch, time or 1, key_time), or None.
            scale: Factor of the attention logits.
            training: Whether dropout is active.
        """
        raise NotImplementedError

    def dropped_attention(self, weights, training):
        """Return attention weights after the layer's dropout."""
        return self._dropout_layer(weights, training=training) if self._dropout > 0 else weights

    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
        use_causal_mask=False,
    ):
        if return_attention_scores or use_causal_mask or len(query.shape) != 4:
            options = (attention_mask, training, return_attention_scores, use_causal_mask)
            return super()._compute_attention(query, key, value, *options)
        return self.attend(query, key, value, attention_mask, self._inverse_sqrt_key_dim, training), None


# Training on several replicas


def set_strategy(model: keras.Model, strategy: tf.distribute.Strategy) -> None:
    """Let a model train and evaluate under a strategy in whose scope it was not created.

    Relies on ``TensorFlowTrainer._distribute_strategy``, which Keras sets only when a model is created.
    """
    model._distribute_strategy = strategy


def call_in_training(model: keras.Model, x: Any) -> Any:
    """Return a model's outputs for a training step, as Keras' own ``train_step`` calls it.

    Relies on ``Layer._call_has_training_arg``.
    """
    return model(x, training=True) if model._call_has_training_arg else model(x)


def update_loss_tracker(model: keras.Model, loss: tf.Tensor, examples: tf.Tensor) -> None:
    """Add the mean loss of some examples to the loss that ``fit`` reports.

    Relies on ``Trainer._loss_tracker``.
    """
    model._loss_tracker.update_state(loss, examples)


def create_metric_variables(model: keras.Model, batch: tuple[Any, ...]) -> None:
    """Create the variables of a compiled model's metrics, which ``fit`` otherwise creates in its first step.

    Relies on ``Trainer._symbolic_build``, which creates only what does not exist yet.
    """
    with model.distribute_strategy.scope():
        model._symbolic_build(data_batch=batch)


class BuildFromReplicaBatch:
    """Mixin for a model that builds its metrics and loss from one replica's part of the first batch.

    Overrides ``TensorFlowTrainer._maybe_symbolic_build``, which averages the parts of all replicas and therefore fails
    when they differ in size, and calls ``Trainer._symbolic_build``.
    """

    _built_from_batch = False

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if self._built_from_batch:
            return
        strategy = self.distribute_strategy
        if iterator is not None:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(
                    lambda value: strategy.experimental_local_results(value)[0], next(batches)
                )
                break
        with strategy.scope():
            self._symbolic_build(data_batch=data_batch)
        self._built_from_batch = True


class LogMetricResults:
    """Mixin for a model whose epoch logs are the results of its metrics, not the logs of its steps.

    Overrides ``Trainer._get_metrics_result_or_logs``, which returns the step's logs if their keys differ from the
    metrics' names.
    """

    def _get_metrics_result_or_logs(self, logs):
        return self.get_metrics_result()


class EvaluateByFunction:
    """Mixin for a model that ``fit`` evaluates by :meth:`evaluation_metrics` instead of a pass over validation batches.

    Overrides ``Model.evaluate``, which ``fit`` calls with its callbacks as a ``keras.callbacks.CallbackList``.
    """

    def evaluation_metrics(self) -> dict[str, float]:
        """Return metrics by name; ``fit`` adds the prefix ``val_``."""
        raise NotImplementedError

    def evaluate(self, *arguments: Any, callbacks: Any = None, **options: Any) -> dict[str, float]:
        callbacks.on_test_begin()
        metrics = self.evaluation_metrics()
        callbacks.on_test_end(metrics)
        return metrics


# Optimizers


def variable_index(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """Return the position of a variable among those that an optimizer was built with.

    Relies on ``BaseOptimizer._get_variable_index``.
    """
    return optimizer._get_variable_index(variable)


def keep_weights_after_fit(optimizer: keras.optimizers.Optimizer) -> None:
    """Stop ``fit`` from replacing the trained weights by their moving averages at its end.

    Relies on ``fit`` calling ``finalize_variable_values`` of the optimizer once, at its end.
    """
    optimizer.finalize_variable_values = lambda variables: None


class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Keras' loss scaling for float16, which skips a step on all replicas if a gradient of any replica is not finite.

    Keras looks at the first replica only. Relies on ``check_finite`` being called in a replica context, with the
    gradients of that replica.
    """

    def check_finite(self, grads):
        finite = super().check_finite(grads)
        context = tf.distribute.get_replica_context()
        if context is None or context.num_replicas_in_sync == 1:
            return finite
        return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(~finite, tf.float32)) == 0


class MuonBase(keras.optimizers.Muon):
    """A ``keras.optimizers.Muon`` with replaceable parts: :meth:`uses_adamw` and :meth:`update_matrix`.

    Overrides ``_should_use_adamw``, which decides for each variable when the optimizer is built, and
    ``_muon_update_step``, which updates the variables that AdamW does not.
    """

    def uses_adamw(self, variable: keras.Variable) -> bool:
        """Return whether AdamW updates a variable."""
        raise NotImplementedError

    def update_matrix(self, gradient, variable: keras.Variable, learning_rate, momentum: keras.Variable) -> None:
        """Update a variable and its momentum by one step."""
        raise NotImplementedError

    def _should_use_adamw(self, variable) -> bool:
        return self.uses_adamw(variable)

    def _muon_update_step(self, gradient, variable, lr, m) -> None:
        self.update_matrix(gradient, variable, lr, m)


# Files and downloads


def keras_home() -> str:
    """Return the folder of the files that Keras has downloaded.

    Relies on ``keras.src.backend.config.keras_home``.
    """
    return config.keras_home()


def failed_url(error: Exception) -> str | None:
    """Return the address that Keras could not download from, or None if the error is another one.

    Relies on the message of ``keras.utils.get_file``, which raises a bare ``Exception``.
    """
    match = re.search(r"https?://\S+/[^/\s:]+", str(error))
    return match[0] if match else None


@contextlib.contextmanager
def strict_weight_loading() -> Iterator[None]:
    """Turn the warning that weights of a nested layer were skipped into an error, inside a ``with`` block.

    Relies on the text of Keras' warnings. The warning about non-square inputs is silenced.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
        warnings.filterwarnings("error", message="Skipping nested container")
        yield


_replacing = threading.RLock()  # held while a method is replaced, so that each thread restores the method of Keras


@contextlib.contextmanager
def replaced_method(owner: type, name: str, replacement: Callable[..., Any]) -> Iterator[None]:
    """Replace a method of a class of Keras in this thread, inside a ``with`` block.

    Threads that enter such a block wait for each other; all others call the original method.

    Args:
        owner: The class.
        name: Name of the method.
        replacement: Function that is called with the original method and the arguments of the call.
    """
    with _replacing:
        original, thread = getattr(owner, name), threading.get_ident()

        def method(*args: Any, **options: Any) -> Any:
            if threading.get_ident() == thread:
                return replacement(original, *args, **options)
            return original(*args, **options)

        setattr(owner, name, method)
        try:
            yield
        finally:
            setattr(owner, name, original)


@contextlib.contextmanager
def replaced_calls(layers: Sequence[keras.layers.Layer], replacement: Callable[..., Any]) -> Iterator[None]:
    """Replace what layers compute inside a ``with`` block.

    ``replacement`` is called with the layer, its own ``call``, and the arguments of the call.
    """

    def call_of(layer: keras.layers.Layer) -> Callable[..., Any]:
        original = layer.call
        return lambda *args, **options: replacement(layer, original, *args, **options)

    for layer in layers:
        layer.call = call_of(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call


def find_part(part: dict[str, Any]) -> Any:
    """Return the class or function that a description in a model file names, or None if Keras finds none.

    Relies on ``serialization_lib._retrieve_class_or_fn``, which looks for registered objects first.
    """
    name, module = part["class_name"], part.get("module")
    kind, target = ("function", part["config"]) if name == "function" else ("class", name)
    if not isinstance(target, str) or not (isinstance(module, str) or module is None):
        return None
    registered, objects = part.get("registered_name", name), keras.saving.get_custom_objects()
    try:
        return serialization_lib._retrieve_class_or_fn(target, registered, module, kind, part, objects)
    except Exception:  # modules that are imported for it fail in ways of their own
        return None


def preset_lacks(error: Exception, class_name: str) -> bool:
    """Return whether KerasHub found no class of a kind, such as "Tokenizer", for a preset.

    Relies on the message of KerasHub's ``from_preset``.
    """
    return f"subclass of {class_name} " in str(error)
