"""Layers for pictures, registered with Keras as ``dltoolkit>…`` so that a saved model finds them again."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="dltoolkit")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation (Ioffe & Szegedy 2015) over the last axis of pictures, on TensorFlow's fused kernel.

    The same weights, arguments and results as ``keras.layers.BatchNormalization``, which in Keras 3 is composed of
    separate operations; the fused kernel is two to three times faster on a CPU. A layer that is made for several
    replicas has statistics over all of them.

    Input and output: (batch, height, width, channels).
    """

    def __init__(self, **kwargs):
        synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
        super().__init__(**{**kwargs, "synchronized": synchronized})

    def call(self, inputs, training=None, mask=None):
        fused = not self.renorm and mask is None and len(inputs.shape) == 4 and self.axis in (-1, 3)
        if not (fused and training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        scale = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones_like(self.moving_variance)
        offset = tf.convert_to_tensor(self.beta) if self.center else tf.zeros_like(self.moving_mean)
        outputs, mean, variance = self._normalised(inputs, scale, offset)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.cast(now, moving.dtype) * (1.0 - self.momentum))
        return outputs

    def _normalised(self, inputs, scale, offset):
        """The normalised inputs, and the mean and the variance (channels,) that they had."""
        replica = tf.distribute.get_replica_context()
        if self.synchronized and replica is not None and replica.num_replicas_in_sync > 1:
            return _normalised_together(replica, inputs, scale, offset, self.epsilon)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, epsilon=self.epsilon, is_training=True
        )
        return outputs, mean, _biased(variance, _rows(inputs))


def _rows(pictures):
    """How many numbers there are of each channel."""
    return tf.cast(tf.size(pictures) // pictures.shape[-1], tf.float32)


def _biased(variance, count):
    """The variance that Keras keeps; the kernel's is the unbiased one."""
    return variance * (count - 1.0) / count


def _normalised_together(replica, inputs, scale, offset, epsilon):
    """As the kernel does it, but over the parts of a batch that all replicas have; they may differ in size.

    The kernel finds a replica's own sums, forth and back, of which one exchange each makes those of all.
    """

    def sums(*parts):
        """Vectors of channels, and of one number, summed over the replicas."""
        lengths = [part.shape[0] for part in parts]
        return tf.split(replica.all_reduce("sum", tf.concat(parts, 0)), lengths)

    @tf.custom_gradient
    def normalise(inputs, scale, offset):
        count = _rows(inputs)
        ones, zeros = tf.ones_like(scale), tf.zeros_like(scale)
        _, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=ones, offset=zeros, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        squares = _biased(variance, count) + tf.square(mean)
        mean, squares, total = sums(count * mean, count * squares, count[None])
        mean, squares = mean / total, squares / total
        variance = tf.maximum(squares - tf.square(mean), 0.0)

        def applied(numbers, scale, offset, mean, variance):
            return tf.raw_ops.FusedBatchNormV3(
                x=numbers, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False
            ).y

        def gradient(of_outputs, *_):
            of_inputs, of_scale, of_offset, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=of_outputs,
                x=inputs,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
                is_training=False,
            )
            # what the statistics themselves owe to the inputs
            scales, offsets = sums(of_scale, of_offset)
            deviation = tf.sqrt(variance + epsilon)
            slope = -scale / deviation * scales / total
            owed = applied(inputs, slope, -scale / deviation * offsets / total, mean, variance)
            return of_inputs + owed, of_scale, of_offset

        return (applied(inputs, scale, offset, mean, variance), mean, variance), gradient

    return normalise(inputs, scale, offset)


