"""One writer at a time: refused by name, and let in once the holder is gone."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from layerscope.cache import lock as module
from layerscope.cache.lock import Lock, living_holder, require_unlocked
from layerscope.errors import CacheError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net@toy.h5"


def pretend(path, **other):
    """Leave the lock of another process behind."""
    with Lock(path):
        file = module.lock_of(path)
        known = json.loads(file.read_text())
    file.write_text(json.dumps(known | other))
    return file


def test_a_lock_ends_with_its_holder_and_leaves_nothing(path):
    with Lock(path):
        assert living_holder(path).process == os.getpid()
    assert living_holder(path) is None
    assert list(path.parent.iterdir()) == []


def test_a_living_holder_is_named(path, held):
    with held(path) as process, pytest.raises(CacheError, match=f"by process {process} on"):
        Lock(path)
    with Lock(path):
        pass


def test_the_lock_of_a_dead_process_is_taken(path):
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                           capture_output=True, text=True, check=True)  # fmt: skip
    pretend(path, process=int(child.stdout))
    with Lock(path):
        assert living_holder(path).process == os.getpid()


def test_who_was_killed_while_taking_a_stale_lock_is_in_the_way_for_a_moment(path, monkeypatch):
    monkeypatch.setattr(module, "GUARDED", 0.3)
    lock = pretend(path, born="1")
    guard = lock.with_name(f"{lock.name}.takeover")
    begin = time.monotonic()
    guard.touch()
    with Lock(path):
        assert time.monotonic() - begin > 0.2
        assert not guard.exists()


def test_a_later_process_of_the_same_number_is_another(path):
    pretend(path, born="1")
    assert living_holder(path) is None


@contextmanager
def renewed(file):
    """Renew a lock as its holder on another machine would."""
    ended = threading.Event()

    def renew():
        while not ended.wait(0.05):
            os.utime(file)

    thread = threading.Thread(target=renew)
    thread.start()
    yield
    ended.set()
    thread.join()


def test_a_holder_on_another_machine_lives_as_long_as_it_renews(path):
    file = pretend(path, host="elsewhere", process=1)
    with renewed(file):
        with pytest.raises(CacheError, match="by process 1 on elsewhere"):
            Lock(path)
        with pytest.raises(CacheError, match="by process 1 on elsewhere"):
            require_unlocked(path)
    past = time.time() - module.STALE - 1
    os.utime(file, (past, past))
    with Lock(path):
        assert living_holder(path).process == os.getpid()


def test_one_that_was_killed_on_another_machine_is_waited_for_until_it_is_stale(path, monkeypatch):
    monkeypatch.setattr(module, "STALE", 0.5)
    file = pretend(path, host="elsewhere", process=1)
    os.utime(file)
    with Lock(path):
        assert living_holder(path).process == os.getpid()


def test_the_same_number_in_another_container_is_not_looked_up_here(path):
    file = pretend(path, world="another boot, another name space", process=2**22 + 1)
    with renewed(file), pytest.raises(CacheError, match="is being written by process"):
        Lock(path)


def test_a_holder_is_renewed(path, monkeypatch):
    monkeypatch.setattr(module, "RENEWED", 0.01)
    with Lock(path):
        file = module.lock_of(path)
        os.utime(file, (0, 0))
        for _ in range(6000):
            if file.stat().st_mtime > 1:
                break
            time.sleep(0.01)
        assert file.stat().st_mtime > 1


def test_one_that_was_taken_over_must_not_go_on_and_takes_nothing_away(path):
    first = Lock(path)
    first.require()
    pretended = json.loads(module.lock_of(path).read_text()) | {"token": "other", "process": 7}
    module.lock_of(path).write_text(json.dumps(pretended))
    with pytest.raises(CacheError, match="was taken over by process 7"):
        first.require()
    first.release()
    assert module.lock_of(path).exists()


def test_half_a_lock_counts_as_one_that_is_being_written(path):
    file = module.lock_of(path)
    file.write_text("{")
    with renewed(file), pytest.raises(CacheError, match="is being written"):
        Lock(path)


def contend(path, start, looked, won):
    start.wait()
    try:
        taken = Lock(path)
    except CacheError:
        looked.wait()
        return
    won.put(os.getpid())
    looked.wait()  # every other has looked while it was held
    taken.release()


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_gets_it(path, stale):
    if stale:
        pretend(path, born="1")
    # Forked of one process that has loaded this file: four times torch take their time.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    start, looked = (context.Barrier(4, timeout=60) for _ in range(2))
    won = context.Queue()
    crowd = [context.Process(target=contend, args=(path, start, looked, won)) for _ in range(4)]
    for one in crowd:
        one.start()
    for one in crowd:
        one.join()
    winners = [won.get(timeout=60)]
    while not won.empty():
        winners.append(won.get())
    assert len(set(winners)) == len(winners)
    assert len(winners) < len(crowd)
