"""Thousands of files broken at random: no traceback, and rows read + rows refused = rows present."""

import numpy as np
import pytest
from fuzz import check, mutate, seeds
from hypothesis import settings

SEEDS = seeds()


@pytest.mark.parametrize("name", SEEDS)
def test_clean_files_are_read(name, tmp_path):
    (tmp_path / name).write_bytes(SEEDS[name])
    assert check(tmp_path / name) == "read"


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEDS)
def test_broken_files_are_read_or_refused(name, tmp_path):
    rng = np.random.default_rng(len(name))
    path = tmp_path / name
    read = 0
    for number in range(10 * settings().max_examples):
        data = mutate(SEEDS[name], rng)
        path.write_bytes(data)
        try:
            read += check(path) == "read"
        except Exception as error:
            raise AssertionError(f"{name}, file {number}: {type(error).__name__}: {error}\n{data!r}") from error
    assert read, "nothing was read at all: the accidents are too many to prove anything"
