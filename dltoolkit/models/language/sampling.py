"""Sampling of text from a language model."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import threadpoolctl

from dltoolkit.errors import UserError

if TYPE_CHECKING:
    from dltoolkit.models.language.decoders import CachedDecoder, EnsembleDecoder, UncachedDecoder

CHUNK_TOKENS = 16  # tokens that are generated between two outputs; the first one is returned at once
TOP_P_TOLERANCE = 1e-6  # rounding error of a probability from logits in float32


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
    logits: np.ndarray, params: SamplingParams, uniform: np.ndarray, occurred: np.ndarray | None = None
) -> np.ndarray:
    """Return a token for each row, int (rows,).

    Args:
        logits: float (rows, vocab_size); a logit of -inf excludes a token.
        params: Options for sampling.
        uniform: A random number in [0, 1) for each row.
        occurred: Tokens to which the repetition penalty applies, bool (rows, vocab_size).

    Raises:
        UserError: If the logits of a row are not finite.
    """
    logits = logits.astype(np.float64)
    if params.repetition_penalty != 1.0 and occurred is not None:
        penalty = params.repetition_penalty
        logits = np.where(occurred, np.where(logits > 0, logits / penalty, logits * penalty), logits)
    highest = logits.max(axis=-1, keepdims=True)
    if not np.isfinite(highest).all():
        raise UserError(
            "The network computes numbers that are not finite, so it cannot generate text: train it again, with a "
            "lower --learning-rate."
        )
    if not params.temperature:
        return logits.argmax(axis=-1)
    with np.errstate(over="ignore"):  # a very low temperature makes a probability 0
        probabilities = np.exp((logits - highest) / params.temperature)  # relative to the most probable token
    probabilities[probabilities < params.min_p] = 0
    if params.top_k or params.top_p < 1:
        order = np.argsort(-probabilities, axis=-1, kind="stable")
        descending = np.take_along_axis(probabilities, order, axis=-1)
        if params.top_k:
            descending[:, params.top_k :] = 0
        if params.top_p < 1:
            cumulative = np.cumsum(descending, axis=-1)
            # The token that reaches top_p is included, so the probability of the tokens before it counts
            before = (cumulative - descending) / cumulative[:, -1:]
            descending[before >= params.top_p - TOP_P_TOLERANCE] = 0
            descending[:, 0] = 1  # the most probable token, also if top_p is below the tolerance
        np.put_along_axis(probabilities, order, descending, axis=-1)
    cumulative = np.cumsum(probabilities, axis=-1)
    return (cumulative > uniform[:, None] * cumulative[:, -1:]).argmax(axis=-1)


def generate(
    decoder: CachedDecoder | EnsembleDecoder | UncachedDecoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    context_length: int,
    params: SamplingParams = SamplingParams(),
    seed: int = 0,
    unknown_id: int | None = None,
) -> Iterator[np.ndarray]:
    """Continue prompts, and yield new tokens int (rows, time) until each prompt has ``max_tokens`` of them.

    When the window of ``context_length`` tokens of a row is full, its second half becomes the first half of the next
    window. BLAS uses one thread, so that the numbers do not depend on the number of cores; it would hardly be faster
    with several, because the matrices are small.

    Args:
        decoder: A decoder of ``decoders``.
        prompts: Token IDs of each prompt, at least one; the model reads the end of a prompt that is too long.
        max_tokens: Number of new tokens per prompt.
        context_length: Tokens of the window, as in training.
        params: Options for sampling.
        seed: Any integer. The text of a prompt depends on the prompt, the seed and, if the prompt is repeated, on how
            many equal prompts precede it, but not on the other prompts.
        unknown_id: Token that is never drawn.
    """
    steps = _draw(decoder, prompts, _random_generators(prompts, seed), context_length, params, unknown_id)
    one_thread = threadpoolctl.ThreadpoolController().limit
    remaining, length = max_tokens, 1
    while remaining:
        with one_thread(limits=1, user_api="blas"):
            chunk = list(itertools.islice(steps, length))
        yield np.stack(chunk, axis=1)
        remaining -= length
        length = min(CHUNK_TOKENS, remaining)


def _draw(
    decoder: CachedDecoder | EnsembleDecoder | UncachedDecoder,
    prompts: Sequence[Sequence[int]],
    generators: list[np.random.Generator],
    context_length: int,
    params: SamplingParams,
    unknown_id: int | None,
) -> Iterator[np.ndarray]:
    """Yield the next token of each prompt, int (rows,), without end; the arguments are those of :func:`generate`."""
    texts = [list(prompt) for prompt in prompts]
    occurred = None
    if params.repetition_penalty != 1.0:
        occurred = np.zeros((len(texts), decoder.vocab_size), bool)
        for row, text in enumerate(texts):
            occurred[row, text] = True
    state = decoder.new_state(len(texts), context_length)
    logits = np.stack([decoder.prefill(state, row, text[-context_length:]) for row, text in enumerate(texts)])
    lengths = [min(len(text), context_length) for text in texts]
    while True:
        if unknown_id is not None:
            logits[:, unknown_id] = -np.inf
        token_ids = sample(logits, params, np.array([generator.random() for generator in generators]), occurred)
        yield token_ids
        if occurred is not None:
            occurred[np.arange(len(texts)), token_ids] = True
        for row, text in enumerate(texts):
            if lengths[row] == context_length:
                lengths[row] = max(1, context_length // 2)
                decoder.prefill(state, row, text[-lengths[row] :])
            lengths[row] += 1
            text.append(int(token_ids[row]))
        logits = decoder.decode_step(state, token_ids)


def _random_generators(prompts: Sequence[Sequence[int]], seed: int) -> list[np.random.Generator]:
    """Return a generator for each prompt, from the seed, the prompt and the number of equal prompts before it."""
    copies: Counter[bytes] = Counter()
    generators = []
    for prompt in prompts:
        digest = hashlib.blake2b(np.array(prompt, np.int64).tobytes(), digest_size=16).digest()
        generators.append(np.random.default_rng([seed % 2**63, copies[digest], int.from_bytes(digest, "little")]))
        copies[digest] += 1
    return generators
