"""Drawing text from a language model, the whole loop compiled: the next token chosen, read, and so on."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.models.language import gpt

FEW = 4  # texts that one core draws about as fast as fewer
CHUNK = 64  # tokens drawn between two looks at what there is, at most
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


def draw(logits: tf.Tensor, how: Sampling, uniform: tf.Tensor, seen: tf.Tensor | None = None) -> tf.Tensor:
    """Return int32 (batch,): a token for each row.

    Args:
        logits: float (batch, vocabulary).
        how: what is drawn.
        uniform: random numbers above 0 and below 1, of the shape of ``logits``.
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
    return tf.argmax(logits - tf.math.log(-tf.math.log(uniform)), axis=-1, output_type=tf.int32)  # Gumbel's way


def generate(
    model: keras.Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    context_length: int,
    how: Sampling = Sampling(),
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Continue prompts, and yield int32 (batch, some) tokens as they are drawn, ``max_tokens`` for each in all.

    Whenever the window of ``context`` tokens is full, its later half is read again and becomes the new window's
    beginning. On a CPU each core continues some of many prompts, which is faster than all cores continuing all.

    Args:
        model: as ``gpt.build`` made it.
        prompts: tokens of each, at least one; of a long one the end is read.
        max_tokens: how many to draw.
        context: length of the window, that of training.
        how: what is drawn.
        seed: any integer.
    """
    together = len(prompts)
    if not tf.config.list_physical_devices("GPU"):
        together = max(-(-together // (os.cpu_count() or 1)), min(together, FEW))
    groups = [
        _Group(model, prompts, begin, together, context_length, how, seed % 2**31)
        for begin in range(0, len(prompts), together)
    ]
    done = 0
    with concurrent.futures.ThreadPoolExecutor(len(groups)) as threads:
        while done < max_tokens:
            drawn = np.concatenate(list(threads.map(_Group.go_on, groups)))[: len(prompts), : max_tokens - done]
            done += drawn.shape[1]
            yield drawn


class _Group:
    """Some of the texts that are drawn at a time, all of which have come equally far."""

    def __init__(
        self,
        model: keras.Model,
        prompts: Sequence[Sequence[int]],
        begin: int,
        count: int,
        context_length: int,
        how: Sampling,
        seed: int,
    ):
        self._rows = np.minimum(np.arange(begin, begin + count), len(prompts) - 1)  # as many in the last group
        self._texts = [list(prompts[row]) for row in self._rows]
        self._context, self._chunk, self._seed, self._done = (
            context_length,
            max(1, min(CHUNK, context_length // 2)),
            seed,
            0,
        )
        self._read, self._go_on = _compiled(model, count, len(prompts), context_length, self._chunk, how)
        self._seen = np.zeros((count, model.output_shape[-1]), bool)
        for row, text in enumerate(self._texts):
            self._seen[row, text] = True
        self._kept, self._place = context_length - self._chunk, context_length

    def go_on(self) -> np.ndarray:
        """Return the next tokens of each text, int32 (rows, chunk)."""
        if self._place + self._chunk > self._context:
            window, self._first, self._place = _window(self._texts, self._kept, self._context)
            self._logits, self._state = self._read(window, self._first, tf.constant(self._place))
            self._kept = self._context // 2
        seed = tf.constant([self._seed, self._done])
        tokens, self._logits, self._state, self._seen = self._go_on(
            self._logits, self._state, tf.constant(self._place), self._first, self._seen, seed, self._rows
        )
        tokens = tokens.numpy()
        for text, new in zip(self._texts, tokens.tolist(), strict=True):
            text += new
        self._place, self._done = self._place + self._chunk, self._done + self._chunk
        return tokens


def _window(texts: list[list[int]], kept: int, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The ends of texts, so that all of them end at one place: tokens (batch, time), beginnings (batch,), place.

    The time is ``context`` or half of it: each is compiled for itself.
    """
    ends = [text[-kept:] for text in texts]
    place = max(map(len, ends))
    time = context_length // 2 if place <= context_length // 2 else context_length
    window, first = np.zeros((len(ends), time), np.int32), np.zeros(len(ends), np.int32)
    for row, end in enumerate(ends):
        first[row] = place - len(end)
        window[row, first[row] : place] = end
    return window, first, place


@functools.lru_cache(maxsize=4)
def _compiled(
    model: keras.Model, batch: int, rows_in_all: int, context_length: int, chunk: int, how: Sampling
) -> tuple:
    decoder = gpt.decoder(model)

    @tf.function(jit_compile=True)
    def read(window, first, length):
        return decoder.read(window, first, length, context_length)

    @tf.function(jit_compile=True)
    def go_on(logits, state, place, first, seen, seed, rows):
        vocabulary = logits.shape[-1]

        def one(i, tokens, logits, state, seen):
            # for all rows, of which some are taken: equal seeds give equal texts on any number of cores
            uniform = tf.random.stateless_uniform((rows_in_all, vocabulary), seed + tf.stack([0, i]), minval=1e-20)
            token = draw(logits, how, tf.gather(uniform, rows), seen)
            if how.repetition_penalty != 1.0:
                seen |= tf.one_hot(token, vocabulary, on_value=True, off_value=False)
            tokens = tf.where(tf.range(chunk) == i, token[:, None], tokens)
            logits, state = decoder.advance(token, state, place + i, first)
            return i + 1, tokens, logits, state, seen

        start = (0, tf.zeros((batch, chunk), tf.int32), logits, state, seen)
        _, *after = tf.while_loop(lambda i, *_: i < chunk, one, start, maximum_iterations=chunk)
        return after

    return read, go_on
