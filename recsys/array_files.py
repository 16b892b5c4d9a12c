"""Write and read the arrays of saved models, with checks before an array is used.

A file may come from an untrusted source. So the size that its header declares is compared with the
size of the file before memory is allocated, nothing is unpickled, and the indices of a sparse
matrix are checked before a compiled loop uses them.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import csr_array, issparse, load_npz, save_npz

from recsys.errors import RunFolderError
from recsys.types import IdMap

_DESCRIPTION = re.compile(r"(?P<sparse>csr )?(?P<dtype>\w+)\[(?P<axes>[\w, ]+)\](?P<nan> or NaN)?")


MAPPED_BYTES = 2**20
"""Size from which a file of an array is mapped into memory instead of read."""


def write_array(path: Path, array: Any) -> None:
    """Write a dense array to ``path`` + ``.npy``, or a sparse matrix to ``path`` + ``.npz``.

    A file of the same name is replaced. Sparse matrices are not compressed.

    Raises:
        OSError: the file cannot be written.
    """
    if issparse(array):
        save_npz(path.with_name(path.name + ".npz"), array, compressed=False)
    else:
        np.save(path.with_name(path.name + ".npy"), array, allow_pickle=False)


def read_array(path: Path) -> Any:
    """Return the dense or sparse array that :func:`write_array` wrote to ``path``.

    A sparse matrix is returned as csr, after checking its indices.

    Raises:
        OSError: neither the .npy nor the .npz file exists, or it cannot be read.
        ValueError: both files exist, the file is damaged, or its size differs from the size that
            its header declares.
    """
    dense = path.with_name(path.name + ".npy")
    sparse = path.with_name(path.name + ".npz")
    if dense.exists() and sparse.exists():
        raise ValueError(f"{dense.name} and {sparse.name} are both there, but a model has one of them")
    if sparse.exists():
        return _read_sparse(sparse)
    return read_npy(dense)


def read_npy(path: Path) -> np.ndarray:
    """Return the array in a .npy file. A large array is mapped into memory.

    So several processes that read one bundle share its factors. A change of the array stays in the
    process and never reaches the file. Files of saved models are replaced as a whole, and never
    changed in place, so what is mapped stays as it was checked.

    Raises:
        OSError: the file does not exist or cannot be read.
        ValueError: the file is damaged, contains Python objects, or its size differs from the size
            that its header declares.
    """
    with path.open("rb") as file:
        _require_size(file, path.stat().st_size, path.name)
    if path.stat().st_size < MAPPED_BYTES:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    return np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))


def read_factors(path: Path, column: str, ids: IdMap, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the factors in a Parquet table that Spark wrote, in the row order of ``ids``.

    Returns two arrays: the factors, float32[ids, rank], and whether the table has a factor for each
    id, bool[ids]. The factors of an id that is not in the table are zeros.

    Args:
        column: the column with the ids. The column ``features`` has lists of ``rank`` numbers.

    Raises:
        RunFolderError: the table is missing or damaged, it has an id that is not in ``ids``, or its
            factors have another rank or are not finite.
    """
    try:
        table = pq.read_table(path, columns=[column, "features"]).combine_chunks()
        features = table["features"].combine_chunks()
        lengths = pc.min_max(pc.list_value_length(features)).as_py()
        if table.num_rows and (lengths["min"], lengths["max"]) != (rank, rank):
            raise ValueError(f"its factors do not have {rank} numbers each")
        vectors = features.flatten().to_numpy(zero_copy_only=False).reshape(-1, rank)
        rows = ids.rows(table[column].to_pandas().to_numpy())
        if (rows < 0).any() or not np.isfinite(vectors).all():
            raise ValueError("it has ids that the run does not have, or factors that are not finite")
        factors = np.zeros((len(ids), rank), dtype=np.float32)
        factors[rows] = vectors
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError, MemoryError) as error:
        raise RunFolderError(f"{path}: cannot be read: {error}. Run it again.") from error
    has_factor = np.zeros(len(ids), dtype=bool)
    has_factor[rows] = True
    return factors, has_factor


def require_arrays(arrays: Mapping[str, Any], descriptions: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Check that the arrays of a model have the dtypes, shapes and values that the model needs.

    Args:
        arrays: array name -> a NumPy array or a sparse matrix. Names without a description are not
            checked.
        descriptions: array name -> what the array must be, for example ``float32[items, rank]``.
            ``csr `` in front requires a sparse matrix. `` or NaN`` at the end allows NaN and
            infinity. ``float`` means any float dtype, ``int`` any integer dtype, and ``str`` text
            of any length. `` | `` separates alternatives.
        sizes: axis name -> its required length, for example the number of items. An axis that is
            not in ``sizes`` may have any length, but the same one in all arrays. An axis that is
            written as a number has this length.

    Raises:
        KeyError: a described array is missing.
        ValueError: an array has another dtype or shape, or has NaN or infinity where that is not
            allowed.
    """
    lengths = dict(sizes)
    for name, description in descriptions.items():
        array = arrays[name]
        matches = [_DESCRIPTION.fullmatch(text) for text in description.split(" | ")]
        possible = [match for match in matches if match and _has_kind(array, match)]
        if not possible:
            raise ValueError(f"{name} should be {description}, but it is {_describe(array)}")
        axes = [axis.strip() for axis in possible[0]["axes"].split(",")]
        for axis, length in zip(axes, array.shape, strict=True):
            expected = int(axis) if axis.isdigit() else lengths.setdefault(axis, length)
            if length != expected:
                raise ValueError(
                    f"{name} should be {description} with {expected:,} {axis}, but it is {_describe(array)}"
                )
        values = array.data if issparse(array) else array
        if values.dtype.kind == "f" and not possible[0]["nan"] and not np.isfinite(values).all():
            raise ValueError(f"{name} has values that are NaN or infinite")


def _has_kind(array: Any, match: re.Match[str]) -> bool:
    """Return whether an array has the dtype, the sparsity and the number of axes of a description."""
    if issparse(array) != bool(match["sparse"]) or len(array.shape) != match["axes"].count(",") + 1:
        return False
    if match["dtype"] == "str":
        return array.dtype.kind == "U"
    if match["dtype"] in ("float", "int"):
        return array.dtype.kind == match["dtype"][0]
    return array.dtype == np.dtype(match["dtype"])


def _describe(array: Any) -> str:
    sparse = "csr " if issparse(array) else ""
    return f"{sparse}{array.dtype}{list(array.shape)}"


def _read_sparse(path: Path) -> csr_array:
    """Return the sparse matrix in a .npz file, which must be an archive without compression."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            for part in archive.infolist():
                if part.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{path.name} is compressed, which recsys does not write")
                with archive.open(part) as stream:
                    _require_size(stream, part.file_size, f"{part.filename} in {path.name}")
        with path.open("rb") as file:
            matrix = csr_array(load_npz(file))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, KeyError) as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    matrix.check_format(full_check=True)
    return matrix


def _require_size(file: IO[bytes], size: int, name: str) -> None:
    """Raise ValueError if the size of an array's file differs from the size that its header
    declares."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{name} is of version {version}, which recsys does not write")
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects, which are not read")
    declared = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != size:
        raise ValueError(f"{name} has {size:,} bytes, but its header says {declared:,}")
