"""A model and its batches for several replicas, on one machine or on many.

Keras 3.15 trains on several replicas of one process, but not on several workers, nor when the first batch is uneven.
What :func:`wrap_for_strategy` mends relies on methods of Keras that are not public; see ``models.keras_internals``.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from dltoolkit.models import fused, keras_internals
from dltoolkit.training.distribute.strategy import Devices

FAR = 0x9E3779B9  # between the seeds of two replicas


def to_strategy_scope(model: keras.Model, devices: Devices) -> keras.Model:
    """Return a network that was made outside of the strategy's scope with its variables on all replicas."""
    if devices.replicas == 1 or isinstance(model.variables[0].value, tf.distribute.DistributedValues):
        return model
    with devices.strategy.scope():
        there = keras.models.clone_model(model)
    if any(isinstance(layer, fused.LayerNormalization) for layer in keras_internals.all_layers(model)):
        fused.use_fused_ops(there)
    there.set_weights(model.get_weights())
    return keras.Model(there.inputs, there.outputs, name=model.name)  # outside the scope: it answers on one device


def wrap_for_strategy(model: keras.Model, devices: Devices, *, compiled: bool = False) -> keras.Model:
    """Return a model whose ``fit`` and ``evaluate`` work on these devices.

    Layers that draw random numbers, such as dropout, then draw others on each replica, but for those that say with
    ``draws_for_all`` that they draw for the whole batch and take their replica's part.

    Args:
        model: as it is for one device.
        devices: what it is to work on.
        compiled: whether XLA compiles what each of several replicas does between two exchanges with the others; where
            Keras trains on one device, it is Keras that asks XLA for it.
    """
    if devices.replicas == 1:
        return model
    model = to_strategy_scope(model, devices)
    kind = type(model)
    model.__class__ = type(kind.__name__, (_OfWorkers if devices.workers > 1 else _OfReplicas, kind), {})
    keras_internals.set_strategy(model, devices.strategy)
    model.compiled_by_xla = compiled and devices.mirrored and _exchanges_only_gradients(model, kind)
    for layer, generator in keras_internals.seed_generators(model):
        if not getattr(layer, "draws_for_all", False):
            generator.__class__ = _SeedOfReplica
    return model


def distribute_dataset(batches: tf.data.Dataset, devices: Devices) -> Any:
    """Give each replica its part of each batch, in order; as equal as can be, and never none of a batch large enough.

    TensorFlow's own way needs batches of one size, and on several workers sends the graph of the pipeline around.

    Args:
        batches: of known length (or endless), the same on all workers; all of a batch's tensors have as many rows.
        devices: what they are for.
    """
    replicas = devices.replicas
    if replicas == 1:
        return batches

    def part(tensor: tf.Tensor, replica: tf.Tensor) -> tf.Tensor:
        count = tensor.shape[0]
        if count is None or count % replicas:
            count = tf.shape(tensor)[0]
            return tensor[count * replica // replicas : count * (replica + 1) // replicas]
        size = count // replicas
        begin, rest = replica * size, tensor.shape[1:]
        cut = tf.slice(tensor, [begin] + [0] * len(rest), [size] + [-1] * len(rest))
        return tf.ensure_shape(cut, [size, *rest])  # TPUs want to know it

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        each = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * each

        def parts(*batch: Any) -> tf.data.Dataset:
            numbers = tf.data.Dataset.range(first, first + each, output_type=tf.int32)
            return numbers.map(lambda replica: tf.nest.map_structure(lambda tensor: part(tensor, replica), batch))

        length = batches.cardinality().numpy()
        whole = tf.data.experimental.assert_cardinality(length * each if length > 0 else length)
        return batches.flat_map(parts).apply(whole).prefetch(2 * each)

    options = None
    if devices.kind == "cpu" and devices.workers == 1:
        # Each replica reads by itself: TensorFlow's one reader for several devices has an autotuner that nothing turns
        # off, and at the end of a pass it waits for that to wake up, for up to half a minute.
        options = tf.distribute.InputOptions(
            experimental_fetch_to_device=False,
            experimental_replication_mode=tf.distribute.InputReplicationMode.PER_REPLICA,
        )
    return devices.strategy.distribute_datasets_from_function(of_worker, options)


def batch_size_for_replicas(batch_size: int, examples: int, replicas: int) -> int:
    """Return the least batch size from this one on with which no batch has fewer examples than there are replicas."""
    batch_size = max(batch_size, replicas)
    while 0 < examples % batch_size < replicas and batch_size < examples:
        batch_size += 1
    return batch_size


def _exchanges_only_gradients(model: keras.Model, kind: type[keras.Model]) -> bool:
    """Whether replicas need nothing of each other between a batch and its gradients, which XLA could not wait for."""
    plain = kind.train_step is keras.Model.train_step
    return plain and not any(getattr(each, "synchronized", False) for each in keras_internals.all_layers(model))


class _OfReplicas(keras_internals.BuildFromReplicaBatch):
    """A model of several replicas.

    It is built from one replica's part of the first batch, whatever the others'. Keras cannot let XLA compile its step,
    for XLA knows no exchange between replicas; what comes before the exchange it can compile.
    """

    compiled_by_xla = False

    def train_step(self, data):
        if not self.compiled_by_xla:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        weights, others = self.trainable_variables, self.non_trainable_variables

        @tf.function(jit_compile=True, autograph=False)
        def learn(values, states, scale):
            """The answers, the loss, its gradients, and what the other variables become (None where they stay)."""
            mapping = [*zip(weights, values, strict=True), *zip(others, states, strict=True)]
            with tf.GradientTape() as tape, keras.StatelessScope(mapping, collect_losses=True) as scope:
                tape.watch(values)
                answers = keras_internals.call_in_training(self, x)
                loss = self.compute_loss(x, y, answers, sample_weight)
                scaled = loss * scale
            gradients = [each if each is None else tf.convert_to_tensor(each) for each in tape.gradient(scaled, values)]
            after = zip(map(scope.get_current_value, others), states, strict=True)
            return answers, loss, gradients, [new if new is not old else None for new, old in after]

        now = [[tf.convert_to_tensor(each) for each in some] for some in (weights, others)]
        answers, loss, gradients, after = learn(*now, self.optimizer.scale_loss(tf.ones(())))
        for each, value in zip(others, after, strict=True):
            if value is not None:
                each.assign(value)
        all_replicas = self.distribute_strategy.num_replicas_in_sync
        keras_internals.update_loss_tracker(self, loss * all_replicas, tf.shape(answers)[0])
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return self.compute_metrics(x, y, answers, sample_weight=sample_weight)


class _OfWorkers(keras_internals.LogMetricResults, _OfReplicas):
    """A model of several workers, which share the loss after each step, and what else is measured when it is asked for.

    Keras averages over the workers' logs as if each were a list of numbers, with two exchanges for each of them.
    """

    def train_step(self, data):
        return {"loss": tf.reshape(super().train_step(data)["loss"], (1,))}

    def test_step(self, data):
        return {"loss": tf.reshape(super().test_step(data)["loss"], (1,))}


class _SeedOfReplica(keras.random.SeedGenerator):
    """Draws other seeds on each replica, while its state is the same on all."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        context = tf.distribute.get_replica_context()
        if context is None:
            return seed
        number = tf.cast(context.replica_id_in_sync_group, tf.int64) * FAR % 2**32
        return seed + tf.stack([tf.cast(number, seed.dtype), tf.zeros((), seed.dtype)])
