"""Kills writers of a cache and goes on after them; run by test_crashes.py in a process of its own.

Usage: crash_lab.py EXPERIMENT FOLDER [COUNT], with the pickled header and features in FOLDER/given;
COUNT says how often to kill at random, or in how many ways at every call. Prints one line of JSON.
Children are forked, so that each takes milliseconds and dies alone.
"""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch

from layerscope.cache import (
    AssignmentWriter,
    CacheBuild,
    CacheWriter,
    cache_status,
    merge,
    open_cache,
    writer,
)
from layerscope.errors import CacheError, DiskError

torch.set_num_threads(1)  # threads do not survive a fork
BATCH = 4
DEADLY = ("pwrite", "fsync", "fdatasync", "replace", "link", "unlink")


class AtOnce:
    """Has the disk synchronised before the next call, so that calls can be counted."""

    def __init__(self, *_given, **_named):
        pass

    def submit(self, job):
        done = Future()
        done.set_result(job())
        return done

    def shutdown(self):
        pass


class Given:
    """What every experiment works with."""

    def __init__(self, folder: Path) -> None:
        self.header, self.features = pickle.loads((folder / "given").read_bytes())
        self.folder = folder
        self.reference = folder / "reference" / "net@toy.h5"
        write(self, self.reference)
        self.digest = digest(self.reference)

    def fresh(self, number: int) -> Path:
        return self.folder / str(number) / "net@toy.h5"


def batches(rows):
    return [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]


def put(to, given, rows):
    part = {key: values[rows] for key, values in given.features.items()}
    to.write(rows, part, np.ones(len(rows), bool))


