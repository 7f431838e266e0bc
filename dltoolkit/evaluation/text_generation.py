"""Text from the language model of a run: its tokenizer, continuations of prompts, samples, and scores of any text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from dltoolkit import progress
from dltoolkit.data.language import corpus as corpora
from dltoolkit.data.language import tokenizers
from dltoolkit.data.readers import source
from dltoolkit.errors import UserError
from dltoolkit.models.language import decoders, sampling

if TYPE_CHECKING:
    import keras
    import numpy as np

    from dltoolkit.data.language.corpus import Corpus
    from dltoolkit.data.language.tokenizers import IncrementalDetokenizer, Tokenizer
    from dltoolkit.run import Run

VOCABULARY = "vocabulary.json"  # the tokenizer's file in a run
SAMPLE_TEMPERATURE = 0.8  # temperature of the samples after each epoch
SHOWN_CHARACTERS = 5  # unknown characters that a message names


def load_tokenizer(run: Run) -> Tokenizer:
    """Return the tokenizer that a run was trained with.

    Raises:
        UserError: If its file is missing or damaged.
    """
    return tokenizers.load(run.path / VOCABULARY)


def load_decoder(run: Run, tokenizer: Tokenizer) -> Any:
    """Return the decoder of a run; see :mod:`dltoolkit.models.language.decoders`.

    Raises:
        UserError: If it does not belong to the tokenizer.
    """
    decoder = run.decoder()
    if decoder.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"The model has {decoder.vocab_size:,} outputs, but {VOCABULARY} holds {tokenizer.vocab_size:,} tokens, so "
            "the files do not belong together: restore them, or train a new run."
        )
    return decoder


def stream_text(
    run: Run,
    prompts: Sequence[str],
    params: sampling.SamplingParams,
    *,
    max_tokens: int,
    seed: int = 0,
    stop: str | Sequence[str] = (),
    unknown_chars: Literal["refuse", "drop"] = "refuse",
) -> Iterator[list[str]]:
    """Continue prompts, and yield the new text of each of them while it is generated.

    Args:
        run: A run of text-generator.
        prompts: The texts to continue; an empty one begins on a new line.
        params: Options for sampling.
        max_tokens: Number of new tokens per prompt.
        seed: Seed of the sampling.
        stop: Strings before which a text ends.
        unknown_chars: Whether to ``refuse`` a prompt with characters that the vocabulary lacks, or to ``drop`` them.

    Raises:
        UserError: If a number is out of its range, or a prompt holds unknown characters.
    """
    _check_ranges(max_tokens, params)
    tokenizer = load_tokenizer(run)
    if unknown := tokenizer.unknown("".join(prompts)):
        if unknown_chars == "refuse":
            raise UserError(
                f"The prompt holds {_quote(unknown)}, which the training text does not contain: leave it out, or use "
                "--unknown-chars=drop."
            )
        prompts = ["".join(character for character in prompt if character not in unknown) for prompt in prompts]
    token_ids, context_length = (
        [tokenizer.encode(prompt or "\n").tolist() for prompt in prompts],
        run.info["resolved"]["context_length"],
    )
    if not all(token_ids):  # SentencePiece ignores white space at the beginning
        raise UserError("A prompt has no token of the vocabulary: give --prompt a word with which the text begins.")
    _warn_of_long_prompts(token_ids, context_length)
    decoder = load_decoder(run, tokenizer)
    chunks = sampling.generate(
        decoder,
        token_ids,
        max_tokens=max_tokens,
        context_length=context_length,
        params=params,
        seed=seed,
        unknown_id=tokenizer.unknown_id,
    )
    stops = [stop] if isinstance(stop, str) else stop
    return _detokenize(chunks, [tokenizers.IncrementalDetokenizer(tokenizer, stops) for _ in prompts], max_tokens)


def _detokenize(
    chunks: Iterator[np.ndarray], texts: list[IncrementalDetokenizer], max_tokens: int
) -> Iterator[list[str]]:
    """Yield the new text of each row of the chunks (batch, time), until all texts have stopped or are complete."""
    remaining = max_tokens
    for token_ids in chunks:
        remaining -= token_ids.shape[1]
        yield [text.add(row, last=not remaining) for text, row in zip(texts, token_ids.tolist(), strict=True)]
        if all(text.stopped for text in texts):
            return


def collect(
    stream: Callable[[list[str]], Iterator[list[str]]], prompt: str | Sequence[str], count: int
) -> str | list[str]:
    """Return the complete text of each prompt from a stream of new text.

    Args:
        stream: Maps prompts to an iterator over their new text, as :func:`stream_text` does.
        prompt: The text or texts to continue.
        count: Number of texts per prompt.

    Returns:
        One text for one prompt and a ``count`` of 1, else a list.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    texts = [""] * (len(prompts) * count)
    for new in stream([text for text in prompts for _ in range(count)]):
        texts = [text + piece for text, piece in zip(texts, new, strict=True)]
    return texts[0] if isinstance(prompt, str) and count == 1 else texts


