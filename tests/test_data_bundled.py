"""The bundled reviews are balanced in every domain and style, and all different."""

from collections import Counter
from pathlib import Path

from dltoolkit.data.readers import tables

REVIEWS = Path(tables.__file__).parents[1] / "bundled" / "reviews.tsv"


def test_reviews_are_balanced_and_all_different():
    table = tables.read_table(REVIEWS).columns
    assert list(table) == ["label", "domain", "style", "text"]
    assert len(table["text"]) == len(set(table["text"])) == 2496
    for column in ("domain", "style"):
        counts = Counter(zip(table[column], table["label"], strict=True))
        assert all(counts[name, "positive"] == counts[name, "negative"] > 0 for name in set(table[column]))
    assert set(table["style"]) == {"plain", "negation", "mixed", "ironic"}
    assert len(set(table["domain"])) == 12
    assert all(4 <= len(text.split()) <= 60 for text in table["text"])
