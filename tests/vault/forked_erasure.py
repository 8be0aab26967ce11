"""Run as a script: erase one record, again and again from the same start, dying one step later each time.

A step is a call that changes a file of keys, or a statement of SQLite. Arguments: the folder of a vault, an
empty folder for the copies, the handle in hexadecimal, `erase`, `rotate`, or `start`: that is a start alone,
which finishes what an earlier death left. Copy N is what a death before
step N leaves; the last copy is the one that lived. Prints how many there are.
"""

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import appliance.vault.store
from appliance.database import open_database
from appliance.vault.erasing import erase, rotate
from appliance.vault.opening import open_vault

CALLS = ("open", "write", "fsync", "rename", "unlink")


def live_until(fatal: int, folder: Path, handle: bytes, act: str) -> None:
    """Erase, and die at step `fatal`."""
    steps = 0

    def step() -> None:
        nonlocal steps
        if steps == fatal:
            os._exit(9)
        steps += 1

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any, **named: Any) -> Any:
            step()
            return call(*arguments, **named)

        return counting

    def traced(*arguments: Any, **named: Any) -> sqlite3.Connection:
        database = open_database(*arguments, **named)
        database.set_trace_callback(lambda _: step())
        return database

    if act == "start":
        vars(appliance.vault.store)["open_database"] = traced
    else:
        store, epochs = open_vault(folder)
        store._db.set_trace_callback(lambda _: step())
    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    if act == "start":
        open_vault(folder)
    elif act == "erase":
        erase(epochs, store, [handle])
    else:
        rotate(epochs, store)
    os._exit(0)


def main() -> None:
    """See above."""
    start, copies, handle, act = Path(sys.argv[1]), Path(sys.argv[2]), bytes.fromhex(sys.argv[3]), sys.argv[4]
    number = 0
    while True:
        folder = copies / str(number)
        shutil.copytree(start, folder)
        child = os.fork()
        if child == 0:
            try:
                live_until(number, folder, handle, act)
            finally:
                os._exit(3)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 3:
            sys.exit(3)
        number += 1
        if status == 0:
            print(number)
            return


if __name__ == "__main__":
    main()