def sampler(
    run: Run, corpus: Corpus, *, tokens: int, context_length: int, seed: int
) -> Callable[[keras.Model, int], None]:
    """Return a function of the model and the epoch that writes a sample of generated text to ``samples/``.

    The sample continues the beginning of the validation split.

    Args:
        run: The run that is trained.
        corpus: Its corpus.
        tokens: Number of new tokens; 0 writes nothing.
        context_length: Length of the window in tokens; the prompt takes a quarter of it.
        seed: Seed of the sampling.
    """

    def write_sample(model: keras.Model, epoch: int) -> None:
        corpus.release_pages()
        if not tokens:
            return
        prompt = corpus.split("validation")[: context_length // 4].tolist()
        chunks = sampling.generate(
            decoders.build(model),
            [prompt],
            max_tokens=tokens,
            context_length=context_length,
            params=sampling.SamplingParams(temperature=SAMPLE_TEMPERATURE),
            seed=seed,
            unknown_id=corpus.tokenizer.unknown_id,
        )
        new = [token_id for chunk in chunks for token_id in chunk[0].tolist()]
        decode = corpus.tokenizer.decode
        run.write(f"samples/epoch-{epoch:04}.txt", f"{decode(prompt)}{decode(new)}\n")

    return write_sample


def evaluate(
    run: Run,
    load_corpus: Callable[[Tokenizer], Corpus],
    other: str | None,
    text_column: str | None,
    encoding: str | None = None,
) -> dict[str, Any]:
    """Score a run on its test split (on validation if it has no test split), or on all of another text.

    Args:
        run: A run of text-generator.
        load_corpus: Reads the corpus of the run with its tokenizer.
        other: A value of ``--data``; None for the corpus of the run.
        text_column: Column of a table in ``other``.
        encoding: Character encoding of ``other``.

    Raises:
        UserError: If the corpus has changed, or there is no text to score.
    """
    from dltoolkit.evaluation import language  # imports TensorFlow, which generation does without

    tokenizer, context_length = load_tokenizer(run), run.info["resolved"]["context_length"]
    if other is None:
        corpus = load_corpus(tokenizer)
        run.check_data(corpus.describe())
        split = "test" if "test" in corpus.splits else "validation"
        progress.note(f"Evaluating {corpus.characters[split]:,} characters: the {split} split of {corpus.source}.")
        return language.measure(run.model, [corpus.split(split)], corpus.characters[split], context_length)
    documents, characters, unknown = corpora.Documents(source.resolve(other), text_column, encoding), 0, []
    for text in documents.read():
        characters += len(text)
        unknown = list(dict.fromkeys([*unknown, *tokenizer.unknown(text)]))
    progress.note(f"Evaluating {characters:,} characters: all of {other}.")
    run.warn_of_training_data(other)
    for warning in documents.warnings:
        progress.warn(warning)
    if unknown:
        progress.warn(f"The training text does not contain {_quote(unknown)}; they are scored as unknown characters.")
    token_ids = (tokenizer.encode(text) for text in documents.read())
    return language.measure(run.model, token_ids, characters, context_length)


def _quote(characters: Sequence[str]) -> str:
    quoted = ", ".join(repr(character) for character in characters[:SHOWN_CHARACTERS])
    more = len(characters) - SHOWN_CHARACTERS
    return quoted + (f" and {more} more characters" if more > 0 else "")


def _warn_of_long_prompts(prompts: list[list[int]], context_length: int) -> None:
    longest = max(map(len, prompts))
    if longest > context_length:
        progress.warn(f"The prompt has {longest:,} tokens; the model reads only the last {context_length:,} of them.")


def _check_ranges(max_tokens: int, params: sampling.SamplingParams) -> None:
    temperature, top_k, top_p, min_p = params.temperature, params.top_k, params.top_p, params.min_p
    penalty = params.repetition_penalty
    conditions = {
        f"--max-tokens must be at least 1, not {max_tokens}": max_tokens >= 1,
        f"--temperature must be 0 (the most probable token) or more, not {temperature}": 0 <= temperature < 1e6,
        f"--top-k must be 0 (all) or more, not {top_k}": top_k >= 0,
        f"--top-p must be above 0 and at most 1, not {top_p}": 0 < top_p <= 1,
        f"--min-p must be at least 0 and below 1, not {min_p}": 0 <= min_p < 1,
        f"--repetition-penalty must be above 0, not {penalty}": penalty > 0,
    }
    for message, holds in conditions.items():
        if not holds:
            raise UserError(f"{message}.")
