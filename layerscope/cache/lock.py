"""One writer at a time: a lock file that says who, on which machine, and whether they still live.

The file is made by an exclusive create, which NFS honours since version 3, where the locks of the
operating system often are absent or bound to a connection. Its holder renews it every few seconds.
A lock is stale when its process is gone, which the same machine can see, or else when nobody has
renewed it for a minute of the file server's own clock. Whoever finds the lock of another machine
therefore waits for one or the other: a job that SLURM starts again elsewhere takes over from the
process that was killed, and two that both live do not.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from layerscope.cache.layout import lock_of
from layerscope.errors import CacheError

RENEWED = 10.0
"""Seconds between renewals."""
STALE = 60.0
"""Seconds without a renewal after which a holder on another machine counts as gone."""
GUARDED = 5.0
"""Seconds after which whoever was taking a stale lock away, an instant's work, is gone too."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that writes."""

    host: str
    process: int
    born: str
    """What tells it from a later process of the same number; empty where the system does not."""
    world: str
    """The boot and the process name space in which its number means something."""
    token: str
    """Of this lock alone."""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Lock:
    """Held from ``with`` on, until it ends, by the writer of a cache or shard.

    Raises:
        CacheError: Another process writes it; host and process are named.
    """

    def __init__(self, path: Path) -> None:
        self._path = lock_of(path)
        self._of = path
        self._holder = Holder(
            socket.gethostname(), os.getpid(), _born(os.getpid()), _world(), secrets.token_hex(8)
        )
        self._ended = threading.Event()
        self._take()
        self._renewal = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._renewal.start()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the next one in."""
        self._ended.set()
        self._renewal.join()
        if _read(self._path) == self._holder:
            with suppress(OSError):
                self._path.unlink()

    def require(self) -> None:
        """Refuse to go on once another process has taken over, because this one seemed dead.

        Raises:
            CacheError: The lock is somebody else's.
        """
        found = _read(self._path)
        if found != self._holder:
            by = f" by {found}" if found else ""
            raise CacheError(
                f"{str(self._of)!r} was taken over{by} while this process did not respond.",
                hint="Let the other one finish; no row was written twice.",
            )

    def _take(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Twice as long as a guard can stand in the way.
        for _ in range(200):
            if self._created():
                return
            seen = _seen(self._path)
            held = living_holder(self._of)
            if held is not None:
                raise locked(self._of, held)
            self._replace_stale(seen)
        raise CacheError(
            f"The lock {str(self._path)!r} can neither be taken nor be told from a stale one.",
            hint="See that nobody writes this cache, and delete the file.",
        )

    def _created(self) -> bool:
        # Written aside and linked, so that no one ever reads half of it.
        draft = self._path.with_name(f"{self._path.name}.{self._holder.token}")
        draft.write_text(json.dumps(asdict(self._holder)))
        try:
            os.link(draft, self._path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with self._path.open("x") as file:
                    json.dump(asdict(self._holder), file)
            except FileExistsError:
                return False
        finally:
            draft.unlink(missing_ok=True)
        return True

    def _replace_stale(self, seen: tuple[Holder | None, int | None]) -> None:
        """Take a stale lock away, unless it is another by now; of several, only one may."""
        guard = self._path.with_name(f"{self._path.name}.takeover")
        with suppress(OSError):
            if _age(guard) > GUARDED:
                guard.unlink()
        try:
            os.close(os.open(guard, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            time.sleep(GUARDED / 100)
            return
        try:
            if _seen(self._path) == seen:
                self._path.unlink(missing_ok=True)
        finally:
            guard.unlink(missing_ok=True)

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED):
            if _read(self._path) == self._holder:
                with suppress(OSError):
                    os.utime(self._path)


def living_holder(path: Path) -> Holder | None:
    """Return who is writing a cache or shard, or None if nobody is.

    Takes up to a minute where that cannot be seen from this machine.
    """
    lock = lock_of(path)
    held = _read(lock)
    if held is not None and held.host == socket.gethostname() and held.world == _world():
        return held if _lives(held) else None
    if not lock.exists() or not _renewed(lock):
        return None
    # Nothing to read: its maker has not come to write into it.
    return held or Holder("an unknown host", 0, "", "", "")


def _renewed(lock: Path) -> bool:
    """Return whether a lock is renewed, after as long as that takes to be seen."""
    first = _changed(lock)
    while _age(lock) <= STALE:
        now = _changed(lock)
        if now is None:
            return False
        if now != first:
            return True
        time.sleep(min(1.0, STALE / 10))
    return False


def _seen(lock: Path) -> tuple[Holder | None, int | None]:
    """Return what tells a lock from any other: who made it, and when it was renewed."""
    return _read(lock), _changed(lock)


def _changed(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None


def locked(path: Path, holder: Holder) -> CacheError:
    """Return the error for a cache or shard that another process writes."""
    return CacheError(
        f"{str(path)!r} is being written by {holder}.",
        hint="Wait for it to finish, or end it, and repeat the command.",
    )


def require_unlocked(path: Path) -> None:
    """Refuse a cache or shard that another process writes.

    Raises:
        CacheError: Somebody does.
    """
    held = living_holder(path)
    if held is not None and held.process != os.getpid():
        raise locked(path, held)


def _read(lock: Path) -> Holder | None:
    try:
        return Holder(**json.loads(lock.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _age(path: Path) -> float:
    """Return the seconds since a file was changed, by the clock of the disk that holds it."""
    probe = path.with_name(f"{path.name}.{secrets.token_hex(8)}.clock")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:  # it was given back meanwhile
        return 0.0
    finally:
        probe.unlink(missing_ok=True)


def _lives(holder: Holder) -> bool:
    try:
        os.kill(holder.process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return not holder.born or _born(holder.process) == holder.born


def _born(process: int) -> str:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "gone" if fields[0] in "ZX" else fields[19]


def _world() -> str:
    parts = []
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)
