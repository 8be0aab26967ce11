"""Search for secrets in raw bytes: of files, of all that a process writes, and of the memory of a process.

Partial remnants are found as well: a run of `Needle.least` bytes of a secret, at any address, is a remnant.
"""

import contextlib
import ctypes
import os
import platform
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

WORD = 8
"""Bytes by which a run is first found; nothing shorter is a remnant, and a secret has at least as many."""
PAGE = 4096
"""Bytes that the size of every mapping is a multiple of."""
_ATTACH, _DETACH, _GETREGSET = 16, 17, 0x4204  # ptrace(2)
_XSTATE, _FPREG = 0x202, 2  # NT_X86_XSTATE and NT_PRFPREG of elf.h
_WALL = 0x40000000  # waitpid(2)
LONGEST_WRITE = 1 << 22


@dataclass(frozen=True, repr=False)
class Needle:
    """A secret: what it is, its bytes, the shortest run of them that counts, and the step between runs."""

    name: str
    data: bytes
    least: int = WORD
    step: int = 1


@dataclass(frozen=True, order=True)
class Hit:
    """A run of bytes of a secret: where it stands, which secret, from which of its bytes, and how many."""

    at: int
    name: str
    offset: int
    length: int


class Haystack:
    """Searches for many needles at once."""

    def __init__(self, needles: Iterable[Needle]) -> None:
        """Prepare; a word of few different bytes (zeros, say) is no sign of a secret."""
        self._words: dict[int, list[tuple[Needle, int]]] = {}
        for needle in needles:
            assert len(needle.data) >= WORD, "too short to be told from chance"
            for offset in range(0, len(needle.data) - WORD + 1, needle.step):
                word = needle.data[offset : offset + WORD]
                if len(set(word)) > 3:
                    self._words.setdefault(int.from_bytes(word, "little"), []).append((needle, offset))
        keys = np.array(sorted(self._words), np.uint64)
        self._table = np.zeros(1 << 20, bool)
        self._table[_slot(keys)] = True
        self._keys = keys

    def find(self, data: bytes, base: int = 0) -> list[Hit]:
        """The remnants in `data`, whose first byte has the address `base`."""
        hits: set[Hit] = set()
        looked_at: dict[tuple[str, int], list[range]] = {}
        whole = np.frombuffer(data, np.uint8)
        for shift in range(WORD):
            count = (len(data) - shift) // WORD
            if count <= 0:
                break
            words = whole[shift : shift + count * WORD].view(np.uint64)
            candidates = np.flatnonzero(self._table[_slot(words)])
            nearest = np.searchsorted(self._keys, words[candidates]).clip(max=len(self._keys) - 1)
            candidates = candidates[self._keys[nearest] == words[candidates]]
            for index in candidates:
                at = shift + int(index) * WORD
                for needle, offset in self._words[int(words[index])]:
                    runs = looked_at.setdefault((needle.name, at - offset), [])
                    if any(at in run for run in runs):
                        continue
                    start, begin, end = _run(data, at, needle.data, offset)
                    runs.append(range(start, start + end - begin))
                    if end - begin >= min(needle.least, len(needle.data)):
                        hits.add(Hit(base + start, needle.name, begin, end - begin))
        return sorted(hits)


def _slot(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        return (words * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(44)


def _run(data: bytes, at: int, secret: bytes, offset: int) -> tuple[int, int, int]:
    """The longest run around a word: where it begins in `data`, and from where to where in the secret."""
    begin, end = offset, offset + WORD
    while begin > 0 and at > offset - begin and data[at - (offset - begin) - 1] == secret[begin - 1]:
        begin -= 1
    while end < len(secret) and at + end - offset < len(data) and data[at + end - offset] == secret[end]:
        end += 1
    return at - (offset - begin), begin, end


def memory(pid: int) -> Iterator[tuple[int, bytes]]:
    """What a process may have written to its memory, region by region, the process standing still meanwhile.

    Left out: what is mapped from a file and cannot be written, which is code.
    """
    os.kill(pid, signal.SIGSTOP)
    try:
        _wait_until_still(pid)
        regions = Path(f"/proc/{pid}/maps").read_text().splitlines()
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as source:
            for region in regions:
                found = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)", region)
                assert found is not None
                begin, end = int(found[1], 16), int(found[2], 16)
                if "r" not in found[3] or ("w" not in found[3] and found[4] != "0") or "[v" in region:
                    continue
                source.seek(begin)
                yield from _touched(begin, source.read(end - begin))
    finally:
        os.kill(pid, signal.SIGCONT)


def _wait_until_still(pid: int) -> None:
    """Until every thread has stopped: the signal is on its way, and a thread that ends unmaps its stack."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            states = {
                (task / "stat").read_text().rpartition(")")[2].split()[0]
                for task in Path(f"/proc/{pid}/task").iterdir()
            }
        except FileNotFoundError:
            # A thread that ended in between.
            continue
        if states <= set("TtZX"):
            return
        time.sleep(0.005)
    pytest.fail("the process does not stand still")


def _touched(base: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of a region that are not zero, page after page taken together: most of a stack is."""
    used = np.frombuffer(data, np.uint64).reshape(-1, PAGE // WORD).any(axis=1)
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False)) * PAGE
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        yield base + int(begin), data[begin:end]


