"""Image layers, registered with Keras as ``dltoolkit>…`` so that a saved model can name them."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="dltoolkit")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalization (Ioffe & Szegedy 2015) over the last axis of images, on TensorFlow's fused kernel.

    Weights, arguments and results are those of ``keras.layers.BatchNormalization``, which Keras 3 composes of separate
    operations; the fused kernel is two to three times faster on a CPU. A layer that is created in the scope of several
    replicas computes its statistics over all of them.

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
        outputs, mean, variance = self._normalize(inputs, scale, offset)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + tf.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return outputs

    def _normalize(self, inputs, scale, offset):
        """Return the normalized inputs, and the mean and the variance (channels,) of the inputs."""
        replica = tf.distribute.get_replica_context()
        if self.synchronized and replica is not None and replica.num_replicas_in_sync > 1:
            return _normalize_across_replicas(replica, inputs, scale, offset, self.epsilon)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, scale, offset, epsilon=self.epsilon, is_training=True
        )
        return outputs, mean, _biased(variance, _values_per_channel(inputs))


def _values_per_channel(images):
    return tf.cast(tf.size(images) // images.shape[-1], tf.float32)


def _biased(variance, count):
    """Return the biased variance, which Keras tracks, from the unbiased one, which the kernel returns."""
    return variance * (count - 1.0) / count


def _normalize_across_replicas(replica, inputs, scale, offset, epsilon):
    """Normalize with statistics over the parts of the batch on all replicas, which may differ in size.

    The kernel computes the sums of one replica, forward and backward. One exchange in each direction adds them up.
    """

    def sum_over_replicas(*vectors):
        sizes = [vector.shape[0] for vector in vectors]
        return tf.split(replica.all_reduce("sum", tf.concat(vectors, 0)), sizes)

    @tf.custom_gradient
    def normalize(inputs, scale, offset):
        count = _values_per_channel(inputs)
        ones, zeros = tf.ones_like(scale), tf.zeros_like(scale)
        _, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=ones, offset=zeros, mean=[], variance=[], epsilon=epsilon, is_training=True
        )
        mean_of_squares = _biased(variance, count) + tf.square(mean)
        mean, mean_of_squares, total = sum_over_replicas(count * mean, count * mean_of_squares, count[None])
        mean, mean_of_squares = mean / total, mean_of_squares / total
        variance = tf.maximum(mean_of_squares - tf.square(mean), 0.0)

        def apply_statistics(x, scale, offset, mean, variance):
            return tf.raw_ops.FusedBatchNormV3(
                x=x, scale=scale, offset=offset, mean=mean, variance=variance, epsilon=epsilon, is_training=False
            ).y

        def gradient(output_gradient, *_):
            input_gradient, scale_gradient, offset_gradient, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=output_gradient,
                x=inputs,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
                is_training=False,
            )
            # The statistics depend on the inputs too.
            total_scale_gradient, total_offset_gradient = sum_over_replicas(scale_gradient, offset_gradient)
            std = tf.sqrt(variance + epsilon)
            slope = -scale / std * total_scale_gradient / total
            through_statistics = apply_statistics(
                inputs, slope, -scale / std * total_offset_gradient / total, mean, variance
            )
            return input_gradient + through_statistics, scale_gradient, offset_gradient

        return (apply_statistics(inputs, scale, offset, mean, variance), mean, variance), gradient

    return normalize(inputs, scale, offset)


@keras.saving.register_keras_serializable(package="dltoolkit")
class UpConv2D(keras.layers.Layer):
    """Nearest-neighbor upsampling by 2, then a 3x3 convolution without bias: (b, h, w, c) -> (b, 2h, 2w, filters).

    The layer computes both as one transposed 4x4 convolution with stride 2, whose kernel values are sums of values of
    the 3x3 kernel. This takes four ninths of the arithmetic of ``UpSampling2D`` and ``Conv2D``, for the same result.

    Args:
        filters: Number of output channels.
    """

    def __init__(self, filters: int, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        shape = (3, 3, input_shape[-1], self.filters)
        self.kernel = self.add_weight(name="kernel", shape=shape, initializer="he_normal")

    def call(self, inputs):
        kernel = self.transposed_kernel(self.compute_dtype)
        shape = (tf.shape(inputs)[0], *self.compute_output_shape(inputs.shape)[1:])
        return tf.nn.conv2d_transpose(inputs, kernel, shape, 2)

    def transposed_kernel(self, dtype="float32"):
        """Return the kernel of the transposed convolution, (4, 4, filters, channels)."""
        # Each of its values is a sum of values of the flipped 3x3 kernel, selected by a matrix of ones.
        rows = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), dtype)
        channels = kernel.shape[2]
        kernel3 = tf.reshape(tf.transpose(kernel, (0, 1, 3, 2)), (9, self.filters * channels))
        return tf.reshape(tf.constant(np.kron(rows, rows), dtype) @ kernel3, (4, 4, self.filters, channels))

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, 2 * height, 2 * width, self.filters)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters}


@keras.saving.register_keras_serializable(package="dltoolkit")
class ClassProjection(keras.layers.Layer):
    """Inner product of features with a learned embedding of their class (Miyato & Koyama 2018).

    Inputs: features (batch, units) and class indices int (batch,). Output: (batch, 1). One matrix product with the
    embeddings of all classes is faster than a lookup for few classes, and has a dense gradient.

    Args:
        classes: Number of classes.
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
        one_hot = keras.ops.one_hot(labels, self.classes, dtype=self.compute_dtype)
        return keras.ops.sum(keras.ops.matmul(features, self.kernel) * one_hot, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], 1)

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@keras.saving.register_keras_serializable(package="dltoolkit")
class ImageNetPixels(keras.layers.Layer):
    """Scaling of raw RGB pixels 0..255 as networks of ``keras.applications`` expect them, without a change of shape.

    Args:
        mode: "tf" for -1..1, "torch" for standardized channels, "caffe" for centered channels in BGR order.
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
    """Initializer of convolution kernels that copy their input channels (Zagoruyko & Komodakis 2017).

    For kernels (height, width, in, out), the first min(in, out) filters are the identity, and any further filters are
    He-normal.
    """

    def __call__(self, shape, dtype=None):
        height, width, channels, filters = shape
        kernel = keras.initializers.HeNormal()(shape, dtype)
        copied = min(channels, filters)
        identity = tf.scatter_nd(
            [[height // 2, width // 2, i, i] for i in range(copied)], tf.ones(copied, kernel.dtype), shape
        )
        return tf.concat([identity[..., :copied], kernel[..., copied:]], axis=-1)


@keras.saving.register_keras_serializable(package="dltoolkit")
class PatchEmbedding(keras.layers.Layer):
    """Linear projection of square patches plus a learned position embedding (Dosovitskiy et al. 2020).

    (batch, height, width, channels) -> (batch, patches, units). Images whose sides are not multiples of the patch size
    are padded with zeros at the bottom and on the right.

    Args:
        patch: Side of a patch in pixels.
        units: Length of a patch embedding.
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
        patch, (_, height, width, channels) = self.patch, images.shape
        bottom, right = self.rows * patch - height, self.columns * patch - width
        images = keras.ops.pad(images, [[0, 0], [0, bottom], [0, right], [0, 0]])
        x = keras.ops.reshape(images, (-1, self.rows, patch, self.columns, patch, channels))
        x = keras.ops.transpose(x, (0, 1, 3, 2, 4, 5))  # (batch, rows, columns, patch, patch, channels)
        x = keras.ops.reshape(x, (-1, self.rows * self.columns, patch * patch * channels))
        return self.projection(x) + keras.ops.cast(self.position, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        patches = -(-input_shape[1] // self.patch) * -(-input_shape[2] // self.patch)
        return (input_shape[0], patches, self.units)

    def get_config(self):
        return {**super().get_config(), "patch": self.patch, "units": self.units}
