"""Batches of texts: hardly any padding, every text once an epoch, entered at any step."""

import itertools

import numpy as np
import pytest

from dltoolkit.data.text import dataset as text
from dltoolkit.data.text import pipeline as text_pipeline
from dltoolkit.data.text.vocabulary import Encoder, Vocabulary


@pytest.fixture(scope="module")
def texts():
    """6,000 texts of very different lengths, each beginning with a word of its own."""
    rng = np.random.default_rng(0)
    lengths = np.exp(rng.normal(3, 0.8, 6000)).astype(int) + 2
    rows = np.arange(6000)
    data = text.TextSplits(
        texts=[f"own{i} " + "word " * (length - 1) for i, length in enumerate(lengths)],
        labels=(rows % 3).astype(np.int32),
        names=[],
        train=rows[:5000],
        validation=rows[5000:5500],
        test=rows[5500:],
        classes=["a", "b", "c"],
        fingerprint="",
        source="",
    )
    data.encoder = Encoder(Vocabulary.build(data.corpus, rows, size=10_000, minimum=1), longest=10_000)
    return data


def epoch(texts, start: int = 0, count: int = 312, **options) -> list[tuple[np.ndarray, ...]]:
    batches = text_pipeline.training_pipeline(texts, batch_size=16, seed=3, start_step=start, **options)
    return [tuple(part.numpy() for part in batch) for batch in itertools.islice(batches, count)]


def owners(texts, batches) -> list[int]:
    own = texts.packed.numbers[texts.packed.ends[:-1]]
    place = {number: i for i, number in enumerate(own)}
    return [place[row[0]] for batch in batches for row in batch[0]]


def test_every_text_once_an_epoch_with_its_label_and_little_padding(texts):
    batches = epoch(texts)
    seen = owners(texts, batches)
    assert len(seen) == len(set(seen)) == 4992
    labels = np.concatenate([batch[1].argmax(axis=1) for batch in batches])
    assert (labels == texts.labels[seen]).all()
    padding = np.mean(np.concatenate([(batch[0] == 0).ravel() for batch in batches]))
    assert padding < 0.1
    sizes = [batch[0].shape[1] for batch in batches]
    assert sizes != sorted(sizes), "short and long batches come mixed"


def test_epochs_differ_and_any_step_can_be_entered(texts):
    two = epoch(texts, count=624)
    assert owners(texts, two[:312]) != owners(texts, two[312:])
    assert {tuple(sorted(owners(texts, [b]))) for b in two[:312]} != {
        tuple(sorted(owners(texts, [b]))) for b in two[312:]
    }
    later = epoch(texts, start=400, count=10)
    assert owners(texts, later) == owners(texts, two[400:410])


def test_class_weights_go_with_the_labels(texts):
    for numbers, labels, weights in epoch(texts, count=3, class_weights=np.array([1.0, 2.0, 3.0])):
        assert len(numbers) == len(weights) == 16
        assert (weights == 1 + labels.argmax(axis=1)).all()


def test_evaluation_is_in_the_order_that_is_promised(texts):
    batches = [tuple(p.numpy() for p in b) for b in text_pipeline.evaluation_pipeline(texts, "test", 16)]
    rows = texts.in_order("test")
    assert owners(texts, batches) == rows.tolist()
    assert (np.concatenate([b[1].argmax(axis=1) for b in batches]) == texts.labels[rows]).all()
    again = text_pipeline.in_batches(texts.packed, rows, 16)
    assert all((a[0] == b[0]).all() for a, b in zip(batches, again, strict=True))