def search_memory(pid: int, haystack: Haystack) -> list[Hit]:
    """The remnants in the memory of a process."""
    regions = list(memory(pid))
    assert sum(len(data) for _, data in regions) > 1 << 20, "this was no process's memory"
    return [hit for base, data in regions for hit in haystack.find(data, base)]


def search_registers(pid: int, haystack: Haystack) -> list[Hit]:
    """The remnants in the vector registers of all threads of a process, which nobody else traces."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            with _attached(int(task.name)) as thread:
                found += haystack.find(_vector_registers(thread))
        except ProcessLookupError:
            continue  # this thread has ended, and its registers with it
    return found


@contextlib.contextmanager
def _attached(thread: int) -> Iterator[int]:
    _ptrace(_ATTACH, thread)
    os.waitpid(thread, _WALL)
    try:
        yield thread
    finally:
        _ptrace(_DETACH, thread)


def _vector_registers(thread: int) -> bytes:
    """As the kernel saves them: every state component on x86-64, the vector registers on arm64."""
    buffer = ctypes.create_string_buffer(1 << 16)
    into = _IoVec(ctypes.addressof(buffer), len(buffer))
    _ptrace(_GETREGSET, thread, _XSTATE if platform.machine() == "x86_64" else _FPREG, ctypes.addressof(into))
    assert into.length > 256, "these are no vector registers"
    return buffer.raw[: into.length]


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = (
        ctypes.c_long(request),
        ctypes.c_long(thread),
        ctypes.c_void_p(address),
        ctypes.c_void_p(data),
    )
    if libc.ptrace(*arguments) == -1:
        raise OSError(ctypes.get_errno(), "ptrace")


@dataclass
class Writes:
    """What was written, by the path of the file; also where the file is gone, or was overwritten since."""

    by_path: dict[str, bytearray] = field(default_factory=dict)


@contextlib.contextmanager
def all_writes(pid: int, record: Path) -> Iterator[Writes]:
    """Every byte that a process and its threads write to any file meanwhile, seen by the kernel (strace)."""
    calls = "write,pwrite64,writev,pwritev,pwritev2,sendfile,splice,copy_file_range,vmsplice"
    command = ["strace", "-f", "-y", "-xx", "-s", str(LONGEST_WRITE), "-e", f"trace={calls}"]
    tracer = subprocess.Popen(
        [*command, "-e", "signal=none", "-o", str(record), "-p", str(pid)], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline()
    assert "attached" in said, said
    # It tells of every thread, and Argon2 begins many: an answer that nobody reads would stop it, and vault.
    reader = threading.Thread(target=tracer.stderr.read)
    reader.start()
    writes = Writes()
    try:
        yield writes
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(timeout=20)
        reader.join()
        tracer.stderr.close()
        for line in record.read_text("ascii").splitlines():
            _take(line, writes)


def _take(line: str, writes: Writes) -> None:
    called = re.match(r"\d+ +(\w+)\(\d+<((?:\\x[0-9a-f]{2}|[^>])*)>, (.*)", line)
    if called is None:
        # The end of a call that another thread's interrupted; its bytes stood in its beginning.
        assert "resumed>" in line or "+++" in line or "---" in line, line[:80]
        return
    call, path, rest = called.groups()
    assert call in {"write", "pwrite64"}, f"a way of writing that is not searched: {call}"
    data = re.match(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?', rest)
    assert data is not None, rest[:40]
    assert data[2] is None, "a longer write than was expected"
    path = bytes.fromhex(path.replace("\\x", "")).decode() if path.startswith("\\x") else path
    if path.startswith("/") and not path.startswith("/dev/"):
        # Apart from each other: two writes are no run.
        writes.by_path.setdefault(path, bytearray()).extend(
            bytes.fromhex(data[1].replace("\\x", "")) + bytes(8)
        )
