import gzip

import numpy as np
import pytest
import scipy.io
import scipy.sparse as sp

from polyai.datasets import Graph, folder, read, walk
from polyai.errors import OptionError, SparseStructureError, UnsupportedError

HEADER = "%%MatrixMarket matrix coordinate real general\n"


def written(folder, name, text):
    path = folder / name
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (HEADER + "2 2 2\n1 1 3\n\n2 1 4\n\n", [[3, 0], [4, 0]]),
        (HEADER + "\n% remark\n2 2 1\n1 2 3e0\n".replace("\n% remark\n", "% remark\n\n"), [[0, 3], [0, 0]]),
        (HEADER.replace("\n", "\r\n") + "1 1 1\r\n1 1 5\r\n", [[5]]),
        (HEADER + "2 2 2\n1 1 3\n1 1 4\n", [[7, 0], [0, 0]]),
        (HEADER + "0 3 0\n", np.zeros((0, 3))),
        ("%%MatrixMarket matrix coordinate pattern symmetric\n2 2 2\n1 1\n2 1\n", [[1, 1], [1, 0]]),
        ("%%MatrixMarket matrix coordinate integer general\n1 2 1\n1 2 -7\n", [[0, -7]]),
        ("%%MatrixMarket matrix coordinate real skew-symmetric\n2 2 1\n2 1 3\n", [[0, -3], [3, 0]]),
        ("%%MatrixMarket matrix coordinate complex hermitian\n2 2 2\n1 1 1 0\n2 1 2 3\n", [[1, 2 - 3j], [2 + 3j, 0]]),
        ("%%MATRIXMARKET MATRIX COORDINATE REAL GENERAL\n1 1 1\n1 1 2\n".replace("%%MATRIXMARKET", "%%MatrixMarket"), [[2]]),
    ],
)
@pytest.mark.parametrize("name", ["a.mtx", "a.mtx.gz"])
def test_matrix_market(tmp_path, text, want, name):
    got = read(written(tmp_path, name, text))
    assert got.format == "csr" and got.has_canonical_format
    np.testing.assert_array_equal(got.toarray(), want)


def test_dense_matrix_market(tmp_path):
    got = read(written(tmp_path, "a.mtx", "%%MatrixMarket matrix array real symmetric\n2 2\n1\n2\n3\n"))
    assert isinstance(got, np.ndarray) and got.tolist() == [[1, 2], [2, 3]]
    assert read(written(tmp_path, "b.mtx", "%%MatrixMarket matrix array real general\n3 0\n")).shape == (3, 0)


def test_stored_zeros_are_kept(tmp_path):
    assert read(written(tmp_path, "a.mtx", HEADER + "2 2 1\n1 1 0\n")).nnz == 1


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.mtx", "", "banner"),
        ("a.mtx", "2 2 1\n1 1 3\n", "banner"),
        ("a.mtx", HEADER + "2 2 2\n1 1 3\n", "Truncated"),
        ("a.mtx", HEADER + "2 2 1\n3 1 3\n", "out of bounds"),
        ("a.mtx", HEADER + "2 2 1\n1 x 3\n", "Invalid integer"),
        ("a.mtx", HEADER + "2 2 1000000000000000\n1 1 3\n", "more than fits into memory"),
        ("a.mtx", "%%MatrixMarket matrix coordinate real symmetric\n2 3 1\n2 1 3\n", "symmetric matrices are square"),
        ("a.smtx", "", "it is empty"),
        ("a.smtx", "2, 2\n0 1 1\n0\n", "not 'rows, columns, nnz'"),
        ("a.smtx", "2, 2, 1\n0 1\n0\n", "2 rows need 3 row pointers"),
        ("a.smtx", "2, 2, 1\n0 1 1\n", "0 column indices"),
        ("a.smtx", "2, 2, 1\n0 1 1\n5\n", r"indices\[0\] is 5"),
        ("a.smtx", "2, 2, 2\n0 2 1\n0 1\n", r"indptr\[-1\] is 1|indptr decreases"),
        ("a.smtx", "2, x, 1\n0 1 1\n5\n", "invalid literal"),
        ("a.tns", "", "no entry"),
        ("a.tns", "1 2 3\n1 2\n", "different length"),
        ("a.tns", "0 2 3\n", "entry 1 has the index 0"),
        ("a.tns", "1 a 3\n", "invalid literal"),
        ("a.tsv", "# only remarks\n", "no row of names"),
        ("a.tsv", "x\ty\n1\n", "row 1 has 1 fields"),
        ("a.npz", "not a zip", "broken"),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, says):
    for path in (written(tmp_path, name, text), written(tmp_path, f"{name}.gz", text)):
        if name == "a.npz" and path.suffix == ".gz":
            continue
        with pytest.raises(SparseStructureError, match=says) as error:
            read(path)
        assert path.name in str(error.value)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "a.mtx.gz"
    path.write_bytes(gzip.compress((HEADER + "2 2 1\n1 1 3\n").encode())[:-12])
    with pytest.raises(SparseStructureError, match=r"a\.mtx\.gz"):
        read(path)
    path.write_bytes(b"plain text")
    with pytest.raises(SparseStructureError, match=r"a\.mtx\.gz"):
        read(path)


