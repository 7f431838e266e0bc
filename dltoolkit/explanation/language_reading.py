"""What a language model expects of a text: surprisal, alternatives, and which words made a token likely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from dltoolkit.data.language.tokenizers import REPLACEMENT, Tokenizer
from dltoolkit.explanation import text_reading
from dltoolkit.explanation.text_offsets import AlignedText

ALTERNATIVES = 5  # likeliest tokens that are listed for each token
MAX_WORDS = 200  # words before a token, the nearest ones, that are taken away one by one
Span = tuple[int, int]


@dataclass(frozen=True)
class TokenizedText:
    """A text as a language model reads it.

    Attributes:
        tokens: The tokens, int (tokens,).
        spans: Start and end of each token in the text; tokens that are parts of a character share it.
        words: Number of the word of each token, int (tokens,); the white space before a word belongs to it.
        word_spans: Start and end of each word without this white space.
    """

    tokens: np.ndarray
    spans: list[Span]
    words: np.ndarray
    word_spans: list[Span]


def tokenize(text: str, tokenizer: Tokenizer) -> TokenizedText:
    """Return a text as a language model reads it."""
    word_spans, tokens, words = text_reading.pieces(
        AlignedText.of(text), lambda texts: [tokenizer.encode(each) for each in texts]
    )
    tokens = tokens.astype(np.int64)
    if len(tokens) == len(text):  # a token is a character
        return TokenizedText(tokens, [(i, i + 1) for i in range(len(text))], words, word_spans)
    spans: list[Span] = []
    for word in np.unique(words).tolist():
        begin = word_spans[word - 1][1] if word else 0
        end = len(text) if word == len(word_spans) - 1 else word_spans[word][1]
        of_word, position = tokens[words == word].tolist(), begin
        for count in range(1, len(of_word) + 1):
            decoded = tokenizer.decode(of_word[:count]).rstrip(REPLACEMENT)
            certain = end if count == len(of_word) else min(end, max(position, begin + len(decoded)))
            spans.append((min(position, end - 1), max(certain, min(position + 1, end))))
            position = certain
    return TokenizedText(tokens, spans, words, word_spans)


class LanguageReader:
    """The language model of a run or an export, and its tokenizer.

    Args:
        decoder: See :mod:`dltoolkit.models.language.decoders`.
        tokenizer: The tokenizer.
        context_length: Number of tokens that the model reads before the one that it predicts.
    """

    def __init__(self, decoder: Any, tokenizer: Tokenizer, context_length: int):
        self._decoder, self.tokenizer, self.context_length = decoder, tokenizer, context_length

    def surprisals(self, tokens: np.ndarray) -> tuple[np.ndarray, list[list[dict[str, Any]]]]:
        """Return how unexpected each token is, and what the model expected in its place.

        Hale, "A Probabilistic Earley Parser as a Psycholinguistic Model", 2001. The windows of a long text overlap by
        half, so that each token but the first ones is predicted from at least half of the context.

        Args:
            tokens: The text, int (tokens,).

        Returns:
            Bits, float64 (tokens,), with 0 for the first token, which nothing predicts; and for each token the
            likeliest ones, with ``text`` and ``probability``.
        """
        bits, alternatives = np.zeros(len(tokens)), [[] for _ in tokens]
        scored, length = 1, self.context_length
        while scored < len(tokens):
            begin = max(0, min(scored - max(1, length // 2), len(tokens) - 1 - length))
            end = min(begin + length, len(tokens) - 1)
            logits = self._decoder.read(tokens[begin:end])[scored - 1 - begin :].astype(np.float64)
            logs = logits - logsumexp(logits, axis=1, keepdims=True)
            following = tokens[scored : end + 1]
            bits[scored : end + 1] = -logs[np.arange(len(following)), following] / math.log(2)
            if self.tokenizer.unknown_id is not None:
                logs[:, self.tokenizer.unknown_id] = -np.inf
            best = np.argsort(-logs, axis=1, kind="stable")[:, :ALTERNATIVES]
            for number, row in enumerate(best):
                alternatives[scored + number] = [
                    {
                        "text": self.tokenizer.decode([int(token)]),
                        "probability": round(float(np.exp(logs[number, token])), 6),
                    }
                    for token in row
                ]
            scored = end + 1
        return bits, alternatives

    def influences(self, text: TokenizedText, position: int) -> tuple[list[int], np.ndarray]:
        """Return how many bits likelier each earlier word made a token: its bits without the word minus those with it.

        Li, Monroe & Jurafsky, "Understanding Neural Networks through Representation Erasure", 2016.

        Args:
            text: The text.
            position: Number of the token, at least 1.

        Returns:
            The numbers of the words before the token that the model reads, in order, and their values (words,).
        """
        begin = max(0, position - self.context_length)
        tokens, words = text.tokens[begin:position], text.words[begin:position]
        numbers = np.unique(words)[-MAX_WORDS:]
        target = int(text.tokens[position])
        with_all = self._bits(tokens, target)
        without = [self._bits(tokens[words != number], target) for number in numbers]
        return numbers.tolist(), np.array(without) - with_all

    def _bits(self, context: np.ndarray, target: int) -> float:
        if not len(context):  # as an empty prompt, which begins on a new line
            context = self.tokenizer.encode("\n").astype(np.int64)
        if not len(context):  # a tokenizer without line breaks; the model reads at least one token
            context = np.array([target])
        state = self._decoder.new_state(1, self.context_length)  # of one shape, for which a function is compiled once
        logits = self._decoder.prefill(state, 0, context).astype(np.float64)
        return float(logsumexp(logits) - logits[target]) / math.log(2)
