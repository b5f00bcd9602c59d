"""What is put is written in order by another thread, and no error or batch is lost."""

import threading

import pytest

from layerscope.runtime.timers import COMPUTING, READING, STORING, StageTimer
from layerscope.runtime.write_thread import AHEAD, WriteThread


def test_everything_is_written_in_order_by_one_other_thread():
    done, threads = [], set()

    def write(number):
        done.append(number)
        threads.add(threading.get_ident())

    with WriteThread(write) as storing:
        for number in range(50):
            storing.put(number)
    assert done == list(range(50))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_no_more_than_a_few_ever_wait():
    gate, most, put = threading.Event(), [], 0

    def write(number):
        gate.wait()
        most.append(put - number)

    with WriteThread(write) as storing:
        opener = threading.Timer(0.2, gate.set)
        opener.start()
        for put in range(20):
            storing.put(put)
    assert max(most) <= AHEAD + 1


def test_an_error_is_raised_where_batches_are_put():
    def write(number):
        raise OSError(f"no room for {number}")

    with pytest.raises(OSError, match="no room for 0"), WriteThread(write) as storing:
        for number in range(1000):
            storing.put(number)


def test_an_error_after_the_last_batch_is_raised_at_the_end():
    def write(number):
        if number == 2:
            raise OSError("late")

    with pytest.raises(OSError, match="late"), WriteThread(write) as storing:
        for number in range(3):
            storing.put(number)


def test_what_was_computed_before_an_interruption_is_written():
    done = []
    with pytest.raises(KeyboardInterrupt), WriteThread(done.append) as storing:
        for number in range(3):
            storing.put(number)
        raise KeyboardInterrupt
    assert done == [0, 1, 2]


def test_the_slowest_stage_is_named():
    watch = StageTimer()
    assert watch.note() == f"slowest: {COMPUTING} 100%"
    watch._past, watch._waited = 10.0, {READING: 6.0, STORING: 1.0}
    assert watch.note() == "slowest: reading images 60%"
    assert watch.shares() == pytest.approx({COMPUTING: 0.3, READING: 0.6, STORING: 0.1})
    watch._waited = {READING: 1.0, STORING: 7.0}
    assert watch.note() == "slowest: storing features 70%"
