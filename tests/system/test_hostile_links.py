"""Hostile bytes on every link, in both directions: the relay never moves, and a badge always opens.

Towards a zone that listens, the bytes go to the real processes of a simulated door. Towards a zone that
connects (door to vault, vault to lens, admin to both), a hostile listener answers the real client code, and
where that is door's, its real controller with a recorded relay.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import gpiozero
import pytest
from gpiozero.pins.mock import MockFactory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.admin.zones import DoorLink, VaultLink
from appliance.door.badges import Badges
from appliance.door.controller import Controller
from appliance.door.pins import Pins
from appliance.door.record import Record
from appliance.errors import DrempelError
from appliance.link.messages import (
    FROM_LENS,
    TO_LENS,
    Guidance,
    Guide,
)
from appliance.link.sockets import Deadline, listen
from appliance.packs.manifest import load_manifest
from appliance.settings import OsdpReader, Settings
from appliance.vault.attempt import Decider, verify
from appliance.vault.claims import Vaulted
from appliance.vault.epoch import Epochs
from appliance.vault.look import LensLook
from appliance.vault.store import Store
from tests.system.house import House

pytestmark = [pytest.mark.models, pytest.mark.timeout(900)]

TOWARDS_LISTENERS = 600
"""Cases towards each listening socket: there are six."""
TOWARDS_DOOR = 1200
TOWARDS_VAULT = 300
TOWARDS_ADMIN = 300

LISTENERS = ("vault/decision", "vault/guidance", "vault/admin", "lens/look", "door/admin", "admin/api")
cases: Counter[str] = Counter()

fuzz = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
    derandomize=True,
)

# A header of a known type with a wrong body hits deeper than noise does.
types = st.sampled_from([kind.TYPE for kind in (*TO_LENS, *FROM_LENS)] + list(range(0x60)))
framed = st.builds(
    lambda kind, length, body: bytes([kind]) + length.to_bytes(2) + body,
    types,
    st.one_of(st.integers(0, 70), st.integers(0, 65535)),
    st.binary(max_size=80),
)
hostile = st.one_of(st.binary(max_size=200), framed, st.lists(framed, max_size=4).map(b"".join))


@pytest.mark.parametrize("name", LISTENERS)
def test_hostile_bytes_towards_a_zone_that_listens(house: House, name: str) -> None:
    path = str(house.door.settings.socket(name))
    since = time.monotonic()
    pids = [house.door.pid(zone) for zone in ("door", "lens", "vault", "admin")]

    @settings(fuzz, max_examples=TOWARDS_LISTENERS)
    @given(data=hostile, half_close=st.booleans())
    def attack(data: bytes, half_close: bool) -> None:
        cases[name] += 1
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as attacker:
            attacker.settimeout(10)
            attacker.connect(path)
            with contextlib.suppress(OSError):
                attacker.sendall(data)
                if half_close:
                    attacker.shutdown(socket.SHUT_WR)
                    if name != "vault/guidance":
                        attacker.recv(16)

    attack()
    assert house.opened(since) == []
    badge_opens(house)
    assert [house.door.pid(zone) for zone in ("door", "lens", "vault", "admin")] == pids, "no zone fell"


def test_a_slow_drip_on_every_socket_keeps_no_badge_waiting(house: House) -> None:
    attackers = []
    for name in LISTENERS:
        attacker = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        attacker.settimeout(5)
        attacker.connect(str(house.door.settings.socket(name)))
        attackers.append(attacker)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.2):
            for attacker in attackers:
                with contextlib.suppress(OSError):
                    attacker.send(b"\x21")

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        for _ in range(3):
            badge_opens(house)
    finally:
        stop.set()
        dripping.join()
        for attacker in attackers:
            attacker.close()


def badge_opens(house: House) -> None:
    house.wait_locked()
    assert house.door.board.wait_for(house.relay, 1, 5, since=house.badge())
    house.wait_locked()


# --- towards the zones that connect ---------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="drempel-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class HostileListener:
    """Answers every caller with `answer`, and hangs up."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.answer = b""
        self._listener = listen(path, backlog=64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                caller.sendall(self.answer)
                caller.shutdown(socket.SHUT_WR)
                caller.settimeout(0.5)
                while caller.recv(4096):
                    pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def settings_in(folder: Path) -> Settings:
    return Settings.model_validate(
        {
            "paths": {"state": str(folder / "state"), "runtime": str(folder), "packs": str(folder)},
            "users": dict.fromkeys(("door", "lens", "vault", "admin"), ""),
            "badge_readers": [
                OsdpReader(name="outside", device=folder / "tty", key_file=folder / "key").model_dump()
            ],
            "recognition": {
                "enabled": True,
                "controller": "a test",
                "dpia": "none",
                "legal_ground": "consent",
                "acknowledge": ["edge"],
                "attempt_time": 2.5,
                "answer_time": 1.0,
            },
        }
    )


def test_a_hostile_vault_never_moves_the_relay(folder: Path) -> None:
    """The bytes of decision and guidance alike; only a lone 01 is left out, which is what a match is."""
    configuration = settings_in(folder)
    decision = HostileListener(configuration.socket("vault/decision"))
    guidance = HostileListener(configuration.socket("vault/guidance"))
    (folder / "state").mkdir()
    gpiozero.Device.pin_factory = MockFactory()
    badges = Badges(folder / "state")
    pins = Pins(configuration.door, on_press=lambda: None, on_release=lambda: None)
    loop = asyncio.new_event_loop()
    try:

        async def build() -> Controller:
            users = {os.geteuid()}
            return Controller(configuration, pins, badges, Record(None), (), users)

        controller = loop.run_until_complete(build())

        async def attempt() -> None:
            controller.press()
            task = controller._attempt
            assert task is not None
            await asyncio.wait_for(asyncio.shield(task), 5)

        @settings(fuzz, max_examples=TOWARDS_DOOR)
        @given(
            data=st.one_of(st.binary(max_size=8), hostile).filter(lambda data: data != b"\x01"),
            said=st.one_of(hostile, st.sampled_from(list(Guidance)).map(lambda g: Guide(g).encode())),
        )
        def attack(data: bytes, said: bytes) -> None:
            cases["decision and guidance, towards door"] += 2
            decision.answer, guidance.answer = data, said
            loop.run_until_complete(attempt())

        attack()
        relay = gpiozero.Device.pin_factory.pin(configuration.door.relay_pin)
        assert not any(state.state for state in relay.states), "never energised"
        decision.answer = b"\x01"
        loop.run_until_complete(attempt())
        assert relay.state, "and this test can tell when it is"
    finally:
        loop.close()
        pins.close()
        badges.close()
        decision.close()
        guidance.close()
        gpiozero.Device.pin_factory.reset()
        gpiozero.Device.pin_factory = None


def test_a_hostile_lens_never_makes_a_match(folder: Path) -> None:
    manifest = load_manifest("edge")
    store = Store(folder / "vault.db")
    epochs = Epochs.open(folder, bytearray(32), store)
    site = settings_in(folder)
    vaulted = Vaulted.of(store, epochs, manifest, site)
    decider = Decider(manifest.mean, manifest.threshold(1e-4, 3))
    configuration = site.recognition
    lens = HostileListener(folder / "lens.sock")
    door, far = socket.socketpair()
    users = {os.geteuid()}
    matched = []

    @settings(fuzz, max_examples=TOWARDS_VAULT)
    @given(data=hostile, opened=st.booleans())
    def attack(data: bytes, opened: bool) -> None:
        cases["look, towards vault"] += 1
        lens.answer = (b"\x11\x00\x00" if opened else b"") + data
        whole = Deadline(configuration.attempt_time)
        try:
            with LensLook(folder / "lens.sock", users, door, whole) as look:
                matched.append(verify(look, vaulted, decider, configuration, lambda _: None, whole))
        except DrempelError:
            matched.append(None)

    attack()
    assert set(matched) == {None}
    assert store.records_read == 0
    store.close()
    lens.close()
    door.close()
    far.close()


@pytest.mark.parametrize("which", ["vault", "door"])
def test_a_hostile_vault_or_door_gives_admin_an_error_and_no_more(folder: Path, which: str) -> None:
    listener = HostileListener(folder / "zone.sock")
    users = {os.geteuid()}
    vault, door = VaultLink(folder / "zone.sock", users), DoorLink(folder / "zone.sock", users)
    asks: list[Callable[[], object]] = (
        [vault.state, lambda: vault.erase(bytes(16)), lambda: vault.vouch(bytes(16), 60)]
        if which == "vault"
        else [door.state, lambda: door.add_badge(bytes(16), 26, 1), lambda: door.remove_badge(bytes(16))]
    )

    @settings(fuzz, max_examples=TOWARDS_ADMIN)
    @given(data=hostile, ask=st.sampled_from(asks))
    def attack(data: bytes, ask: Callable[[], object]) -> None:
        cases[f"admin link, towards admin, from {which}"] += 1
        listener.answer = data
        with contextlib.suppress(DrempelError):
            ask()

    attack()
    listener.close()


def test_there_were_at_least_five_thousand_cases() -> None:
    """By the numbers that the tests above ask for, and by what was counted where all of them ran."""
    asked = TOWARDS_LISTENERS * len(LISTENERS) + 2 * TOWARDS_DOOR + TOWARDS_VAULT + 2 * TOWARDS_ADMIN
    print(asked, dict(cases))
    assert asked >= 5000
    if len(cases) == len(LISTENERS) + 4:
        assert sum(cases.values()) >= asked
