"""Work split over threads."""

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from seqbag.parallel import Workers


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("method", [Workers.map, Workers.each])
def test_map_and_each_keep_the_order_and_raise_what_fails(threads, method):
    with Workers(threads) as workers:
        assert list(method(workers, range(50), lambda item: item * item)) == [item * item for item in range(50)]
        assert list(method(workers, [], str)) == []
        for failing in (0, 49):
            with pytest.raises(ZeroDivisionError):
                list(method(workers, range(50), lambda item, failing=failing: 1 // (item - failing)))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 4))
def test_each_does_every_item_once_whichever_is_slow(naps, threads):
    done, lock = [], threading.Lock()

    def work(item):
        time.sleep(item[1] / 10_000)
        with lock:
            done.append(item[0])
        return item[0]

    with Workers(threads) as workers:
        assert list(workers.each(list(enumerate(naps)), work)) == list(range(len(naps)))
    assert sorted(done) == list(range(len(naps)))


def test_each_gives_a_result_while_other_threads_go_on():
    going_on = threading.Event()
    with Workers(2) as workers:
        results = workers.each(range(2), lambda item: going_on.set() if item else None)
        next(results)
        assert going_on.wait(10)
        list(results)


def test_map_does_not_wait_for_other_work():
    ended, release = [], threading.Event()

    def other(item):
        release.wait(10)
        ended.append(item)

    with Workers(2) as workers:
        pairs = workers.ahead(range(2), other)
        started = threading.Thread(target=next, args=(pairs,))
        started.start()
        assert workers.map(range(3), str) == ["0", "1", "2"]
        assert not ended
        release.set()
        started.join()


def test_the_threads_end_with_the_block():
    before = threading.active_count()
    with Workers(3) as workers:
        workers.map(range(9), str)
        assert threading.active_count() > before
    assert threading.active_count() == before


@pytest.mark.parametrize("threads", [1, 3])
def test_work_ahead_keeps_the_order(threads):
    with Workers(threads) as workers:
        assert list(workers.ahead(range(20), lambda item: item * item)) == [(i, i * i) for i in range(20)]
        assert list(workers.ahead([], str)) == []


@pytest.mark.parametrize("threads", [1, 2])
def test_work_ahead_fails_where_its_item_is_due(threads):
    with Workers(threads) as workers:
        results = workers.ahead([1, 2, 0, 4], lambda item: 1 // item)
        assert [next(results), next(results)] == [(1, 1), (2, 0)]
        with pytest.raises(ZeroDivisionError):
            next(results)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_started_work_is_done_once_and_in_order(threads):
    calls, lock = [], threading.Lock()

    def work(item):
        with lock:
            calls.append(item)
        return item + 1

    with Workers(threads) as workers:
        first = workers.start(range(20), work)
        second = workers.start(range(100, 105), work)
        assert first() == list(range(1, 21))
        assert second() == list(range(101, 106))
    assert sorted(calls) == [*range(20), *range(100, 105)]


def test_what_is_started_first_is_begun_first():
    order, lock, busy = [], threading.Lock(), threading.Event()

    def work(item):
        busy.wait(10)
        with lock:
            order.append(item)

    with Workers(2) as workers:
        first = workers.start(["a", "b"], work)
        second = workers.start(["c"], work)
        busy.set()
        first()
        assert set(order) >= {"a", "b"}
        second()
    assert sorted(order) == ["a", "b", "c"]


def test_what_others_wait_for_goes_before_what_was_started_earlier():
    order, begun, go, done = [], threading.Event(), threading.Event(), threading.Event()

    def hold(_):
        begun.set()
        assert go.wait(10)

    with Workers(2) as workers:
        held = workers.start([0], hold)
        assert begun.wait(10)  # the other thread is busy with it
        later = workers.start(["c", "d"], order.append)
        soon = workers.start(["a", "b"], order.append, first=True)
        last = workers.start([0], lambda _: done.set())
        go.set()
        assert done.wait(10)
        for finish in (held, later, soon, last):
            finish()
    assert order == ["a", "b", "c", "d"]


@pytest.mark.parametrize("threads", [1, 3])
def test_what_fails_after_it_was_started_is_raised_where_it_is_asked_for(threads):
    with Workers(threads) as workers:
        finish = workers.start([1, 0], lambda item: 1 // item)
        with pytest.raises(ZeroDivisionError):
            finish()


def test_a_thread_that_waits_does_what_else_there_is():
    begun, other_done = threading.Event(), threading.Event()

    def waits(item):
        begun.set()
        return other_done.wait(10)

    def fails(item):
        other_done.set()
        raise ZeroDivisionError

    with Workers(2) as workers:
        first = workers.start([0], waits)
        assert begun.wait(10)
        second = workers.start([0], fails)
        assert first() == [True]
        with pytest.raises(ZeroDivisionError):
            second()


def test_an_interrupt_is_raised_at_once_and_where_its_work_is_due():
    begun, release = threading.Event(), threading.Event()

    def waits(item):
        begun.set()
        release.wait(10)

    def interrupted(item):
        release.set()
        raise KeyboardInterrupt

    with Workers(2) as workers:
        first = workers.start([0], waits)
        assert begun.wait(10)
        second = workers.start([0], interrupted)
        with pytest.raises(KeyboardInterrupt):
            first()
        with pytest.raises(KeyboardInterrupt):
            second()


def test_what_nobody_waits_for_is_dropped_at_the_end_of_the_block():
    begun, done = threading.Event(), []

    def work(item):
        begun.set()
        time.sleep(0.05)
        done.append(item)

    with Workers(2) as workers:
        workers.start(range(100), work)
        assert begun.wait(10)
    assert len(done) < 10


def test_after_an_error_nobody_waits_for_what_a_thread_still_does():
    begun, released, ended = threading.Event(), threading.Event(), threading.Event()

    def work(_):
        begun.set()
        released.wait(60)
        ended.set()

    def fail():
        with Workers(2) as workers:
            workers.start([0], work)
            assert begun.wait(60)
            raise ValueError("rows")

    with pytest.raises(ValueError, match="rows"):
        fail()
    assert not ended.is_set()
    released.set()
    assert ended.wait(60)


def test_products_take_one_thread_while_there_are_workers():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    with threadpool_limits(2):
        assert set(threads()) == {2}
        with Workers(2):
            assert set(threads()) == {1}
        assert set(threads()) == {2}
