"""Tasks in threads and processes of this machine: what becomes of one that ends its process."""

import os
import time

import pytest

from nuclei_unet.batch import pool


def double(task, common):
    if task == common:
        raise ValueError(f"task {task}")
    return 2 * task


def kill_worker(task, common):
    os.kill(os.getpid(), 9) if task in common else None
    return task


def process_of(task, common):
    time.sleep(common)
    return os.getpid()


def test_threads_give_results_in_order_and_raise_errors():
    with pool.open_pool(threads=3) as workers:
        assert list(pool.in_order(workers.run(double, range(30), None))) == list(range(0, 60, 2))
    with pytest.raises(ValueError, match="task 5"), pool.open_pool() as workers:
        list(workers.run(double, range(9), 5))


def test_a_task_that_ends_its_process_is_given_up_and_the_others_are_done():
    with pool.open_pool(2) as workers:
        results = list(pool.in_order(workers.run(kill_worker, range(12), (5, 11))))
    assert all(isinstance(results[n], pool.Lost) and "memory" in results[n].reason for n in (5, 11))
    others = [n for n in range(12) if n not in (5, 11)]
    assert [results[n] for n in others] == others


def test_processes_end_when_the_block_is_left_by_an_error():
    with pytest.raises(KeyboardInterrupt), pool.open_pool(2) as workers:
        results = workers.run(process_of, [0] * 20, 0.05)
        _, process = next(results)
        start = time.monotonic()
        raise KeyboardInterrupt
    assert time.monotonic() - start < 3
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_without_dask_a_scheduler_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(pool.InputError, match=r"nuclei-unet\[dask\]"), pool.open_pool(scheduler="tcp://127.0.0.1:1"):
        pass
