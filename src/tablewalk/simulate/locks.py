# SPDX-License-Identifier: GPL-2.0-only
"""Locks with Linux's queueing (kernel/locking/rwsem.c, qspinlock.c, folio_wait_bit_common in mm/filemap.c; 7.2).

rwsem: a writer spins while the owner runs, and may take the lock before those who sleep; sleepers are woken in order,
all readers among them at once when the first is a reader; who has slept for 4 ms and wakes in vain forbids stealing
(handoff).  spinlock: first come, first served.  folio lock: a woken waiter may lose against who comes just then, five
times, then it is handed over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .threads import Thread, Threads
from .waits import WAKEUP, Waits, function

MAX_READERS_WAKEUP: Final = 256
PAGE_LOCK_UNFAIRNESS: Final = 5
# how long a writer spins on readers (rwsem_rspin_threshold): microseconds
RSPIN_BASE: Final = 10.0
RSPIN_EACH: Final = 0.5
RSPIN_READERS: Final = 30


class Waiter:
    """Who waits for a lock, and since when; `told` is up to when the holders are blamed already."""

    __slots__ = ("function", "handoff", "since", "thread", "told", "tries", "woken", "write")

    def __init__(self, thread: Thread, write: bool, now: int, name: str) -> None:
        self.thread, self.write, self.since, self.told, self.function = thread, write, now, now, name
        self.woken = self.handoff = False
        self.tries = 0


Holder = tuple[Thread, str]


class Lock:
    """A lock that is held or waited for."""

    __slots__ = ("handoff", "nonspinnable", "owner", "queue", "readers", "spinners")

    def __init__(self) -> None:
        self.owner: Holder | None = None
        self.readers: dict[Thread, str] = {}
        self.queue: deque[Waiter] = deque()  # asleep, or (spinlock) spinning in order
        self.spinners: deque[Waiter] = deque()
        self.handoff = False
        self.nonspinnable = False


class Locks(Threads):
    """Threads that wait for locks; `name_of` gives a lock's class."""

    def __init__(self, *args: Any, name_of: Callable[[int], str]) -> None:
        super().__init__(*args)
        self.locks: dict[int, Lock] = {}
        self.waits = Waits()
        self.name_of = name_of
        self._transfer = self.profile.ps("transfer")
        self._handoff_after = self.profile.ps("handoff")

    def _at(self, address: int) -> Lock:
        found = self.locks.get(address)
        if found is None:
            found = self.locks[address] = Lock()
        return found

    # --- who waited for whom -----------------------------------------------------------------------------

    def _waiter(self, address: int, write: bool) -> Waiter:
        me = self.current
        me.waits_for, me.waits_in = address, function(3)
        return Waiter(me, write, self.clock[0], me.waits_in)

    def _blame(self, address: int, lock: Lock, holder: Holder) -> None:
        """All who wait have waited for this holder until now."""
        now = self.clock[0]
        for waiters in (lock.queue, lock.spinners):
            for w in waiters:
                if now > w.told:
                    self._tell(address, w, holder, now)

    def _tell(self, address: int, w: Waiter, holder: Holder | None, now: int) -> None:
        by = (holder[0].name, holder[1]) if holder else WAKEUP
        self._add_wait(w.thread, self.name_of(address), w.function, by, now - w.told)
        w.told = now

    def _add_wait(self, thread: Thread, lock: str, where: str, holder: tuple[str, str], time: int) -> None:
        thread.waited += time
        self.waits.add(lock, where, holder, time)

    def _got(self, address: int, w: Waiter) -> None:
        """The wait is over."""
        if self.clock[0] > w.told:
            self._tell(address, w, None, self.clock[0])
        w.thread.waits_for = 0

    # --- spinlocks ---------------------------------------------------------------------------------------

    def lock(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        me.atomic += 1
        if lock.owner is None:
            lock.owner = (me, function(2))
            return
        w = self._waiter(address, True)
        lock.queue.append(w)
        self.spin()
        self._got(address, w)

    def trylock(self, address: int) -> bool:
        self.sync()
        lock = self._at(address)
        if lock.owner is not None:
            return False
        self.current.atomic += 1
        lock.owner = (self.current, function(2))
        return True

    def unlock(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        me.atomic -= 1
        assert lock.owner is not None
        if not lock.queue:
            lock.owner = None
            del self.locks[address]
            return
        self._blame(address, lock, lock.owner)
        w = lock.queue.popleft()
        lock.owner = (w.thread, w.function)
        self.ready(w.thread, self.clock[0] + self._transfer)

    # --- rwsem -------------------------------------------------------------------------------------------

    def down_read(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        if lock.owner is None and not lock.handoff and not (lock.readers and lock.queue):
            lock.readers[me] = function(2)
            if lock.queue:
                self._mark_wake(lock, readers_only=True)
            return
        w = self._waiter(address, False)
        lock.queue.append(w)
        if lock.owner is None:
            self._mark_wake(lock, readers_only=True)
        while me not in lock.readers:
            self.block()
        self._got(address, w)

    def down_read_trylock(self, address: int) -> bool:
        self.sync()
        lock = self._at(address)
        if lock.owner is not None or lock.handoff:
            return False
        lock.readers[self.current] = function(2)
        return True

    def up_read(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        name = lock.readers.pop(me)
        if not lock.readers:
            lock.nonspinnable = False
            self._free(address, lock, (me, name))

    def down_write(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        if lock.owner is None and not lock.readers and not lock.queue:
            self._take(address, lock, function(2))
            return
        w = self._waiter(address, True)
        if not self._optimistic_spin(lock, w):
            lock.queue.append(w)
            if lock.queue[0] is not w and lock.owner is None:
                self._mark_wake(lock, readers_only=bool(lock.readers))
            while not self._try_write(lock, w):
                w.woken = False
                self.block()
            lock.queue.remove(w)
            lock.handoff = False
            self._take(address, lock, w.function)
        me.owns.add(address)
        self._got(address, w)

    def down_write_trylock(self, address: int) -> bool:
        self.sync()
        lock = self._at(address)
        if lock.owner is not None or lock.readers or lock.queue:
            return False
        self._take(address, lock, function(2))
        return True

    def up_write(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        assert lock.owner is not None
        holder, lock.owner = lock.owner, None
        me.owns.discard(address)
        self._free(address, lock, holder)

    def downgrade_write(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        assert lock.owner is not None
        holder, lock.owner = lock.owner, None
        me.owns.discard(address)
        lock.readers[me] = holder[1]
        self._blame(address, lock, holder)
        self._mark_wake(lock, readers_only=True)
        self._watch_readers(lock)

    def _take(self, address: int, lock: Lock, name: str) -> None:
        lock.owner = (self.current, name)
        self.current.owns.add(address)

    def _try_write(self, lock: Lock, w: Waiter) -> bool:
        """What a writer does that sleeps in the queue, before it sleeps and when woken."""
        if lock.handoff and not w.handoff:
            return False
        if lock.owner is None and not lock.readers:
            return True
        self._ask_handoff(lock, w)
        return False

    def _ask_handoff(self, lock: Lock, w: Waiter) -> None:
        """The first in the queue has waited too long: nobody may take the lock before it."""
        if lock.queue[0] is w and self.clock[0] - w.since > self._handoff_after:
            lock.handoff = w.handoff = True

    def _free(self, address: int, lock: Lock, holder: Holder) -> None:
        """Nobody holds it any more."""
        self._blame(address, lock, holder)
        if lock.spinners and not lock.handoff:
            w = lock.spinners.popleft()
            lock.owner = (w.thread, w.function)
            self.ready(w.thread, self.clock[0] + self._transfer)
            if lock.queue:
                self._ask_handoff(lock, lock.queue[0])
        elif lock.queue:
            self._mark_wake(lock, readers_only=False)
        elif not lock.readers:
            del self.locks[address]

    def _mark_wake(self, lock: Lock, readers_only: bool) -> None:
        """Wake who is first in the queue: a writer, to try; or all readers there, who have the lock from now on."""
        first = lock.queue[0] if lock.queue else None
        if first is None:
            return
        if first.write:
            if not readers_only and not first.woken:
                first.woken = True
                self.wake(first.thread, self.clock[0])
            return
        readers: list[Waiter] = []
        left: deque[Waiter] = deque()
        for w in lock.queue:
            (left if w.write or len(readers) == MAX_READERS_WAKEUP else readers).append(w)
        lock.queue = left
        lock.handoff = False
        for w in readers:
            lock.readers[w.thread] = w.function
            self.wake(w.thread, self.clock[0])
        self._watch_readers(lock)

    # --- optimistic spinning -----------------------------------------------------------------------------

    def _optimistic_spin(self, lock: Lock, w: Waiter) -> bool:
        """Spin while the owner runs; whether the lock was taken."""
        if self._runnable and self.clock[0] >= w.thread.slice_end:
            return False
        if lock.nonspinnable or (lock.owner and lock.owner[0].cpu is None):
            return False
        if lock.owner is None and not lock.readers:
            if lock.handoff:
                return False
            lock.owner = (w.thread, w.function)
            return True
        lock.spinners.append(w)
        if len(lock.spinners) == 1:
            self._watch_readers(lock)
        self.spin()
        return lock.owner is not None and lock.owner[0] is w.thread

    def _watch_readers(self, lock: Lock) -> None:
        """Who spins on readers gives up after a while."""
        if not lock.spinners or not lock.readers:
            return
        first = lock.spinners[0]
        limit = RSPIN_BASE + RSPIN_EACH * min(len(lock.readers), RSPIN_READERS)

        def give_up() -> None:
            if lock.spinners and lock.spinners[0] is first and lock.readers:
                lock.nonspinnable = True
                self._stop_spinning(lock)

        self.at(self.clock[0] + round(limit * 1e6), give_up)

    def _stop_spinning(self, lock: Lock) -> None:
        for w in lock.spinners:
            self.ready(w.thread, self.clock[0])
        lock.spinners.clear()

    def sleeps(self, thread: Thread) -> None:
        for address in thread.owns:
            lock = self.locks.get(address)
            if lock is not None and lock.spinners:
                self._stop_spinning(lock)

    # --- the lock bit of a folio --------------------------------------------------------------------------

    def mutex_lock(self, address: int) -> None:
        self.sync()
        lock, me = self._at(address), self.current
        if lock.owner is None:
            lock.owner = (me, function(2))
            return
        w = self._waiter(address, True)
        while lock.owner is None or lock.owner[0] is not me:
            if lock.owner is None:
                lock.owner = (me, w.function)
                break
            lock.queue.append(w)
            self.block()
            w.tries += 1
        self._got(address, w)

    def mutex_trylock(self, address: int) -> bool:
        self.sync()
        lock = self._at(address)
        if lock.owner is not None:
            return False
        lock.owner = (self.current, function(2))
        return True

    def mutex_unlock(self, address: int) -> None:
        self.sync()
        lock = self._at(address)
        assert lock.owner is not None
        if not lock.queue:
            lock.owner = None
            return
        self._blame(address, lock, lock.owner)
        w = lock.queue.popleft()
        lock.owner = (w.thread, w.function) if w.tries >= PAGE_LOCK_UNFAIRNESS else None
        self.wake(w.thread, self.clock[0])

    # --- who waits for whom ------------------------------------------------------------------------------

    def chain(self, thread: Thread) -> str:
        """Who waits for what, and for whom, from a thread on until it closes or ends."""
        told, seen = [], set()
        while True:
            if thread in seen:
                told.append(f"{thread.name}: a circle")
                break
            seen.add(thread)
            if not thread.waits_for:
                told.append(f"{thread.name} waits for no lock")
                break
            lock = self.locks.get(thread.waits_for)
            name = self.name_of(thread.waits_for)
            if lock is None or not (lock.owner or lock.readers):
                told.append(f"{thread.name} in {thread.waits_in} waits for {name}, which nobody holds")
                break
            holder, where = lock.owner or next(iter(lock.readers.items()))
            told.append(f"{thread.name} in {thread.waits_in} waits for {name}, held by {holder.name} in {where}")
            thread = holder
        return "; ".join(told)
