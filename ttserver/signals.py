"""Stop signals, waited for on a thread of their own.

A handler on the event loop would be deaf just when it is needed: while the loop, or the thread it
runs on, is stuck inside the library. This thread needs neither, and ends the process itself when
the orderly stop takes too long or when the operator asks a second time.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import structlog

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
# `timeout` and process supervisors signal a process and then its group: the same wish, twice.
SAME_WISH_S = 0.3
# What is lost by ending here: nothing. What was answered is in the log, the next start recovers.
EXIT_GIVEN_UP = 1

log = structlog.get_logger()


class StopSignals:
    """Calls back on the first stop signal and enforces the time the stop may take.

    The time runs to the very end of the process: its last threads are waited for after the last
    line of ours, and one of them may be the one that is stuck.

    Args:
        on_stop: called once with the signal's name; must only hand it on.
        timeout_s: from the first signal to the end of the process at the latest, seconds.

    *Thread:* `on_stop` runs on the thread of this object.
    """

    def __init__(self, on_stop: Callable[[str], None], *, timeout_s: float) -> None:
        self._on_stop = on_stop
        self._timeout_s = timeout_s
        self._thread = threading.Thread(target=self._wait, name="stop-signals", daemon=True)

    @staticmethod
    def block() -> None:
        """Keep the signals for `start`; before any other thread exists, so that all inherit it."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)

    def start(self) -> None:
        """Begin to wait."""
        self._thread.start()

    def _wait(self) -> None:
        first = signal.Signals(signal.sigwait(STOP_SIGNALS)).name
        asked = time.monotonic()
        deadline = asked + self._timeout_s
        self._on_stop(first)
        while True:
            second = signal.sigtimedwait(STOP_SIGNALS, max(0.0, deadline - time.monotonic()))
            if second is None or time.monotonic() - asked > SAME_WISH_S:
                break
        if second is not None:
            why = f"second signal ({signal.Signals(second.si_signo).name})"
        else:
            why = f"not closed {self._timeout_s:g} s after {first}"
        give_up(why, status=EXIT_GIVEN_UP)


def give_up(why: str, *, status: int) -> None:
    """End the process now, whatever its threads are doing.

    Returning from the main thread would wait for them, and closing the environment under a thread
    that is inside it crashes the process.
    """
    log.critical("stopped_without_closing", why=why, next_start="recovers")
    sys.stderr.flush()
    os._exit(status)
