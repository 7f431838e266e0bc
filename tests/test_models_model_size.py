"""Sizes of model files: what a file declares beyond what it stores is refused before memory is taken."""

import io
import threading
import zipfile

import h5py
import keras
import numpy as np
import pytest

from dltoolkit.errors import UserError
from dltoolkit.models import model_file, model_size
from dltoolkit.models.model_file import load_model


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Return the entries of the file of a small model."""
    path = tmp_path_factory.mktemp("model") / "a.keras"
    image = keras.Input((8, 8, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Resizing(4, 4)(image))
    keras.Model(image, keras.layers.Dense(5, name="dense")(x)).save(path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def write(path, contents, compression=zipfile.ZIP_STORED, **changed):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in {**contents, **changed}.items():
            file.writestr(name, content)
    return path


def weights(*shapes, **options):
    """Return an HDF5 file with arrays of these shapes that store nothing."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for i, shape in enumerate(shapes):
            file.create_dataset(f"layers/dense/vars/{i}", shape=shape, dtype="f4", **options)
    return content.getvalue()


def test_a_model_as_keras_saves_it_is_loaded(tmp_path, contents):
    add_weight = keras.layers.Layer.add_weight
    model = load_model(write(tmp_path / "a.keras", contents))
    assert model(np.zeros((1, 8, 8, 3))).shape == (1, 5)
    assert keras.layers.Layer.add_weight is add_weight


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"units": 5', '"units": 1000000000', "GiB of weights, but"),
        ('"height": 4, "width": 4', '"height": 100000, "width": 100000', "for one example"),
    ],
)
def test_layers_beyond_the_stored_weights_are_refused(tmp_path, contents, old, new, reason):
    config = contents["config.json"].decode()
    assert old in config
    path = write(tmp_path / "a.keras", contents, **{"config.json": config.replace(old, new)})
    with pytest.raises(UserError, match=f"a.keras was not loaded, because it would exhaust the memory: .*{reason}"):
        load_model(path)


def test_a_description_that_is_nested_too_deeply_is_named(tmp_path, contents):
    path = write(tmp_path / "a.keras", contents, **{"config.json": "[" * 100_000})
    with pytest.raises(UserError, match="within each other, or follow each other, more often than Python can follow"):
        load_model(path)


def test_compressed_entries_are_refused(tmp_path, contents):
    path = write(tmp_path / "a.keras", contents, zipfile.ZIP_DEFLATED, **{"config.json": b" " * 3_000_000})
    with pytest.raises(UserError, match="its entries are compressed, which Keras never does"):
        load_model(path)


def test_weights_that_do_not_fit_into_the_memory_are_refused(tmp_path, contents):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", contents["config.json"])
        with file.open("model.weights.h5", "w", force_zip64=True):
            pass
        entry, size = file.filelist[-1], 2**40
        entry.file_size = entry.compress_size = size  # a hole, which takes no space on the disk
        file.start_dir += size
        file.fp.seek(file.start_dir)
    with pytest.raises(UserError, match="its weights have 1,024.0 GiB|its weights have 1 TiB"):
        load_model(path)


def test_layers_that_do_not_fit_into_the_memory_are_refused():
    with (
        pytest.raises(model_size.SizeError, match="TiB of weights, and .* are free"),
        model_size.limited_weights(2**60),  # as a file with holes has it
    ):
        keras.layers.Dense(10**8).build((None, 10**6))


def test_threads_that_load_at_the_same_time_restore_the_methods_of_keras():
    methods = keras.layers.Layer.add_weight, keras.Model.compile_from_config
    entered, may_leave = [[threading.Event() for _ in range(2)] for _ in range(2)]

    def load(number):
        with model_size.limited_weights(0), model_file._without_compilation():
            entered[number].set()
            may_leave[number].wait(60)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(2)]
    threads[0].start()
    assert entered[0].wait(60)
    keras.layers.Dense(10**3, kernel_initializer="zeros").build(
        (None, 13_000)
    )  # 52 MB, which threads that load nothing may take
    threads[1].start()
    entered[1].wait(0.05)  # without a lock, it would replace the methods of the first thread and restore them last
    for thread, event in zip(threads, may_leave, strict=True):
        event.set()
        thread.join()
    assert (keras.layers.Layer.add_weight, keras.Model.compile_from_config) == methods


@pytest.mark.parametrize("options", [{"chunks": (1, 1000)}, {}])
def test_arrays_that_are_not_stored_are_refused(tmp_path, contents, options):
    path = write(tmp_path / "a.keras", contents, **{"model.weights.h5": weights((48, 10**9), **options)})
    with pytest.raises(UserError, match="an array of 178.8 GiB of which 0 bytes are stored"):
        load_model(path)


def test_arrays_in_other_files_are_refused(tmp_path):
    path = tmp_path / "a.weights.h5"
    path.write_bytes(weights((10,), external=[(str(tmp_path / "secret"), 0, 40)]))
    with pytest.raises(model_size.RefusedError, match="lies in another file"):
        model_size.check_h5(path)


@pytest.mark.parametrize(
    ("shape", "compute", "reason"),
    [
        ((8, 8, 3), lambda x: keras.ops.tile(x, (10**8, 1, 1, 1)), "for one example"),
        ((8, 8, 3), lambda x: keras.ops.tile(x, (3, 1, 1, 1)), "does not compute one output for each example"),
        ((None, None, 3), keras.layers.UpSampling2D(20_000), "for one example"),
    ],
)
def test_sizes_that_depend_on_the_batch_or_on_open_sides_are_refused(tmp_path, shape, compute, reason):
    image = keras.Input(shape)
    keras.Model(image, keras.layers.GlobalAveragePooling2D()(compute(image))).save(tmp_path / "a.keras")
    with pytest.raises(UserError, match=reason):
        load_model(tmp_path / "a.keras")


def test_too_many_layers_entries_and_groups_are_refused(tmp_path, contents, monkeypatch):
    monkeypatch.setattr(model_file, "MAX_LAYERS", 3)
    with pytest.raises(UserError, match="it has more than 3 layers"):
        load_model(write(tmp_path / "a.keras", contents))
    entries = {f"assets/{i}": b"" for i in range(model_size.MAX_ENTRIES)}
    with pytest.raises(UserError, match="it has more than 1,000 entries"):
        load_model(write(tmp_path / "a.keras", contents, **entries))
    monkeypatch.setattr(model_size, "MAX_H5_OBJECTS", 10)
    for path in ("a/" * 120, "many"):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for i in range(20):
                file.create_group(f"{path}/{i}")
        with pytest.raises(model_size.SizeError, match="10 groups, or over 100 within each other"):
            model_size.check_h5(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (h5py.ExternalLink("b.h5", "/"), "is a link to another place or file"),
        (h5py.SoftLink("/"), "is a link to another place or file"),
        (np.ones(3, "complex64"), "values that are no real numbers"),
        (np.ones(3, h5py.ref_dtype), "values that are no real numbers"),
    ],
)
def test_links_and_arrays_of_other_values_are_named(tmp_path, content, reason):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        if isinstance(content, np.ndarray) and content.dtype.kind == "O":
            file.create_dataset("a", (3,), h5py.ref_dtype)
        else:
            file["a"] = content
    with pytest.raises(UserError, match=f"a.h5 was not loaded, because a.*{reason}"):
        model_size.check_weights_file(tmp_path / "a.h5")
