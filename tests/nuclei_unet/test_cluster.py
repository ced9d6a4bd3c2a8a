"""Tasks in processes of this machine: what becomes of one that ends its worker, and of workers that differ."""

import os

import pytest

from nuclei_unet import cluster


def kill_worker(task, common):
    os.kill(os.getpid(), 9) if task == common else None
    return task


def test_a_task_that_kills_its_workers_is_given_up_and_the_others_are_done():
    with cluster.open_pool(2) as pool:
        found = list(cluster.in_order(pool.run(kill_worker, range(12), 5)))
    assert isinstance(found[5], cluster.Lost) and "memory" in found[5].reason
    assert found[:5] + found[6:] == [n for n in range(12) if n != 5]


def test_a_task_that_waited_at_a_worker_that_another_one_ended_is_done():
    # One worker: each of its deaths counts against the next task, too, which Dask has sent there in advance.
    with cluster._started(1) as client:
        found = list(cluster.in_order(cluster._Dask(client).run(kill_worker, range(6), 0)))
    assert isinstance(found[0], cluster.Lost)
    assert found[1:] == [1, 2, 3, 4, 5]


def test_a_worker_with_other_versions_is_refused(monkeypatch):
    wrong = dict(cluster.stamp(kill_worker), numpy="1.0")
    monkeypatch.setattr(cluster, "stamp", lambda function: wrong)
    with cluster.open_pool(2) as pool, pytest.raises(cluster.InputError, match="another numpy .* than this machine"):
        list(pool.run(kill_worker, range(3), None))
