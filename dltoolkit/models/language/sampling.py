"""Sampling of text from a language model, with a compiled loop over the tokens."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from dltoolkit.models.language import decoders

MIN_ROWS = 4  # prompts per core; a core continues fewer prompts hardly faster than this number
CHUNK_TOKENS = 64  # maximum number of tokens that are generated between two outputs
EXCLUDED_LOGIT = -1e9  # logit of an excluded token, whose probability is 0
MIN_UNIFORM = 1e-20  # lower bound of the random numbers, because Gumbel noise takes their logarithm


@dataclass(frozen=True)
class SamplingParams:
    """Options for sampling the next token from its logits.

    Attributes:
        temperature: Divisor of the logits; 0 selects the most probable token.
        top_k: Number of most probable tokens to sample from; 0 for all.
        top_p: Sample from the smallest set of most probable tokens with this probability (Holtzman et al. 2020).
        min_p: Minimum probability of a token, relative to the most probable token (Nguyen et al. 2024).
        repetition_penalty: Divisor of the positive logits, and factor of the negative logits, of tokens that occur in
            the prompt or the new text (Keskar et al. 2019); 1 for no penalty.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0


def sample(
    logits: tf.Tensor, params: SamplingParams, uniform: tf.Tensor, occurred: tf.Tensor | None = None
) -> tf.Tensor:
    """Return a token for each row, int32 (batch,).

    Args:
        logits: float32 (batch, vocab_size).
        params: Options for sampling.
        uniform: Random numbers between 0 and 1, both excluded, of the shape of ``logits``.
        occurred: Tokens to which the repetition penalty applies, bool (batch, vocab_size).
    """
    if params.repetition_penalty != 1.0 and occurred is not None:
        penalty = params.repetition_penalty
        penalized = tf.where(logits > 0, logits / penalty, logits * penalty)
        logits = tf.where(occurred, penalized, logits)
    if not params.temperature:
        return tf.argmax(logits, axis=-1, output_type=tf.int32)
    logits /= params.temperature
    if params.min_p:
        threshold = tf.reduce_max(logits, axis=-1, keepdims=True) + np.log(params.min_p)
        logits = tf.where(logits >= threshold, logits, EXCLUDED_LOGIT)
    top_k = params.top_k if 0 < params.top_k < logits.shape[-1] else 0
    if top_k or params.top_p < 1:
        descending = tf.sort(logits, axis=-1, direction="DESCENDING")
        if top_k:
            logits = tf.where(logits >= descending[:, top_k - 1 : top_k], logits, EXCLUDED_LOGIT)
            descending = tf.where(tf.range(logits.shape[-1]) < top_k, descending, EXCLUDED_LOGIT)
        if params.top_p < 1:
            probabilities = tf.nn.softmax(descending)
            # The cumulative probability excludes the token itself, so that the token that reaches top_p is included
            cumulative = tf.cumsum(probabilities, axis=-1, exclusive=True)
            included = tf.where(cumulative < params.top_p, descending, -EXCLUDED_LOGIT)
            threshold = tf.reduce_min(included, axis=-1, keepdims=True)
            logits = tf.where(logits >= threshold, logits, EXCLUDED_LOGIT)
    gumbel = -tf.math.log(-tf.math.log(uniform))  # the maximum of logits plus Gumbel noise is a sample
    return tf.argmax(logits + gumbel, axis=-1, output_type=tf.int32)


