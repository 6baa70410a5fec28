"""WATCH: who is marked by which change."""

from __future__ import annotations

import threading

from storage.watches import Watches


def test_only_who_watches_a_touched_key_is_marked() -> None:
    watches = Watches()
    both, one, other = watches.add([b"a", b"b"]), watches.add([b"a"]), watches.add([b"c"])
    watches.touch([b"b", b"unwatched"])
    assert (both.dirty, one.dirty, other.dirty) == (True, False, False)
    watches.touch([b"a"])
    assert (one.dirty, other.dirty) == (True, False)


def test_a_closed_watch_is_marked_no_more_and_its_neighbours_still_are() -> None:
    watches = Watches()
    closed, open_ = watches.add([b"a"]), watches.add([b"a", b"b"])
    closed.close()
    closed.close()
    watches.touch([b"a"])
    assert (closed.dirty, open_.dirty) == (False, True)


def test_the_spared_are_left_alone() -> None:
    watches = Watches()
    own, foreign = watches.add([b"a"]), watches.add([b"a"])
    watches.touch([b"a"], [own])
    assert (own.dirty, foreign.dirty) == (False, True)


def test_a_change_without_names_marks_everyone() -> None:
    watches = Watches()
    every = [watches.add([b"%d" % number]) for number in range(5)]
    watches.touch_all()
    assert all(watch.dirty for watch in every)
    assert not watches.add([b"0"]).dirty


def test_what_moved_is_asked_each_time() -> None:
    moved = False
    watch = Watches().add([b"a"], lambda: moved)
    assert not watch.dirty
    moved = True
    assert watch.dirty


def test_watching_and_touching_at_once_loses_no_mark() -> None:
    watches, stop = Watches(), threading.Event()
    keys = [b"%d" % number for number in range(50)]

    def come_and_go() -> None:
        while not stop.is_set():
            for watch in [watches.add([key]) for key in keys]:
                watch.close()

    threads = [threading.Thread(target=come_and_go) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            mine = watches.add(keys)
            watches.touch([keys[7]])
            assert mine.dirty
            mine.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    watches.touch_all()