def write(given, path, told=None):
    with CacheWriter(path, given.header, unit=BATCH) as to:
        for rows in batches(to.missing):
            put(to, given, rows)
            if told is not None:
                os.write(told, bytes([len(rows)]))
        to.finish()


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def arm(last, when):
    """Die at the call number ``last`` of those that change the disk: before, after, or halfway."""
    count = 0

    def deadly(original, halved):
        def call(*given, **named):
            nonlocal count
            count += 1
            if count == last:
                try:
                    if when == "after":
                        original(*given, **named)
                    elif when == "halfway" and halved:
                        handle, data, at = given
                        original(handle, data[: len(data) // 2], at)
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)
            return original(*given, **named)

        return call

    for name in DEADLY:
        setattr(os, name, deadly(getattr(os, name), name == "pwrite"))
    return lambda: count


def forked(job):
    """Run a job in a child, and return its number."""
    child = os.fork()
    if child == 0:
        try:
            job()
        except BaseException:  # noqa: BLE001  whatever it is, the parent is told
            os._exit(3)
        os._exit(0)
    return child


def killed(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def events(given, job):
    """Return how many calls of a job change the disk."""
    reading, writing = os.pipe()

    def counted():
        count = arm(-1, "before")
        job()
        os.write(writing, str(count()).encode())

    os.waitpid(forked(counted), 0)
    return int(os.read(reading, 32))


def judge(given, path, acknowledged, wrong, what):
    """After a kill: no reader takes it for a whole one, and no acknowledged row is lost."""
    if path.exists():
        with open_cache(path) as cache:
            assert cache.rows == given.header.rows
    else:
        try:
            open_cache(path.with_name(path.name + ".part"))
            wrong.append(f"{what}: a part was opened")
        except CacheError:
            pass
    found = cache_status(path, given.header, "missing")
    if found.rows_done < acknowledged:
        wrong.append(f"{what}: {found.rows_done} of {acknowledged} acknowledged rows")


def resume(given, path, wrong, what):
    if cache_status(path, given.header, "missing").state != "there":
        write(given, path)
    if digest(path) != given.digest:
        wrong.append(f"{what}: the finished file differs")
    left = sorted(p.name for p in path.parent.iterdir() if p != path)
    if any(name.endswith((".part", ".draft")) for name in left):
        wrong.append(f"{what}: {left} were left behind")
    shutil.rmtree(path.parent)


def acknowledged(reading):
    os.set_blocking(reading, False)
    try:
        return sum(os.read(reading, 4096))
    except BlockingIOError:
        return 0


def one_kill(given, path, arming, delay=None):
    reading, writing = os.pipe()

    def job():
        arming()
        write(given, path, told=writing)

    child = forked(job)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    died = killed(child)
    count = acknowledged(reading)
    os.close(reading)
    os.close(writing)
    return died, count


WAYS = ("before", "halfway", "after")


def at_every_call(given, ways):
    """Kill before, within or after every call that changes the disk, in one way or several."""
    wrong, kills = [], 0
    writer.SYNC_EVERY = 0.0  # every batch, so that there is a kill before and after each
    writer.ThreadPoolExecutor = AtOnce
    total = events(given, lambda: write(given, given.fresh(0)))
    shutil.rmtree(given.fresh(0).parent)
    for last in range(1, total + 1):
        for when in (WAYS[(last + way) % len(WAYS)] for way in range(ways)):
            path, what = given.fresh(1), f"call {last} {when}"
            died, count = one_kill(given, path, lambda last=last, when=when: arm(last, when))
            kills += died
            if not died:
                wrong.append(f"{what}: nobody died")
            judge(given, path, count, wrong, what)
            resume(given, path, wrong, what)
    return {"kills": kills, "wrong": wrong[:5]}


def at_random(given, count, seed=0):
    """Kill at random moments, twice on the way of every third cache."""
    draw, wrong, kills = random.Random(seed), [], 0
    begin = time.perf_counter()
    os.waitpid(forked(lambda: write(given, given.fresh(0))), 0)
    whole = time.perf_counter() - begin
    number = 0
    while kills < count:
        number += 1
        path = given.fresh(number)
        for again in range(1 + (number % 3 == 0)):
            died, rows = one_kill(given, path, lambda: None, draw.uniform(0, whole))
            kills += died
            judge(given, path, rows, wrong, f"kill {kills}, {again}")
        resume(given, path, wrong, f"kill {kills}")
    return {"kills": kills, "caches": number, "wrong": wrong[:5]}


def share(given, path, header, part, arming=lambda: None):
    arming()
    with AssignmentWriter(path, header, part) as to:
        for rows in batches(to.rows):
            put(to, given, rows)


def together(given, path, ranks, victim=None, arming=lambda: None):
    """Let some ranks write what is missing, of which one may die; return whether one did."""
    died = False
    with CacheBuild(path, given.header) as lead:
        shares = lead.assignments(ranks, BATCH)
        children = [
            forked(
                lambda part=part, rank=rank: share(
                    given, path, lead.header, part, arming if rank == victim else lambda: None
                )
            )
            for rank, part in enumerate(shares)
        ]
        died = any([killed(child) for child in children])
        if not died:
            lead.finish()
    return died


def with_ranks(given):
    """Kill one of two ranks at every call; go on with one, two and three, and merge."""
    wrong, kills = [], 0
    for last in range(1, 10_000):
        path, what = given.fresh(1), f"rank {last % 2} at call {last}"
        if not together(given, path, 2, last % 2, lambda last=last: arm(last, "halfway")):
            break
        kills += 1
        found = cache_status(path, given.header, "missing")
        first = len(batches(np.arange(given.header.rows))) // 2 * BATCH
        survivor = first if last % 2 else given.header.rows - first
        if found.rows_done < survivor:
            wrong.append(f"{what}: the survivor's rows are lost ({found.rows_done})")
        together(given, path, 1 + last % 3)
        with open_cache(path) as cache, open_cache(given.reference) as reference:
            for cut in reference.cuts:
                if not np.array_equal(cache[cut.key], reference[cut.key]):
                    wrong.append(f"{what}: {cut.key} differs")
        if cache_status(path, given.header, "missing").state != "there":
            wrong.append(f"{what}: it is not there")
        with open_cache(path) as cache:
            sharded = bool(cache.shards)
        if sharded:
            merge(path)
        resume(given, path, wrong, what)
    return {"kills": kills, "wrong": wrong[:5]}


def merging(given):
    """Kill a merge at every call; go on with it."""
    wrong, kills = [], 0
    for last in range(1, 10_000):
        path, what = given.fresh(1), f"merge at call {last}"
        together(given, path, 2)
        child = forked(lambda path=path, last=last: (arm(last, "halfway"), merge(path)))
        if not killed(child):
            break
        kills += 1
        with open_cache(path) as cache:
            if cache.shards:
                for cut in cache.cuts:
                    np.asarray(cache[cut.key])
        with open_cache(path) as cache:
            again = bool(cache.shards)
        if again:
            merge(path)
        else:  # killed after the one file was there, before the shards were gone
            from layerscope.cache.shards import clear

            clear(path)
        resume(given, path, wrong, what)
    return {"kills": kills, "wrong": wrong[:5]}


def annotating(given):
    """Kill at every call of giving a cache other annotations; the same call again completes it."""
    from dataclasses import replace

    from layerscope.cache import annotate

    wrong, kills = [], 0
    header = given.header
    source = replace(header.source, splits=np.roll(header.source.splits, 1), annotations="b" * 64)
    other = replace(
        header, source=source, ingredients={**header.ingredients, "annotations": "b" * 64}
    )
    for last in range(1, 10_000):
        path, what = given.fresh(1), f"annotate at call {last}"
        write(given, path)
        child = forked(lambda path=path, last=last: (arm(last, "halfway"), annotate(path, other)))
        if not killed(child):
            break
        kills += 1
        found = cache_status(path, other, "missing")
        if found.rows_done != header.rows:
            wrong.append(f"{what}: {found.rows_done} rows are left")
        if found.state == "there" and found.outdated:
            annotate(path, other)
        elif found.state != "there":
            with CacheWriter(path, other) as to:
                if len(to.missing):
                    wrong.append(f"{what}: rows are missing")
                to.finish()
        with open_cache(path) as cache:
            if cache.view("trunk").ids("train").tolist() != [
                i for i, s in zip(source.ids, source.splits, strict=True) if s == "train"
            ]:
                wrong.append(f"{what}: it has the older splits")
            for key, values in given.features.items():
                if not np.array_equal(cache[key], values):
                    wrong.append(f"{what}: {key} differs")
        shutil.rmtree(path.parent)
    return {"kills": kills, "wrong": wrong[:5]}


def full_disk(given):
    """Fill the disk that holds the folder while a cache is written; make room, and go on."""
    path, wrong, filled = given.fresh(1), [], 0
    shutil.rmtree(given.reference.parent)  # it would take half of the disk
    filler = given.folder / "filler"
    rows = given.header.rows
    for fill_at in (0, rows // 3, 2 * rows // 3):
        with CacheWriter(path, given.header, unit=BATCH) as to:
            done = 0
            try:
                for part in batches(to.missing):
                    if part[0] >= fill_at and not filler.exists():
                        with filler.open("wb") as file:
                            block = bytes(2**16)
                            try:
                                while True:
                                    file.write(block)
                                    file.flush()
                            except OSError:
                                pass
                    put(to, given, part)
                    done += len(part)
                wrong.append("the disk never filled up")
            except DiskError as error:
                filled += "No space left" in error.message
        filler.unlink()
        left = cache_status(path, given.header, "missing").rows_done
        if left < done:
            wrong.append(f"{left} rows are left of {done}")
    resume(given, path, wrong, "the full disk")
    return {"filled": filled, "wrong": wrong}


EXPERIMENTS = {
    "every-call": at_every_call,
    "random": at_random,
    "ranks": with_ranks,
    "merge": merging,
    "annotate": annotating,
    "full": full_disk,
}

if __name__ == "__main__":
    experiment, folder, *count = sys.argv[1:]
    print(json.dumps(EXPERIMENTS[experiment](Given(Path(folder)), *map(int, count))))  # noqa: T201
