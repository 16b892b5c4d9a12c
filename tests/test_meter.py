"""The memory of a process and of its descendants, read from a folder that looks like ``/proc``."""

import os
import shutil

import pytest

from recsys import meter

ME = os.getpid()
PAGES_PER_MB = 2**20 // os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def start(tmp_path, monkeypatch):
    """What adds a process to ``/proc``: its pid, its parent, its name, and its memory in MiB."""
    monkeypatch.setattr(meter, "_PROC", tmp_path)

    def add(pid, parent, name, mb):
        folder = tmp_path / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({name}) S {parent} 1 1 0")
        # The address space is twice the resident memory.
        (folder / "statm").write_text(f"{2 * mb * PAGES_PER_MB} {mb * PAGES_PER_MB} 0 0")

    return add


def test_descendants_count_by_role_and_others_do_not(start):
    start(ME, 1, "python", 100)
    start(ME + 1, ME, "java", 300)
    start(ME + 2, ME + 1, "a (worker) of 2", 40)
    start(ME + 3, ME + 2, "a worker", 20)
    start(ME + 4, 1, "java", 5_000)
    start(ME + 5, ME + 4, "python", 7_000)
    assert meter.memory_mb() == {"python": 100.0, "jvm": 300.0, "workers": 60.0, "total": 460.0}


def test_java_above_counts_where_it_started_this_process(start):
    start(ME + 1, 1, "java", 300)
    start(ME, ME + 1, "python", 100)
    assert meter.memory_mb(set()) == {"python": 100.0, "jvm": 300.0, "total": 400.0}


def test_only_processes_that_were_seen_elsewhere_are_left_out_the_next_time(start, tmp_path):
    start(ME, 1, "python", 100)
    start(ME + 1, ME, "python", 10)
    start(ME + 7, 1, "python", 5_000)
    unrelated = set()
    assert meter.memory_mb(unrelated)["total"] == 110.0
    assert unrelated == {ME + 7}

    start(ME + 2, ME + 1, "python", 20)  # a child that started since
    start(ME + 1, ME, "python", 30)  # one that grew
    start(ME + 8, ME + 7, "python", 5_000)
    assert meter.memory_mb(unrelated)["total"] == 150.0
    assert unrelated == {ME + 7, ME + 8}

    shutil.rmtree(tmp_path / str(ME + 7))
    assert meter.memory_mb(unrelated)["total"] == 150.0
    start(ME + 7, ME, "python", 1_000)  # its number is given to a child
    assert meter.memory_mb(unrelated)["total"] == 1150.0
