"""What keeps a zone's memory where it is: no other process reads it, no core file holds it, no swap takes it.

What it does not do: root reads all of it, through /proc/PID/mem or a module of the kernel, and a sleep to
disk (hibernation) writes locked pages too. A device has neither a swap nor such a sleep; the lock is for the
day that somebody adds one.
"""

import ctypes
import os
import resource
import sys
from pathlib import Path

from appliance.errors import DrempelError

_PR_SET_DUMPABLE = 4  # prctl(2)
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # mlockall(2); the same on x86-64 and arm64
_CAP_IPC_LOCK = 14  # capabilities(7)


ENVIRONMENT = {"LD_BIND_NOW": "1"}
"""What whoever starts a zone adds to its environment: in a unit, `Environment=LD_BIND_NOW=1`.

Where the dynamic linker finds a function at its first call, it saves the vector registers on the stack
(`_dl_runtime_resolve_xsavec` of glibc), and the last words of an AES key still stand in them: the forensic
test found the root key whole on the stack of a thread. Bound at the start, nothing is ever saved so.
"""


class NotHardened(DrempelError, OSError):
    """The kernel does not do what every Linux does: this is no place for secrets."""


def close_to_others() -> None:
    """Let no process of the same user trace this one or read its memory, and leave no core file.

    prctl(2), PR_SET_DUMPABLE 0: the entries below /proc/PID belong to root from here on. The limit on core
    files alone would not do: a core that is piped to a program (core_pattern) does not ask for it.

    Raises:
        NotHardened: the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise NotHardened(
            f"the kernel does not close this process to others: {os.strerror(ctypes.get_errno())}"
        )


def lock_memory() -> str | None:
    """Keep every page of this process out of swap, those it has and those it will touch.

    mlockall(2) with MCL_ONFAULT: a page is locked when it is first touched, so that what is reserved and
    never used (stacks of threads, arenas of malloc) costs nothing. A limit that is not infinite is not tried:
    the lock would hold, and some later allocation of this process would fail for it.

    Returns:
        None when it is locked; else why it is not, with what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard != soft:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
    if hard != resource.RLIM_INFINITY and not _may_lock_all():
        return f"memory is not locked: its limit is {hard // 1024} KiB; set LimitMEMLOCK=infinity in the unit"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return (
            f"memory is not locked: {os.strerror(ctypes.get_errno())}; set LimitMEMLOCK=infinity in the unit"
        )
    return None


def keep_secrets_in_place() -> None:
    """Lock the memory of vault; where a protection is missing, a line on standard error says so.

    The zone goes on: a vault that refused to start would send everybody to the badge, and gain nothing where
    there is no swap.
    """
    trouble = lock_memory()
    if trouble is not None:
        print(f"drempel vault: {trouble}", file=sys.stderr)
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()):
        print(
            "drempel vault: registers with parts of keys may be left on the stack; set "
            "Environment=LD_BIND_NOW=1 in the unit",
            file=sys.stderr,
        )


def _may_lock_all() -> bool:
    """Whether this process has CAP_IPC_LOCK, which no limit binds."""
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_IPC_LOCK & 1)
    return False
