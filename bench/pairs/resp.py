"""Pairs that speak RESP: filled, loaded and checked in the same way."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from bench.pairs.base import (
    LOOK_S,
    PIPELINE,
    VALUE_BYTES,
    Load,
    Measured,
    Pair,
    PairError,
    Work,
)
from bench.trio import RespConnection
from ttserver.address import Address

SOURCE = Path(__file__).parents[1] / "resp_load.c"
FILL_KEYS = 500  # of one MSET
LOST_AFTER_S = 10.0  # an acknowledged write is applied sooner
LOAD_SPARE_S = 60.0  # for connecting, and for the last replies
KINDS: dict[Work, str] = {
    "set-acked": "set-wait",
    "set": "set",
    "get": "get",
    "get-pipelined": "get",
}


def compile_load(directory: Path) -> Path:
    """Compile `resp_load.c`.

    Raises:
        PairError: there is no C compiler, or it failed.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise PairError("no C compiler (cc) for the load generator: install gcc")
    made = directory / "resp_load"
    command = [compiler, "-O2", "-o", str(made), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PairError(f"{SOURCE.name} was not compiled: {done.stderr.strip()}")
    return made


class RespPair(Pair):
    """A pair whose servers speak RESP."""

    def address(self, work: Work) -> Address:
        """Where a work's commands go."""
        raise NotImplementedError

    def connect(self, address: Address) -> RespConnection:
        """Log on."""
        raise NotImplementedError

    def kind(self, work: Work) -> str:
        """Name a work as `resp_load` does."""
        return KINDS[work]

    def setup(self, work: Work) -> list[str]:
        """Give the inline commands that a connection begins with."""
        raise NotImplementedError

    def can(self, work: Work) -> bool:  # noqa: ARG002
        return True

    def fill(self) -> None:
        """Write all keys."""
        connection = self.connect(self.address("set"))
        value = b"." * VALUE_BYTES
        for start in range(0, self.setting.keys, FILL_KEYS):
            numbers = range(start, min(start + FILL_KEYS, self.setting.keys))
            words = [word for number in numbers for word in (b"key:%012d" % number, value)]
            answer = connection.ask(b"MSET", *words)
            if answer != b"OK":
                raise PairError(f"{self.name} did not take the keys: {answer!r}")
        connection.close()

    def run(self, load: Load) -> Measured:
        pipeline = PIPELINE if load.work == "get-pipelined" else 1
        words = (
            *(self.setting.load, self.address(load.work).port, self.kind(load.work)),
            *(load.connections, pipeline, self.setting.keys, VALUE_BYTES),
            *(load.warmup_s, load.seconds, load.seed, *self.setup(load.work)),
        )
        try:
            done = subprocess.run(
                [str(word) for word in words],
                capture_output=True,
                text=True,
                check=False,
                timeout=load.warmup_s + load.seconds + LOAD_SPARE_S,
            )
        except subprocess.TimeoutExpired as error:
            raise PairError(f"{self.name}: the load did not end") from error
        if done.returncode != 0:
            raise PairError(f"{self.name}: {done.stderr.strip()}")
        return msgspec.json.decode(done.stdout, type=Measured)

    def lost(self, measured: Measured) -> int:
        end_s = time.monotonic() + LOST_AFTER_S
        connection = self.connect(self.address("get"))
        lost = 0
        for key, beginning in measured.last:
            while not _begins(connection.ask(b"GET", key.encode()), beginning):
                if time.monotonic() > end_s:
                    lost += 1
                    break
                time.sleep(LOOK_S)
        connection.close()
        return lost

    def idle(self, work: Work) -> Callable[[], None]:
        return self.connect(self.address(work)).close


def _begins(value: object, beginning: str) -> bool:
    return isinstance(value, bytes) and value.startswith(beginning.encode())
