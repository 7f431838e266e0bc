"""Drawing text from a language model, the whole loop compiled: the next token chosen, read, and so on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.models.gpt import Decoder

CHUNK = 32  # tokens drawn between two looks at what there is, at most
LOWEST = -1e9  # a logit that is never drawn


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from its logits.

    Attributes:
        temperature: logits are divided by it; 0 takes the most probable token.
        top_k: only so many of the most probable tokens; 0 for all.
        top_p: only the most probable tokens that together have this probability (Holtzman et al. 2020).
        min_p: only tokens with this share of the most probable one's probability (Nguyen et al. 2024).
        repetition_penalty: divides the positive logits of tokens seen before, and multiplies the negative ones
            (Keskar et al. 2019); 1 for none.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def draw(logits: tf.Tensor, how: Sampling, seed: tf.Tensor, seen: tf.Tensor | None = None) -> tf.Tensor:
    """Return int32 (batch,): a token for each row.

    Args:
        logits: float (batch, vocabulary).
        how: what is drawn.
        seed: int32 (2,); equal seeds draw equal tokens.
        seen: bool (batch, vocabulary), tokens that the repetition penalty is for.
    """
    if how.repetition_penalty != 1.0 and seen is not None:
        penalised = tf.where(logits > 0, logits / how.repetition_penalty, logits * how.repetition_penalty)
        logits = tf.where(seen, penalised, logits)
    if not how.temperature:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    logits /= how.temperature
    if how.min_p:
        logits = tf.where(logits >= tf.reduce_max(logits, axis=-1, keepdims=True) + np.log(how.min_p), logits, LOWEST)
    if 0 < how.top_k < logits.shape[-1] or how.top_p < 1:
        falling = tf.sort(logits, axis=-1, direction="DESCENDING")
        if 0 < how.top_k < logits.shape[-1]:
            logits = tf.where(logits >= falling[:, how.top_k - 1 : how.top_k], logits, LOWEST)
            falling = tf.where(tf.range(logits.shape[-1]) < how.top_k, falling, LOWEST)
        if how.top_p < 1:
            probabilities = tf.nn.softmax(falling)
            before = tf.cumsum(probabilities, axis=-1, exclusive=True)  # the token that passes top_p still counts
            least = tf.reduce_min(tf.where(before < how.top_p, falling, -LOWEST), axis=-1, keepdims=True)
            logits = tf.where(logits >= least, logits, LOWEST)
    uniform = tf.random.stateless_uniform(tf.shape(logits), seed, minval=1e-20)
    return tf.argmax(logits - tf.math.log(-tf.math.log(uniform)), axis=-1, output_type=tf.int32)  # Gumbel's way


def generate(
    model: keras.Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    context: int,
    how: Sampling = Sampling(),
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Continue prompts, and yield int32 (batch, some) tokens as they are drawn, ``max_tokens`` for each in all.

    Whenever the window of ``context`` tokens is full, its later half is read again and becomes the new window's
    beginning.

    Args:
        model: as ``gpt.build`` made it.
        prompts: tokens of each, at least one; of a long one the end is read.
        max_tokens: how many to draw.
        context: length of the window, that of training.
        how: what is drawn.
        seed: any integer.
    """
    chunk = max(1, min(CHUNK, context // 4))
    read, go_on = _compiled(model, len(prompts), context, chunk, how)
    texts = [list(prompt) for prompt in prompts]
    seen = np.zeros((len(prompts), model.output_shape[-1]), bool)
    for row, prompt in enumerate(texts):
        seen[row, prompt] = True
    kept, place, left = context - chunk, context, max_tokens
    while left > 0:
        if place + chunk > context:
            window, first, place = _window(texts, kept, context)
            logits, state = read(window, first, place)
            kept = context // 2
        tokens, logits, state, seen = go_on(logits, state, place, first, seen, (seed % 2**31, max_tokens - left))
        drawn = tokens.numpy()[:, :left]
        for text, new in zip(texts, drawn.tolist(), strict=True):
            text += new
        place, left = place + chunk, left - drawn.shape[1]
        yield drawn


def _window(texts: list[list[int]], kept: int, context: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The ends of texts, so that all of them end at one place: tokens (batch, context), beginnings (batch,), place."""
    ends = [text[-kept:] for text in texts]
    place = max(map(len, ends))
    window, first = np.zeros((len(ends), context), np.int32), np.zeros(len(ends), np.int32)
    for row, end in enumerate(ends):
        first[row] = place - len(end)
        window[row, first[row] : place] = end
    return window, first, place


@functools.lru_cache(maxsize=4)
def _compiled(model: keras.Model, batch: int, context: int, chunk: int, how: Sampling) -> tuple:
    decoder = Decoder(model)
    rows = tf.range(batch)

    @tf.function(jit_compile=True)
    def read(window, first, length):
        return decoder.read(tf.ensure_shape(window, (batch, context)), first, length)

    @tf.function(jit_compile=True)
    def go_on(logits, state, place, first, seen, seed):
        def one(i, tokens, logits, state, seen):
            token = draw(logits, how, tf.stack([seed[0], seed[1] + i]), seen)
            if how.repetition_penalty != 1.0:
                seen |= tf.one_hot(token, logits.shape[-1], on_value=True, off_value=False)
            tokens = tf.tensor_scatter_nd_update(tokens, tf.stack([rows, tf.fill((batch,), i)], axis=1), token)
            logits, state = decoder.advance(token, state, place + i, first)
            return i + 1, tokens, logits, state, seen

        start = (0, tf.zeros((batch, chunk), tf.int32), logits, state, seen)
        _, *after = tf.while_loop(lambda i, *_: i < chunk, one, start, maximum_iterations=chunk)
        return after

    def read_at(window, first, place):
        return read(window, first, tf.constant(place))

    def go_on_at(logits, state, place, first, seen, seed):
        return go_on(logits, state, tf.constant(place), first, seen, tf.constant(seed, tf.int32))

    return read_at, go_on_at
