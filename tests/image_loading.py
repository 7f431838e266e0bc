"""Shortcuts of the tests that load labeled images."""

import pytest

from dltoolkit.data.image import dataset
from dltoolkit.data.options import ImageReadOptions, SplitOptions
from dltoolkit.errors import UserError


def load(data, read=ImageReadOptions(), split=SplitOptions(), **options) -> dataset.ImageSplits:
    return dataset.load(str(data), read, split, **options)


def error_of(data, *read, **options) -> str:
    """Return the one-line message with which data are refused."""
    with pytest.raises(UserError) as caught:
        load(data, *read, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message
