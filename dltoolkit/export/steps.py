"""preprocessing.json: every step from a raw input to the input of a model, complete enough for another language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dltoolkit.data.image import scale
from dltoolkit.data.image.preprocessing import Preprocessing
from dltoolkit.data.language import subwords
from dltoolkit.data.text import encoders, ragged, vocabulary, words
from dltoolkit.models.gan.sampling import LATENT_DIM

if TYPE_CHECKING:
    from dltoolkit.data.language.tokenizers import Tokenizer
    from dltoolkit.run import Run

TEMPERATURE = 0.8  # default sampling temperature of generate
# White of images with more bits than those of training, and the greatest value for which it is; see Scale.to_pixels
WHITES = [[1, scale.MAX_UNIT_VALUE], [255, 255.5], *([high, high] for _, high in scale.USUAL_RANGES if high > 255)]
# The steps in words, in their order
IMAGE = [
    "Read the first frame of the file and apply its EXIF orientation.",
    "Of an image with more than 8 bits per channel, map scale.low to 0 and scale.high to 255, clip and round. If there "
    "are whites, the model was trained on 8 bits: scale.high is the first number of the first pair whose second number "
    "no value exceeds, where the first pair is for floats only; images with negative values are refused.",
    "Put transparent parts on white, and convert to one channel (ITU-R 601-2 luma) or to RGB, as image_shape says.",
    "Resize to image_shape (height, width, channels) with bicubic interpolation, as resize.mode says: crop takes the "
    "largest box in the center with this aspect ratio, letterbox keeps the aspect ratio and adds black bars, and "
    "stretch changes it.",
    "Give the pixels 0 to 255 as uint8: everything else is part of the model.",
]
HTML = (
    "Replace matches of html_tag (ignoring case, . matches line breaks) by a space, and those of html_entity by their "
    "characters."
)
WORDS = [
    HTML,
    "Convert to lower case and to Unicode's composed form NFC.",
    "Take the matches of ascii_word if the text is ASCII, and otherwise of word, as the words of the text.",
]
BAG = [
    "Take the words, each two words and so on up to ngrams words that follow each other, joined by a space, and the "
    "first prefix_length letters of each word that has as many, with * after them.",
    "Give the line numbers (from 0) of those that vocabulary.txt contains, plus first_id, each once and ascending; 0 "
    "pads.",
]
SEQUENCE = [
    "Give for each word its line number (from 0) in vocabulary.txt plus first_id, or unknown_id; 0 pads.",
    "Of more than max_length numbers, leave out the middle: the first head_fraction of max_length and the last ones "
    "stay.",
]
PRETRAINED = [
    "Replace zero bytes by spaces, and remove white space at both ends of the text.",
    "If lowercase, convert to lower case; if strip_accents, convert to NFKD and remove combining characters.",
]
TOKENS = {  # by the kind of the tokenizer in vocabulary.json
    "char": ["The token of a character is its position, from 1, in characters, and 0 for others."],
    "byte": ["The tokens are the bytes of the text in UTF-8."],
    "bpe": ["The tokenizers library gives the tokens: definition is the contents of its tokenizer.json."],
    "sentencepiece": ["The sentencepiece library gives the tokens: proto is its model file in base 64."],
    "word_piece": [
        "If strip_accents of vocabulary.json, convert to NFD and remove characters of the category Mn.",
        "Take the matches of word as the words of the text.",
        "If lowercase of vocabulary.json, convert each word to NFKC, fold its case, convert to NFKC again, and remove "
        "matches of ignorable.",
        "Take the longest beginning of the word that is in pieces, then the longest beginning of the rest that is in "
        "pieces with suffix before it, and so on; their positions, from 0, are the tokens. If there is none, or the "
        "word has more than max_word_bytes bytes in UTF-8, take only unknown.",
    ],
}
ENDS = [
    "Of more tokens than max_length, less start_tokens and end_tokens, leave out the middle: the first head_fraction "
    "of them and the last ones stay.",
    "Give start_tokens, the tokens and end_tokens, each plus 1; 0 pads.",
]
KNOWN = "A text that has no other numbers than unknown_ids is unknown_input."
LANGUAGE = [
    "Give the token IDs of vocabulary.json, at most context_length of them, with previous_ids 0 and the empty state "
    "for the first ones; then one new token at a time, with previous_ids the token before it and the state of the last "
    "call.",
    "A state input is the output of the last call that state names; its first value is zeros of the shape in "
    "empty_state.",
]
GENERATOR = [
    "Give normally distributed noise (count, latent_dim) and, if conditional, the class numbers.",
    "The pixels are round((image + 1) * 127.5), clipped to 0 to 255.",
]


def of_images(run: Run) -> dict[str, Any]:
    """Return the steps for images."""
    preprocessing = Preprocessing.from_dict(run.info["data"])
    whites = {"whites": WHITES} if preprocessing.scale.is_8_bit else {}
    return {"steps": IMAGE, **preprocessing.to_dict(), **whites}


def of_texts(encoder: encoders.TextEncoder) -> dict[str, Any]:
    """Return the steps for texts.

    Args:
        encoder: The encoder, which needs no TensorFlow.
    """
    common = {
        "padding_id": 0,
        "max_length": encoder.max_length,
        "head_fraction": ragged.HEAD_FRACTION,
        "html_tag": words.TAG.pattern,
        "html_entity": words.ENTITY.pattern,
        "unknown_ids": sorted({0, *encoder.unknown_token_ids, *encoder.special_token_ids}),
    }
    if isinstance(encoder, encoders.TokenEncoder):
        return {"steps": [HTML, *_token_steps(encoder)], **common, "start_tokens": [], "end_tokens": []}
    if isinstance(encoder, encoders.PretrainedEncoder):
        own = {name: getattr(encoder, name) for name in encoders.PRETRAINED_STEPS}
        if isinstance(encoder.tokenizer, subwords.WordPieceTokenizer):
            own |= subwords.patterns(encoder.tokenizer)
        return {"steps": [HTML, *PRETRAINED, *_token_steps(encoder)], **common, "pretrained": True, **own}
    own = encoder.vocabulary
    return {
        "steps": [*WORDS, *(BAG if encoder.max_length is None else SEQUENCE), KNOWN],
        **common,
        "ascii_word": words.ASCII_WORD.pattern,
        "word": words.WORD.pattern,
        "first_id": vocabulary.FIRST_ID,
        "unknown_id": vocabulary.UNKNOWN_ID,
        "ngrams": own.ngrams,
        "prefix_length": own.prefix_length,
    }


def _token_steps(encoder: encoders.TokenEncoder | encoders.PretrainedEncoder) -> list[str]:
    return [*TOKENS[encoder.tokenizer.to_json()["tokenizer"]], *ENDS, KNOWN]


def of_language(
    run: Run, tokenizer: Tokenizer, empty_state: dict[str, list[int]], state: dict[str, str]
) -> dict[str, Any]:
    """Return the steps for prompts.

    Args:
        run: The run.
        tokenizer: Its tokenizer.
        empty_state: Shape of each state input before the first token.
        state: Names of the state inputs by those of the outputs that they are next.
    """
    return {
        "steps": LANGUAGE,
        "context_length": run.info["resolved"]["context_length"],
        "temperature": TEMPERATURE,
        "unknown_id": tokenizer.unknown_id,
        "empty_state": empty_state,
        "state": state,
    }


def of_generator(run: Run) -> dict[str, Any]:
    """Return the steps for noise."""
    return {"steps": GENERATOR, "conditional": bool(run.info["conditional"]), "latent_dim": LATENT_DIM}