def generate(
    model: keras.Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    context_length: int,
    params: SamplingParams = SamplingParams(),
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Continue prompts, and yield new tokens int32 (batch, time) until each prompt has ``max_tokens`` of them.

    When the window of ``context_length`` tokens is full, its second half becomes the first half of the next window. On
    a CPU, each core continues some of the prompts, which is faster than all cores continuing all prompts.

    Args:
        model: A model of ``gpt.build`` or ``gpt.from_preset``.
        prompts: Token IDs of each prompt, at least one; the model reads the end of a prompt that is too long.
        max_tokens: Number of new tokens per prompt.
        context_length: Tokens of the window, as in training.
        params: Options for sampling.
        seed: Any integer. Equal seeds give equal texts on any number of cores.
    """
    group_size = len(prompts)
    if not tf.config.list_physical_devices("GPU"):
        group_size = max(-(-group_size // (os.cpu_count() or 1)), min(group_size, MIN_ROWS))
    groups = [
        _Group(model, prompts, begin, group_size, context_length, params, seed % 2**31)
        for begin in range(0, len(prompts), group_size)
    ]
    generated = 0
    with concurrent.futures.ThreadPoolExecutor(len(groups)) as threads:
        while generated < max_tokens:
            chunks = list(threads.map(_Group.generate_chunk, groups))
            tokens = np.concatenate(chunks)[: len(prompts), : max_tokens - generated]
            generated += tokens.shape[1]
            yield tokens


class _Group:
    """Prompts that are continued together.

    Args:
        model: The language model.
        prompts: All prompts.
        begin: Index of the first prompt of the group.
        size: Number of rows; the last group repeats the last prompt, so that all groups share a compiled function.
        context_length: Tokens of the window.
        params: Options for sampling.
        seed: Seed of the sampling.
    """

    def __init__(
        self,
        model: keras.Model,
        prompts: Sequence[Sequence[int]],
        begin: int,
        size: int,
        context_length: int,
        params: SamplingParams,
        seed: int,
    ):
        self._rows = np.minimum(np.arange(begin, begin + size), len(prompts) - 1)
        self._texts = [list(prompts[row]) for row in self._rows]
        self._context_length, self._seed, self._generated = context_length, seed, 0
        self._chunk_tokens = max(1, min(CHUNK_TOKENS, context_length // 2))
        self._prefill, self._generate_chunk = _compile(
            model, size, len(prompts), context_length, self._chunk_tokens, params
        )
        self._occurred = np.zeros((size, model.output_shape[-1]), bool)
        for row, text in enumerate(self._texts):
            self._occurred[row, text] = True
        self._prompt_tokens = context_length - self._chunk_tokens
        self._position = context_length  # the first chunk needs a new window

    def generate_chunk(self) -> np.ndarray:
        """Return the next tokens of each text, int32 (rows, time)."""
        if self._position + self._chunk_tokens > self._context_length:
            window, self._prompt_start, self._position = _window(self._texts, self._prompt_tokens, self._context_length)
            self._logits, self._state = self._prefill(window, self._prompt_start, tf.constant(self._position))
            self._prompt_tokens = self._context_length // 2
        tokens, self._logits, self._state, self._occurred = self._generate_chunk(
            self._logits,
            self._state,
            tf.constant(self._position),
            self._prompt_start,
            self._occurred,
            tf.constant([self._seed, self._generated]),
            self._rows,
        )
        tokens = tokens.numpy()
        for text, new in zip(self._texts, tokens.tolist(), strict=True):
            text += new
        self._position += self._chunk_tokens
        self._generated += self._chunk_tokens
        return tokens


def _window(texts: list[list[int]], prompt_tokens: int, context_length: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the last tokens of texts, aligned at their ends and padded on the left.

    Args:
        texts: Token IDs.
        prompt_tokens: Maximum number of tokens of each text.
        context_length: Tokens of the window.

    Returns:
        Tokens int32 (batch, time), the position at which each text starts int32 (batch,), and the position after all
        texts. The time is ``context_length`` or half of it, because each time is compiled separately.
    """
    prompts = [text[-prompt_tokens:] for text in texts]
    length = max(map(len, prompts))
    time = context_length // 2 if length <= context_length // 2 else context_length
    window, prompt_start = np.zeros((len(prompts), time), np.int32), np.zeros(len(prompts), np.int32)
    for row, prompt in enumerate(prompts):
        prompt_start[row] = length - len(prompt)
        window[row, prompt_start[row] : length] = prompt
    return window, prompt_start, length


@functools.lru_cache(maxsize=4)
def _compile(
    model: keras.Model, batch: int, total_rows: int, context_length: int, chunk_tokens: int, params: SamplingParams
) -> tuple:
    """Return compiled functions that prefill a window and generate a chunk of tokens."""
    decoder = decoders.build(model)

    @tf.function(jit_compile=True)
    def prefill(window, prompt_start, length):
        return decoder.prefill(window, prompt_start, length, context_length)

    @tf.function(jit_compile=True)
    def generate_chunk(logits, state, position, prompt_start, occurred, seed, rows):
        vocab_size = logits.shape[-1]

        def generate_token(i, tokens, logits, state, occurred):
            # Random numbers for all rows, from which the rows of the group are taken
            shape, token_seed = (total_rows, vocab_size), seed + tf.stack([0, i])
            uniform = tf.random.stateless_uniform(shape, token_seed, minval=MIN_UNIFORM)
            token = sample(logits, params, tf.gather(uniform, rows), occurred)
            if params.repetition_penalty != 1.0:
                occurred |= tf.one_hot(token, vocab_size, on_value=True, off_value=False)
            tokens = tf.where(tf.range(chunk_tokens) == i, token[:, None], tokens)
            logits, state = decoder.decode_step(token, state, position + i, prompt_start)
            return i + 1, tokens, logits, state, occurred

        loop_variables = (0, tf.zeros((batch, chunk_tokens), tf.int32), logits, state, occurred)
        _, *results = tf.while_loop(
            lambda i, *_: i < chunk_tokens, generate_token, loop_variables, maximum_iterations=chunk_tokens
        )
        return results

    return prefill, generate_chunk
