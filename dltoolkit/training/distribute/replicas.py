"""Models and datasets for several replicas, on one machine or on many.

Keras 3.15 trains on several replicas in one process, but not on several workers, nor if the first batch cannot be split
evenly. :func:`wrap_for_strategy` adds that with private methods of Keras; see :mod:`dltoolkit.models.keras_internals`.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dltoolkit.models import fused, keras_internals
from dltoolkit.training.distribute.strategy import Devices

SEED_STRIDE = 0x9E3779B9  # difference between the seeds of two replicas: large and odd, so that seeds do not collide


def to_strategy_scope(model: keras.Model, devices: Devices) -> keras.Model:
    """Return a copy of a model whose variables are mirrored on all replicas, if it was built outside the scope."""
    if devices.replicas == 1 or isinstance(model.variables[0].value, tf.distribute.DistributedValues):
        return model
    with devices.strategy.scope():
        mirrored = keras.models.clone_model(model)
    if any(isinstance(layer, fused.LayerNormalization) for layer in keras_internals.all_layers(model)):
        fused.use_fused_ops(mirrored)
    mirrored.set_weights(model.get_weights())
    # built outside the scope, so that it predicts on one device
    return keras.Model(mirrored.inputs, mirrored.outputs, name=model.name)


def wrap_for_strategy(model: keras.Model, devices: Devices, *, xla: bool = False) -> keras.Model:
    """Return a model whose ``fit`` and ``evaluate`` work on these devices.

    Layers that draw random numbers, such as dropout, draw different numbers on each replica, except layers with an
    attribute ``draws_for_all``, which draw for the full batch and use their replica's part.

    Args:
        model: A model for a single device.
        devices: The devices.
        xla: Whether XLA compiles the part of a step of several replicas that comes before they exchange gradients. On a
            single device, Keras itself compiles the step.
    """
    if devices.replicas == 1:
        return model
    model = to_strategy_scope(model, devices)
    base = type(model)
    model.__class__ = type(base.__name__, (_MultiWorkerModel if devices.workers > 1 else _ReplicaModel, base), {})
    keras_internals.set_strategy(model, devices.strategy)
    model.compiled_by_xla = xla and devices.mirrored and _exchanges_only_gradients(model, base)
    for layer, generator in keras_internals.seed_generators(model):
        if not getattr(layer, "draws_for_all", False):
            generator.__class__ = _ReplicaSeedGenerator
    return model


def distribute_dataset(dataset: tf.data.Dataset, devices: Devices) -> Any:
    """Return a distributed dataset that gives each replica its part of every batch, in order.

    The parts differ by at most one example, and none is empty if a batch has enough examples. TensorFlow's own way
    requires batches of one size, and with several workers transfers the graph of the pipeline.

    Args:
        dataset: Batches of known or infinite cardinality, the same on all workers. All tensors of a batch have the same
            number of rows.
        devices: The devices.
    """
    replicas = devices.replicas
    if replicas == 1:
        return dataset

    def replica_part(tensor: tf.Tensor, replica: tf.Tensor) -> tf.Tensor:
        count = tensor.shape[0]
        if count is None or count % replicas:
            count = tf.shape(tensor)[0]
            return tensor[count * replica // replicas : count * (replica + 1) // replicas]
        size = count // replicas
        start, rest = replica * size, tensor.shape[1:]
        rows = tf.slice(tensor, [start] + [0] * len(rest), [size] + [-1] * len(rest))
        return tf.ensure_shape(rows, [size, *rest])  # TPUs require static shapes

    def worker_dataset(context: tf.distribute.InputContext) -> tf.data.Dataset:
        replicas_per_worker = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * replicas_per_worker

        def split(*batch: Any) -> tf.data.Dataset:
            indices = tf.data.Dataset.range(first, first + replicas_per_worker, output_type=tf.int32)
            return indices.map(
                lambda replica: tf.nest.map_structure(lambda tensor: replica_part(tensor, replica), batch)
            )

        length = dataset.cardinality().numpy()
        known_length = tf.data.experimental.assert_cardinality(length * replicas_per_worker if length > 0 else length)
        return dataset.flat_map(split).apply(known_length).prefetch(2 * replicas_per_worker)

    options = None
    if devices.kind == "cpu" and devices.workers == 1:
        # Each replica has its own iterator. The default, one iterator for several devices, has an autotuner that cannot
        # be turned off, and waits for it for up to half a minute at the end of a pass.
        options = tf.distribute.InputOptions(
            experimental_fetch_to_device=False,
            experimental_replication_mode=tf.distribute.InputReplicationMode.PER_REPLICA,
        )
    return devices.strategy.distribute_datasets_from_function(worker_dataset, options)


def batch_size_for_replicas(batch_size: int, examples: int, replicas: int) -> int:
    """Return the smallest batch size, not below ``batch_size``, with which every batch has an example per replica."""
    batch_size = max(batch_size, replicas)
    while 0 < examples % batch_size < replicas and batch_size < examples:
        batch_size += 1
    return batch_size


def _exchanges_only_gradients(model: keras.Model, base: type[keras.Model]) -> bool:
    """Return whether replicas exchange nothing before the gradients, because XLA cannot compile an exchange."""
    uses_default_step = base.train_step is keras.Model.train_step
    layers = keras_internals.all_layers(model)
    return uses_default_step and not any(getattr(layer, "synchronized", False) for layer in layers)


class _ReplicaModel(keras_internals.BuildFromReplicaBatch):
    """A model on several replicas.

    It is built from one replica's part of the first batch. Keras cannot compile the step with XLA, because XLA supports
    no exchange between replicas on CPUs and GPUs, but the part of the step before the exchange can be compiled.
    """

    compiled_by_xla = False

    def train_step(self, data):
        if not self.compiled_by_xla:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        trainable, non_trainable = self.trainable_variables, self.non_trainable_variables

        @tf.function(jit_compile=True, autograph=False)
        def forward_and_backward(values, states, scale):
            """Return outputs, loss, gradients and the new values of non-trainable variables (None if unchanged)."""
            mapping = [*zip(trainable, values, strict=True), *zip(non_trainable, states, strict=True)]
            with tf.GradientTape() as tape, keras.StatelessScope(mapping, collect_losses=True) as scope:
                tape.watch(values)
                y_pred = keras_internals.call_in_training(self, x)
                loss = self.compute_loss(x, y, y_pred, sample_weight)
                scaled_loss = loss * scale
            gradients = [g if g is None else tf.convert_to_tensor(g) for g in tape.gradient(scaled_loss, values)]
            new_states = zip(map(scope.get_current_value, non_trainable), states, strict=True)
            return y_pred, loss, gradients, [new if new is not old else None for new, old in new_states]

        current = [[tf.convert_to_tensor(v) for v in variables] for variables in (trainable, non_trainable)]
        scale = self.optimizer.scale_loss(tf.ones(()))
        y_pred, loss, gradients, new_states = forward_and_backward(*current, scale)
        for variable, value in zip(non_trainable, new_states, strict=True):
            if value is not None:
                variable.assign(value)
        num_replicas = self.distribute_strategy.num_replicas_in_sync
        keras_internals.update_loss_tracker(self, loss * num_replicas, tf.shape(y_pred)[0])
        self.optimizer.apply_gradients(zip(gradients, trainable, strict=True))
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)


class _MultiWorkerModel(keras_internals.LogMetricResults, _ReplicaModel):
    """A model on several workers, whose steps return only the loss.

    Keras reduces the logs of each step over the workers as if each log were a list of numbers, with two exchanges per
    log. The other metrics are reduced when they are read at the end of an epoch.
    """

    def train_step(self, data):
        return {"loss": tf.reshape(super().train_step(data)["loss"], (1,))}

    def test_step(self, data):
        return {"loss": tf.reshape(super().test_step(data)["loss"], (1,))}


class _ReplicaSeedGenerator(keras.random.SeedGenerator):
    """A seed generator that returns different seeds on each replica. Its state is the same on all replicas."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        offset = tf.cast(context.replica_id_in_sync_group, tf.int64) * SEED_STRIDE % 2**32
        return seed + tf.stack([tf.cast(offset, seed.dtype), tf.zeros((), seed.dtype)])
