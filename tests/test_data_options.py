"""Options for reading and splitting are checked, and the recipes share them."""

import pytest

from dltoolkit import recipe
from dltoolkit.data.options import ImageReadOptions, SplitOptions, TextReadOptions
from dltoolkit.errors import UserError

READ_OPTIONS = {
    "image-classifier": ImageReadOptions,
    "image-gan": ImageReadOptions,
    "sentiment-analyzer": TextReadOptions,
    "fine-tune": (ImageReadOptions, TextReadOptions),
}


@pytest.mark.parametrize("name", READ_OPTIONS)
def test_recipes_are_read_options(name):
    config = recipe.load(name).Config()
    bases = READ_OPTIONS[name] if isinstance(READ_OPTIONS[name], tuple) else (READ_OPTIONS[name],)
    assert all(isinstance(config, base) for base in bases)
    assert isinstance(config, SplitOptions) == (name != "image-gan")


@pytest.mark.parametrize("options", [{"validation_fraction": 0.0}, {"test_fraction": 0.9}, {"shots": 0}])
def test_split_options_refuse_values_out_of_bounds(options):
    with pytest.raises(UserError, match=next(iter(options))):
        SplitOptions(**options)


def test_read_options_refuse_columns_of_another_task():
    ImageReadOptions(image_column="photo").refuse_ignored(task="image")
    with pytest.raises(UserError, match="image_column has no effect on text data"):
        ImageReadOptions(image_column="photo").refuse_ignored(task="text")
