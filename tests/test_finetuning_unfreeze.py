"""Values of --unfreeze."""

import pytest

from dltoolkit.errors import UserError
from dltoolkit.finetuning import unfreeze


@pytest.mark.parametrize(("value", "fraction"), [("all", None), ("0", 0.0), ("0.3", 0.3), ("1", 1.0)])
def test_unfreeze_parses_fractions_and_all(value, fraction):
    assert unfreeze.parse(value) == fraction


@pytest.mark.parametrize("value", ["some", "-0.1", "1.1", "nan"])
def test_unfreeze_refuses_other_values(value):
    with pytest.raises(UserError, match="unfreeze must be a number from 0 to 1, or all"):
        unfreeze.parse(value)
