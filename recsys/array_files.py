"""Arrays of saved models in files: read only if the file is what it says it is.

A file may come from anywhere. Its header is compared with its size before memory is taken, nothing
is unpickled, and a sparse matrix is checked entry by entry before a compiled loop uses its indices.
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


def write_array(path: Path, array: Any) -> None:
    """Write an array as ``path`` with the ending .npy, or a sparse matrix with .npz."""
    if issparse(array):
        save_npz(path.with_name(path.name + ".npz"), array, compressed=False)
    else:
        np.save(path.with_name(path.name + ".npy"), array, allow_pickle=False)


def read_array(path: Path) -> Any:
    """Return what :func:`write_array` wrote.

    Raises:
        OSError: there is no such file.
        ValueError: there are two, or the file is damaged, or its header does not fit its size.
    """
    dense = path.with_name(path.name + ".npy")
    sparse = path.with_name(path.name + ".npz")
    if dense.exists() and sparse.exists():
        raise ValueError(f"{dense.name} and {sparse.name} are both there, but a model has one of them")
    if sparse.exists():
        return _read_sparse(sparse)
    return read_npy(dense)


def read_npy(path: Path) -> np.ndarray:
    """Return the array of a .npy file.

    Raises:
        OSError: there is no such file.
        ValueError: the file is damaged, or its header does not fit its size.
    """
    with path.open("rb") as file:
        _require_size(file, path.stat().st_size, path.name)
    return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]


def read_factors(path: Path, column: str, ids: IdMap, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[ids, rank], zeros for ids without a factor, and bool[ids], whether an id has
    one, from a Parquet table that Spark wrote.

    Args:
        column: holds the ids; the column ``features`` holds lists of ``rank`` numbers.

    Raises:
        RunFolderError: the table is missing or damaged, has ids that are not among ``ids``, or
            factors of another rank or that are not finite.
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
    """Refuse arrays that are not what a model needs.

    Args:
        descriptions: name -> ``float32[items, rank]``, with ``csr `` in front for a sparse matrix
            and `` or NaN`` after it if values may be missing. ``float`` is any float, ``int`` any
            integer, ``str`` text of any length. `` | `` is between alternatives.
        sizes: lengths that are known before, such as the number of items. Any other length must be
            the same in all arrays.

    Raises:
        ValueError: another dtype or shape, or values that are not finite.
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
    """Return whether an array has the dtype and the number of axes of a description."""
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
    """Return a sparse matrix; its parts are in an archive without compression."""
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
    """Refuse an array whose header does not fit the size of its file."""
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
