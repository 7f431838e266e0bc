"""Baselines of the benchmarks: networks of stock Keras layers, and the GAN step of TensorFlow's tutorial."""


def stock(network):
    """Return the same network built from stock Keras layers."""
    import keras

    from dltoolkit.models.image import layers as image_layers

    def stock_layer(layer):
        if isinstance(layer, image_layers.UpConv2D):
            convolution = keras.layers.Conv2D(layer.filters, 3, padding="same", use_bias=False)
            return keras.Sequential([keras.layers.UpSampling2D(), convolution])
        if isinstance(layer, image_layers.ClassProjection):
            features, label = (keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in layer.input)
            vectors = keras.layers.Embedding(layer.classes, features.shape[-1])(label)
            return keras.Model([features, label], keras.layers.Dot(1)([features, vectors]))
        kind = keras.layers.BatchNormalization if isinstance(layer, image_layers.BatchNorm) else type(layer)
        return kind.from_config(layer.get_config())

    return keras.models.clone_model(network, clone_function=stock_layer)


def adversarial_step(generator, discriminator, batch_size: int, rate: float):
    """Return a function of uint8 images (and one-hot labels for conditional networks) that trains both networks."""
    import keras
    import tensorflow as tf

    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    optimizers = keras.optimizers.Adam(rate), keras.optimizers.Adam(rate)

    @tf.function
    def step(images, one_hot=None):
        def network_inputs(first):
            return first if one_hot is None else [first, tf.argmax(one_hot, axis=-1, output_type=tf.int32)]

        real_images = (tf.cast(images, tf.float32) - 127.5) / 127.5
        noise = tf.random.normal((batch_size, generator.inputs[0].shape[1]))
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            generated = generator(network_inputs(noise), training=True)
            real = discriminator(network_inputs(real_images), training=True)
            fake = discriminator(network_inputs(generated), training=True)
            generator_loss = entropy(tf.ones_like(fake), fake)
            discriminator_loss = entropy(tf.ones_like(real), real) + entropy(tf.zeros_like(fake), fake)
        for tape, loss, network, optimizer in (
            (generator_tape, generator_loss, generator, optimizers[0]),
            (discriminator_tape, discriminator_loss, discriminator, optimizers[1]),
        ):
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    return step