@keras.saving.register_keras_serializable(package="dltoolkit")
class UpConv2D(keras.layers.Layer):
    """Double the sides by repeating pixels, then convolve, 3x3 and without bias: (b, h, w, c) -> (b, 2h, 2w, filters).

    Computed as one transposed convolution, 4x4 with stride 2, of which each number is a sum of the kernel's: four
    ninths of the arithmetic of ``UpSampling2D`` and ``Conv2D``, for the same result.

    Args:
        filters: channels of the result.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        shape = (3, 3, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="he_normal")

    def call(self, inputs):
        # each of the 4x4 is a sum of some of the 3x3, turned around: a product with a small matrix of ones
        line = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)
        channels = kernel.shape[2]
        narrow = tf.reshape(tf.transpose(kernel, (0, 1, 3, 2)), (9, self.filters * channels))
        wide = tf.reshape(tf.constant(np.kron(line, line), kernel.dtype) @ narrow, (4, 4, self.filters, channels))
        shape = (tf.shape(inputs)[0], *self.compute_output_shape(inputs.shape)[1:])
        return tf.nn.conv2d_transpose(inputs, wide, shape, 2)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, 2 * height, 2 * width, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="dltoolkit")
class ClassProjection(keras.layers.Layer):
    """How well features match the vector of their class (Miyato & Koyama 2018).

    Called with (features (batch, units), class numbers int (batch,)) -> (batch, 1). Features are matched with all
    classes in one product, which for few classes is faster than fetching vectors and has a dense gradient.

    Args:
        classes: how many there are.
    """

    def __init__(self, classes: int, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes

    def build(self, input_shape):
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[0][-1], self.classes),
            initializer=keras.initializers.RandomNormal(stddev=0.01),
        )

    def call(self, inputs):
        features, labels = inputs
        chosen = keras.ops.one_hot(labels, self.classes, dtype=self.compute_dtype)
        return keras.ops.sum(keras.ops.matmul(features, self.kernel) * chosen, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], 1)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable(package="dltoolkit")
class ImageNetPixels(keras.layers.Layer):
    """Raw colours 0..255 scaled as networks of ``keras.applications`` expect them; the same shape.

    Args:
        mode: "tf" for -1..1, "torch" for standardised, "caffe" for blue first and centred.
    """

    def __init__(self, mode: str, **kwargs):
        super().__init__(**kwargs)
        self.mode = mode

    def call(self, inputs):
        images = keras.ops.cast(inputs, self.compute_dtype)
        return keras.applications.imagenet_utils.preprocess_input(images, "channels_last", self.mode)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


@keras.saving.register_keras_serializable(package="dltoolkit")
class Dirac(keras.initializers.Initializer):
    """Convolution kernels that pass their inputs on, as far as there are as many; any more filters are He-normal.

    For kernels (height, width, in, out): the first min(in, out) filters are the identity (Zagoruyko & Komodakis 2017).
    """

    def __call__(self, shape, dtype=None):
        height, width, channels, filters = shape
        kernel = keras.initializers.HeNormal()(shape, dtype)
        same = min(channels, filters)
        identity = tf.scatter_nd(
            [[height // 2, width // 2, i, i] for i in range(same)], tf.ones(same, kernel.dtype), shape
        )
        return tf.concat([identity[..., :same], kernel[..., same:]], axis=-1)


@keras.saving.register_keras_serializable(package="dltoolkit")
class PatchEmbedding(keras.layers.Layer):
    """Cut pictures into square patches, project each, and add a learned position (Dosovitskiy et al. 2020).

    (batch, height, width, channels) -> (batch, patches, width of the embedding). Pictures whose sides are no multiple
    of the patch are padded with zeros at the bottom and on the right.

    Args:
        patch: side of a patch in pixels.
        units: length of a patch's vector.
    """

    def __init__(self, patch: int, units: int, **kwargs):
        super().__init__(**kwargs)
        self.patch, self.units = patch, units

    def build(self, input_shape):
        _, height, width, channels = input_shape
        self.rows, self.columns = -(-height // self.patch), -(-width // self.patch)
        self.projection = keras.layers.Dense(self.units, name="projection", dtype=self.dtype_policy)
        self.projection.build((None, None, self.patch * self.patch * channels))
        self.position = self.add_weight(
            name="position",
            shape=(1, self.rows * self.columns, self.units),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
        )

    def call(self, images):
        side, (_, height, width, channels) = self.patch, images.shape
        below, right = self.rows * side - height, self.columns * side - width
        images = keras.ops.pad(images, [[0, 0], [0, below], [0, right], [0, 0]])
        x = keras.ops.reshape(images, (-1, self.rows, side, self.columns, side, channels))
        x = keras.ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (batch, rows, columns, side, side, channels)
        x = keras.ops.reshape(x, (-1, self.rows * self.columns, side * side * channels))
        return self.projection(x) + keras.ops.cast(self.position, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        patches = -(-input_shape[1] // self.patch) * -(-input_shape[2] // self.patch)
        return (input_shape[0], patches, self.units)

    def get_config(self):
        return {**super().get_config(), "patch": self.patch, "units": self.units}
