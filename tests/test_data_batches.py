"""The order of examples follows seed and epoch alone; predictions in batches lose and add no rows."""

import numpy as np
import pytest

from dltoolkit.data.batches import index_batches, predict_in_batches


def test_index_batches_permutes_each_epoch_without_repeats():
    batches = [(int(step), indices.numpy()) for step, indices in index_batches(10, 3, seed=5).take(9)]
    assert [step for step, _ in batches] == list(range(9))
    epochs = [np.concatenate([indices for _, indices in batches[i : i + 3]]) for i in (0, 3, 6)]
    assert all(len(set(epoch.tolist())) == 9 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert len({int(set(range(10)).difference(epoch.tolist()).pop()) for epoch in epochs}) > 1


@pytest.mark.parametrize("start", [0, 1, 3, 7, 3000])
def test_index_batches_continues_exactly_from_any_step(start):
    full = list(index_batches(10, 3, seed=5).skip(start).take(4))
    resumed = list(index_batches(10, 3, seed=5, start_step=start).take(4))
    for (step, indices), (resumed_step, resumed_indices) in zip(full, resumed, strict=True):
        assert step == resumed_step
        assert (indices == resumed_indices).numpy().all()


def test_index_batches_depends_on_the_seed():
    first = next(iter(index_batches(50, 50, seed=0)))[1].numpy()
    assert (first == next(iter(index_batches(50, 50, seed=0)))[1].numpy()).all()
    assert (first != next(iter(index_batches(50, 50, seed=1)))[1].numpy()).any()


def test_index_batches_limits_the_batch_size_to_the_examples():
    assert sorted(next(iter(index_batches(5, 128, seed=0)))[1].numpy()) == list(range(5))


def test_index_batches_groups_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    padding = {
        grouped: sum(np.ptp(lengths[indices]) for _, indices in batches.take(25).as_numpy_iterator())
        for grouped, batches in (
            (False, index_batches(400, 16, seed=0)),
            (True, index_batches(400, 16, seed=0, lengths=lengths)),
        )
    }
    assert padding[True] < padding[False] / 5


@pytest.mark.parametrize("count", [1, 4, 7, 8])
def test_predict_in_batches_returns_one_prediction_per_row(count):
    rows = np.arange(count * 2.0).reshape(count, 2)
    shapes = set()

    def predict(inputs):
        shapes.add(inputs[0].shape)
        return inputs[0] * 2

    assert (predict_in_batches(predict, [rows], 4) == rows * 2).all()
    assert shapes == {(4, 2)}


def test_predict_in_batches_accepts_several_inputs_and_outputs():
    x, y = np.arange(5), np.arange(5) * 10
    total, difference = predict_in_batches(lambda inputs: [inputs[0] + inputs[1], inputs[1] - inputs[0]], [x, y], 3)
    assert (total == x + y).all() and (difference == y - x).all()
