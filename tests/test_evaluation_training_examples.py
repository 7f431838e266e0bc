"""The hashes of the training examples, whose file and number may come from a stranger."""

import numpy as np
import pytest

from dltoolkit.evaluation import training_examples
from dltoolkit.run_files import RunFiles


@pytest.mark.parametrize("count", [3, 10**9, 2**61, 2**63])
def test_load_reads_no_more_than_a_file_of_a_run_may_hold(tmp_path, count):
    run = RunFiles(tmp_path, {"data": {"splits": {"train": count}}})
    path = tmp_path / training_examples.FILE
    assert len(training_examples.load(run)) == 0
    path.write_bytes(np.arange(3, dtype="<u8").tobytes())
    assert training_examples.load(run).tolist() == [0, 1, 2]
    with path.open("r+b") as file:
        file.truncate(2**40)  # a hole, which takes no space on the disk
    assert len(training_examples.load(run)) == 0
