"""What a task does before its work."""

import gc

import pytest

from recsys.spark.tasks import prepare_task

pytestmark = pytest.mark.spark


def test_what_a_task_finds_is_no_longer_searched_for_garbage(spark):
    def count_searched(_):
        import numba

        prepare_task()
        yield len(gc.get_objects()), numba.get_num_threads()

    [(searched, threads)] = spark.sparkContext.parallelize([0], 1).mapPartitions(count_searched).collect()
    assert searched < 1_000
    assert threads == 1


def test_outside_of_a_task_all_objects_are_searched():
    cycle = []
    cycle.append(cycle)
    prepare_task()
    assert any(found is cycle for found in gc.get_objects())
