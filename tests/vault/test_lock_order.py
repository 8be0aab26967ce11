"""Every act of vault at once, from many threads: none waits for another for good, and none undoes another.

Each lock writes down which others its thread held when it was taken. If that has a circle, two threads can
stop each other for good, even where it did not happen in this run.
"""

import random
import secrets
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from appliance.journal import Journal
from appliance.link.claims import of_card
from appliance.link.framing import Message
from appliance.link.messages import (
    AskCheck,
    AskVault,
    Checked,
    Done,
    Erase,
    Lease,
    OpenEnrolment,
    Refusal,
    Refused,
    RotateEpoch,
    SetRights,
)
from appliance.link.sockets import Deadline
from appliance.rights import Rights
from appliance.vault.claims import Vaulted, read_credential
from appliance.vault.commands import Commands
from appliance.vault.enrolment import Window, Windows
from appliance.vault.expiry import due_for_erasure
from appliance.vault.token import Token
from tests.vault.faces import RECOGNITION, again, face, opens, vault_in

ALWAYS = Rights(None, None, ()).encode()
PEOPLE = 12


class Watched:
    """A lock that writes down which others its thread held when it was taken."""

    held = threading.local()

    def __init__(self, name: str, lock: Any, edges: set[tuple[str, str]]) -> None:
        self._name = name
        self._lock = lock
        self._edges = edges

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        mine = self.held.__dict__.setdefault("names", [])
        if self._name not in mine:
            self._edges.update((name, self._name) for name in mine)
        taken: bool = self._lock.acquire(blocking, timeout)
        if taken:
            mine.append(self._name)
        return taken

    def release(self) -> None:
        mine = self.held.names
        del mine[len(mine) - 1 - mine[::-1].index(self._name)]
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_error: object) -> None:
        self.release()


def circle_in(edges: set[tuple[str, str]]) -> list[str]:
    """The names on a circle; empty where there is none."""

    def follow(path: list[str]) -> list[str]:
        for before, after in sorted(edges):
            if before == path[-1]:
                if after in path:
                    return [*path[path.index(after) :], after]
                if found := follow([*path, after]):
                    return found
        return []

    for start in sorted({before for before, _ in edges}):
        if found := follow([start]):
            return found
    return []


class Busy:
    """A vault, everyone in it, and all that may be asked of it, without a lens."""

    def __init__(self, vaulted: Vaulted, folder: Path) -> None:
        self.vaulted = vaulted
        self.windows = Windows()
        self.journal = Journal(folder / "journal.jsonl", sync=False)
        self.over = threading.Event()
        self.commands = Commands(
            vaulted, self.windows, RECOGNITION, bytes(16), self.journal, lambda: None, self.over.set
        )
        self.tokens: dict[bytes, Token] = {}
        self.edges: set[tuple[str, str]] = set()
        for name, owner, attribute in (
            ("leases", vaulted.leases, "_lock"),
            ("epoch", vaulted.epochs, "lock"),
            ("limits", vaulted.limits, "_lock"),
            ("clock", vaulted.clock, "_lock"),
            ("store", vaulted.store, "_lock"),
            ("sound", vaulted.store._soundness, "_looking"),
            ("window", self.windows, "_lock"),
        ):
            setattr(owner, attribute, Watched(name, getattr(owner, attribute), self.edges))

    def ask(self, command: Message) -> Message | None:
        with socket.socket() as nobody:
            return self.commands._answer(nobody, command)

    def enrol(self) -> None:
        handle = secrets.token_bytes(16)
        window = Window(OpenEnrolment(handle, b"c" * 16, 3600, 1, 60), Deadline(60), lambda _: None)
        assert self.windows.open(window)
        window.captures.append(face(1))
        assert self.windows.complete(window, self.vaulted)
        self.windows.close(window)
        assert window.token is not None
        assert self.ask(Lease(handle, 3600)) == Done()
        self.tokens[handle] = window.token

    def somebody(self) -> Token | None:
        return next(iter(random.sample(list(self.tokens.values()), 1)), None) if self.tokens else None

    def attempt(self) -> None:
        token = self.somebody()
        claimed = self.vaulted.open(again(token)) if token else None
        if claimed is not None:
            claimed.forget()
            with self.vaulted.leases.while_current(claimed.handle):
                pass
            (self.vaulted.limits.refund if random.random() < 0.5 else self.vaulted.limits.succeeded)(
                claimed.handle
            )

    def strange_attempt(self) -> None:
        card = read_credential(of_card(96, secrets.randbits(96)), self.vaulted.epochs.index_key)
        assert self.vaulted.open(card) is None

    def come_and_go(self) -> None:
        self.enrol()
        if len(self.tokens) > PEOPLE:
            handle = next(iter(self.tokens))
            token = self.tokens.pop(handle)
            assert self.ask(Erase(handle)) == Done()
            assert not opens_at_all(self.vaulted, token), "an erased record opened"

    def check(self) -> None:
        found = self.ask(AskCheck())
        assert isinstance(found, Checked)
        assert (found.unreadable, found.sound) == (0, 1)

    def rotate(self) -> None:
        assert self.ask(RotateEpoch()) == Done()

    def vouch(self) -> None:
        self._of_somebody(lambda handle: Lease(handle, 3600))
        self._of_somebody(lambda handle: SetRights(handle, ALWAYS))
        self.ask(AskVault())

    def _of_somebody(self, command: Callable[[bytes], Message]) -> None:
        token = self.somebody()
        if token is not None:
            assert self.ask(command(token.handle)) in (Done(), Refused(Refusal.UNKNOWN_HANDLE))

    def keep_house(self) -> None:
        self.vaulted.clock.moment()
        over = due_for_erasure(self.vaulted.store, self.vaulted.clock)
        self.commands.erase(*over)
        self.vaulted.clock.keep()