def test_missing_and_unknown(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.mtx"):
        read(tmp_path / "b.mtx")
    with pytest.raises(UnsupportedError, match=r"known are \.mtx"):
        read(tmp_path / "b.xlsx")


def test_smtx_and_tns_and_tsv(tmp_path):
    assert read(written(tmp_path, "a.smtx.gz", "2, 3, 2\n0 2 2\n0 2\n")).toarray().tolist() == [[1, 0, 1], [0, 0, 0]]
    assert read(written(tmp_path, "e.smtx", "2, 3, 0\n0 0 0\n\n")).nnz == 0
    tensor = read(written(tmp_path, "a.tns", "# remark\n1 1 2 5.5\n2 3 1 -1\n"))
    assert tensor.shape == (2, 3, 2) and tensor.toarray()[0, 0, 1] == 5.5 and tensor.toarray()[1, 2, 0] == -1
    table = read(written(tmp_path, "a.tsv.gz", "# n=2\nlength\tscore\tname\n3\t0.5\tx\n4\t1\ty\n"))
    assert table["length"].dtype == np.int64 and table["score"].tolist() == [0.5, 1] and table["name"].tolist() == ["x", "y"]


def test_npz(tmp_path):
    a = sp.random_array((5, 6), density=0.4, rng=1)
    for kind in ("csr", "csc", "coo", "bsr", "dia"):
        sp.save_npz(tmp_path / "a.npz", a.asformat(kind))
        np.testing.assert_array_equal(read(tmp_path / "a.npz").toarray(), a.toarray())
    np.savez(tmp_path / "b.npz", x=np.ones(3))
    with pytest.raises(SparseStructureError, match="no matrix in it"):
        read(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", x=np.array([None]))
    with pytest.raises(SparseStructureError, match=r"c\.npz is broken"):
        read(tmp_path / "c.npz")


def test_invalid_indices_never_get_out(tmp_path):
    a = sp.csr_array(np.eye(3))
    parts = {"data": a.data, "indices": a.indices + 1, "indptr": a.indptr, "shape": np.array(a.shape)}
    np.savez(tmp_path / "a.npz", **parts)
    np.savez(tmp_path / "b.npz", **parts, format=np.array(b"csr"))
    np.savez(tmp_path / "c.npz", **{f"adj_{k}": v for k, v in parts.items()})
    np.savez(tmp_path / "d.npz", **{**parts, "indptr": a.indptr[:-1]})
    for name in "abcd":
        with pytest.raises(SparseStructureError, match=rf"{name}\.npz"):
            read(tmp_path / f"{name}.npz")


def test_graphs(tmp_path):
    a = sp.csr_array(np.array([[0.0, 1], [1, 0]]))
    parts = {"adj_data": a.data, "adj_indices": a.indices, "adj_indptr": a.indptr, "adj_shape": np.array(a.shape)}
    np.savez(tmp_path / "g.npz", **parts, labels=np.array([0, 1]), train_idx=np.array([1]))
    graph = read(tmp_path / "g.npz")
    assert isinstance(graph, Graph) and graph.features is None and graph.splits["train"].tolist() == [1]
    np.savez(
        tmp_path / "batch.npz", edge_index=np.array([[0, 1, 0], [1, 0, 2]]), edge_ptr=np.array([0, 2, 3]), node_ptr=np.array([0, 2, 5]), labels=np.array([1, 0])
    )
    batch = read(tmp_path / "batch.npz")
    assert batch.adjacency.shape == (5, 5) and set(zip(*map(np.ndarray.tolist, batch.adjacency.nonzero()))) == {(0, 1), (1, 0), (2, 4)}
    np.savez(tmp_path / "bad.npz", edge_index=np.array([[0, 1], [1, 9]]), edge_ptr=np.array([0, 2]), node_ptr=np.array([0, 2]))
    with pytest.raises(SparseStructureError, match=r"bad\.npz"):
        read(tmp_path / "bad.npz")
    np.savez(tmp_path / "odd.npz", edge_index=np.array([[0, 1], [1, 0]]), edge_ptr=np.array([0, 1]), node_ptr=np.array([0, 2]))
    with pytest.raises(SparseStructureError, match="do not fit together"):
        read(tmp_path / "odd.npz")


def test_walk(tmp_path, monkeypatch):
    for kind in ("fem", "gnn"):
        (tmp_path / kind).mkdir()
    scipy.io.mmwrite(tmp_path / "fem" / "b.mtx", sp.eye_array(3))
    written(tmp_path / "fem", "a.mtx.gz", HEADER + "1 1 1\n1 1 2\n")
    written(tmp_path, "t.tsv", "x\n1\n")
    written(tmp_path, "d.mtx", "%%MatrixMarket matrix array real general\n1 1\n2\n")
    written(tmp_path, "README.txt", "words")
    written(tmp_path / "gnn", "p.smtx", "1, 1, 1\n0 1\n0\n")
    assert [name for name, _ in walk(tmp_path)] == ["fem/a", "fem/b", "gnn/p"]
    assert list(dict(walk(tmp_path, kinds=("gnn",)))) == ["gnn/p"]
    monkeypatch.setenv("POLYAI_DATASETS", str(tmp_path))
    assert len(list(walk())) == 3
    monkeypatch.setenv("POLYAI_DATASETS", "/nowhere")
    with pytest.raises(OptionError, match="/nowhere is no folder"):
        folder()
    monkeypatch.delenv("POLYAI_DATASETS")
    with pytest.raises(OptionError, match="POLYAI_DATASETS is not set"):
        folder()
