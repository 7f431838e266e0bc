""".npz files of any origin: what they declare is checked before memory is taken."""

import struct
import zipfile

import numpy as np
import pytest

from dltoolkit import memory, npz
from dltoolkit.data.readers import arrays
from dltoolkit.errors import UserError

LABELS = np.arange(10) % 2


def npy(shape, dtype="|u1", values=b"", declared=None):
    header = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) if declared is None else declared) + header + values


def write(path, content):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", content)
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, LABELS)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float32, np.float64, bool, "S3", "U2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, dtype, order):
    array = np.asarray(np.arange(24).reshape(4, 3, 2).astype(dtype), order=order)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", a=array, b=np.zeros(0), c=np.float32(3))
        with npz.open_npz(tmp_path / "a.npz") as file, np.load(tmp_path / "a.npz") as expected:
            assert file.names == ["a", "b", "c"]
            assert file.size(["a", "c"]) == array.nbytes + 4
            for name in file.names:
                read = file.read(name)
                assert read.dtype == expected[name].dtype
                assert read.shape == expected[name].shape
                assert (read == expected[name]).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((12_000_000_000, 32, 32), "<f8"), "does not fit the"),  # 90 TiB
        (npy((10**30, 8)), "does not fit the"),
        (npy((-1, 8, 8), values=bytes(640)), "does not fit the"),
        (npy((10**15,), "<U0"), "does not fit the"),
        (npy((1,) * 30 + (10, 8, 8), values=bytes(640)), "does not fit the"),
        (npy((10.0, 8, 8), values=bytes(640)), "header of the array images is damaged"),
        (npy((10,), "<U10000000000"), "header of the array images is damaged"),
        (npy((10,), "|O", b"cos\nsystem\n"), "holds Python objects"),
        (npy((10, 8, 8), values=bytes(600)), "does not fit the"),
        (b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + bytes(2**20), "header of the array images is damaged"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 8999 + b"\n", "header of the array images is damaged"),
        (b"not an array", "header of the array images is damaged"),
    ],
)
def test_a_false_declaration_is_refused_in_one_sentence(tmp_path, content, message):
    path = write(tmp_path / "a.npz", content)
    with pytest.raises(UserError, match=message) as error:
        arrays.read_npz(path)
    assert len(str(error.value).removeprefix(str(path))) < 250


def test_arrays_that_do_not_fit_in_memory_are_refused(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", npy((10, 1000, 1000), values=bytes(10_000_000)))
    monkeypatch.setattr(memory, "available", lambda: 10_000_000)
    with pytest.raises(UserError, match=r"a.npz take 10 MB of memory, more than half of the free 10 MB"):
        arrays.read_npz(path)


def test_a_changed_byte_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(1000), y=LABELS)
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[500] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(npz.InvalidNpz, match="CRC"), npz.open_npz(tmp_path / "a.npz") as file:
        file.read("x")