def opens_at_all(vaulted: Vaulted, token: Token) -> bool:
    """Looked at beside `limits`, which are one attempt's at a time."""
    record, opened = vaulted._open(again(token), bytearray(token.secret))
    if opened is not None:
        opened.forget()
    return record is not None


@contextmanager
def busy_vault(folder: Path) -> Iterator[Busy]:
    with vault_in(folder) as vaulted:
        busy = Busy(vaulted, folder)
        for _ in range(PEOPLE):
            busy.enrol()
        yield busy
        busy.journal.close()


@pytest.mark.parametrize(
    "seconds", [pytest.param(2, id="quick"), pytest.param(20, id="full", marks=pytest.mark.full)]
)
def test_no_two_acts_of_vault_stop_each_other(tmp_path: Path, seconds: float) -> None:
    with busy_vault(tmp_path) as busy:
        done: dict[str, int] = {}
        failures: list[str] = []
        stop = threading.Event()

        def keep_at(name: str, act: Callable[[], None]) -> None:
            while not stop.is_set():
                try:
                    act()
                    done[name] = done.get(name, 0) + 1
                except BaseException:  # noqa: BLE001 - the test reports it
                    failures.append(f"{name}: {traceback.format_exc()}")
                    return

        # Attempts are one thread's, as in the service: the limits know of one at a time.
        acts: dict[str, list[Callable[[], None]]] = {
            "attempts": [busy.attempt, busy.strange_attempt],
            "people": [busy.come_and_go],
            "checks": [busy.check],
            "more checks": [busy.check],
            "rotations": [busy.rotate],
            "vouching": [busy.vouch],
            "more vouching": [busy.vouch],
            "upkeep": [busy.keep_house],
        }
        threads = [
            threading.Thread(
                target=keep_at, args=(name, lambda turns=turns: [act() for act in turns]), daemon=True
            )
            for name, turns in acts.items()
        ]
        for thread in threads:
            thread.start()
        stop.wait(seconds)
        stop.set()
        for thread in threads:
            thread.join(20)
        stuck = {thread.ident for thread in threads if thread.is_alive()}
        where = [
            "".join(traceback.format_stack(frame))
            for ident, frame in sys._current_frames().items()
            if ident in stuck
        ]
        assert not where, "threads that wait for each other:\n" + "\n".join(where)
        assert not failures, failures[0]
        assert set(done) == set(acts), f"nothing was done of {set(acts) - set(done)}"
        print(f"{seconds} s: {done}; order of locks: {sorted(busy.edges)}")
        assert circle_in(busy.edges) == []
        assert all(opens(busy.vaulted, token) for token in busy.tokens.values())
        assert busy.vaulted.store.count() == len(busy.tokens)
        busy.check()
        busy.commands.decommission()
        assert busy.over.is_set()
        assert circle_in(busy.edges) == []


def test_a_circle_is_found() -> None:
    edges: set[tuple[str, str]] = set()
    one, other, third = (Watched(name, threading.RLock(), edges) for name in ("one", "other", "third"))
    with one, one, other:
        pass
    with other, third, other:
        pass
    assert circle_in(edges) == []
    with third, one:
        pass
    assert circle_in(edges) == ["one", "other", "third", "one"]
