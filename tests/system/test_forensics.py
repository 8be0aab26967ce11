"""What a thief finds in the raw bytes of vault's files and memory: nothing (`pytest -s` prints what it is).

The secrets are known to the test: from the token, from what vault holds before the erasure, and from a tap on
the socket on which embeddings come. Every file is searched, with all that was ever written to it, and the
memory of the process that lives on. What CPython does not promise, that a freed object is overwritten, is
measured: remnants are counted after one, ten and a hundred further attempts.
"""

import base64
import contextlib
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from appliance.link.messages import ClaimKind, Erase, Probe
from appliance.process import Zone
from appliance.qr import png
from appliance.simulation.door import Shown as Picture
from appliance.vault.comparison import make_template, read_embedding
from appliance.vault.credentials import of_card, of_number
from appliance.vault.rotation import Rotation
from appliance.vault.token import Token
from tests.looking import only_root_looks_in
from tests.system.bare_zones import BareZones, bare_zones, before_the_lens
from tests.system.house import House, eventually, open_house
from tests.system.known_secrets import (
    HELD,
    INDEX,
    WINDOW,
    E,
    Keys,
    Shown,
    W,
    embedding,
    keys,
    spelled,
    template,
)
from tests.system.raw_search import (
    Haystack,
    Hit,
    Needle,
    Writes,
    all_writes,
    search_memory,
    search_registers,
)
from tests.system.tap import Tap
from tests.vault.faces import EDGE, seen

pytestmark = [pytest.mark.root, only_root_looks_in, pytest.mark.timeout(240)]

HOLDER = """
import sys
import numpy as np
held = bytearray.fromhex(sys.argv[1])
for buffer in [bytearray(held) for _ in range(3)]:
    buffer[:40] = bytes(40)
print("held", flush=True)
input()
"""


@dataclass
class Report:
    """What was found, and when; printed at the end."""

    lines: list[str]

    def note(self, when: str, hits: Iterable[Hit]) -> list[Hit]:
        hits = list(hits)
        counted = Counter((hit.name, hit.length) for hit in hits)
        found = ", ".join(
            f"{name}: {count} of {size} bytes" for (name, size), count in sorted(counted.items())
        )
        self.lines.append(f"{when:<34}{found or 'nothing'}")
        return hits


@pytest.fixture
def report() -> Iterator[Report]:
    report = Report([])
    yield report
    print("\n" + "\n".join(report.lines))


def search_files(folder: Path, haystack: Haystack) -> list[Hit]:
    return [
        hit
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for hit in haystack.find(path.read_bytes())
    ]


def search_writes(writes: Writes, haystack: Haystack) -> list[Hit]:
    return [hit for written in writes.by_path.values() for hit in haystack.find(bytes(written))]


def beyond(hits: Iterable[Hit], held: Collection[str]) -> list[Hit]:
    """Without the keys that vault holds as it must, whole."""
    return [hit for hit in hits if not (hit.name in held and hit.length == 32)]


# That the search can find anything at all.


def test_a_run_of_a_secret_is_found_at_any_address_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    secret, key = rng.bytes(2048), rng.bytes(32)
    haystack = Haystack([Needle("long", secret, 32, 4), Needle("key", key)])
    noise = rng.bytes(1 << 16)
    assert haystack.find(noise) == []
    for at in (0, 1, 13, 4096 - 5, len(noise)):
        assert haystack.find(noise[:at] + secret + noise[at:]) == [Hit(at, "long", 0, 2048)]
        partial = noise[:at] + secret[101 : 101 + 39] + noise[at:]
        assert haystack.find(partial) == [Hit(at, "long", 101, 39)], "32 bytes from any coordinate on"
        assert haystack.find(noise[:at] + secret[100:131] + noise[at:]) == [], "31 are not enough"
        assert haystack.find(noise[:at] + key[24:] + noise[at:], 1000) == [Hit(1000 + at, "key", 24, 8)]


def test_a_secret_is_found_in_the_text_of_a_log() -> None:
    rng = np.random.default_rng(2)
    key = rng.bytes(32)
    haystack = Haystack(spelled([Needle("key", key)]))
    for text in (
        key.hex(),
        key.hex().upper(),
        *(base64.b64encode(b"x" * n + key).decode() for n in range(3)),
    ):
        assert haystack.find(f"a line with {text} in it".encode()), text


def test_what_a_process_still_holds_is_found_in_its_memory() -> None:
    secret = np.random.default_rng(3).bytes(2048)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, secret.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        hits = search_memory(process.pid, Haystack(spelled([Needle("held", secret, 32, 4)])))
        process.kill()
    assert ("held", 0, 2048) in {(hit.name, hit.offset, hit.length) for hit in hits}
    assert any(hit.offset >= 40 for hit in hits if hit.name == "held"), "freed, and overwritten in part alone"
    assert any(hit.name == "held, hexadecimal" for hit in hits), "its own command line"


def test_what_was_written_to_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    script = f"input(); p = {str(tmp_path / 'gone')!r}; f = open(p, 'wb', buffering=0)\n"
    script += "f.write(bytes(range(99))); "
    script += "f.seek(0); f.write(bytes(99)); import os; os.unlink(p); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with all_writes(process.pid, tmp_path / "strace") as writes:
            process.stdin.write(b"\n")
            assert process.stdout.readline()
        process.kill()
    assert bytes(range(99)) in writes.by_path[str(tmp_path / "gone")]


# The vault process alone, quickly, with faces that the test makes up.


@dataclass(frozen=True)
class Way:
    """A way to claim: its settings, the claims of two people, and one that is nearly the first's.

    answer_time: seconds, of which a brake takes its part on a busy machine.
    """

    kind: ClaimKind
    recognition: str
    first: bytes = b""
    wrong: bytes = b""
    other: bytes = b""
    answer_time: float = 1.0

    def zones(self, state: Path) -> contextlib.AbstractContextManager[BareZones]:
        """A vault that takes such claims."""
        return bare_zones(state, "vault", recognition=self.recognition, answer_time=self.answer_time)

    def enrol(self, zones: BareZones, face: int, claim: bytes) -> Shown:
        """Somebody with this face; what they present."""
        _, token = zones.enrol_at_vault(seen(face, 1), seen(face, 2), kind=self.kind, claim=claim)
        return Shown(self.kind, token or claim)

    def attempt(self, zones: BareZones, shown: bytes, *faces: bytes) -> bool:
        """Whether it opens."""
        if self.kind is ClaimKind.TOKEN:
            return zones.attempt(shown, *faces)
        return zones.attempt(b"", *faces, claim=shown)

    def wrong_for(self, shown: Shown) -> bytes:
        """What differs from what a person presents in one bit or digit of the secret."""
        return self.wrong or wrong_secret(shown.data)


def card(number: int) -> bytes:
    return bytes(of_card(128, int.from_bytes(np.random.default_rng(number).bytes(16))))


def number_and_pin(number: str, pin: str) -> bytes:
    return bytes(of_number(number, pin))


NUMBER = 'tier = 3\njustification = "a test"\nclaims = ["number"]\n'
WAYS = {
    "token, tier 2": Way(ClaimKind.TOKEN, ""),
    "token, tier 1": Way(ClaimKind.TOKEN, "tier = 1\n"),
    "card": Way(ClaimKind.CARD, 'claims = ["token", "card"]\n', card(1), card(2), card(3)),
    "number and PIN": Way(
        ClaimKind.NUMBER,
        NUMBER,
        number_and_pin("7308152946", "926174083571"),
        number_and_pin("7308152946", "926174083575"),
        number_and_pin("5184027369", "384059172604"),
        answer_time=2.5,
    ),
}
each_way = pytest.mark.parametrize("way", [pytest.param(way, id=name) for name, way in WAYS.items()])
"""A PIN of 12 digits, the longest, so that 8 of them in a row are no chance."""


@pytest.mark.parametrize(
    "further",
    [pytest.param((1, 10), id="quick"), pytest.param((1, 10, 100), id="full", marks=pytest.mark.full)],
)
@each_way
def test_vault_keeps_nothing_of_an_attempt(
    tmp_path: Path, report: Report, way: Way, further: tuple[int, ...]
) -> None:
    captures, probe, stranger = [seen(1, 1), seen(1, 2)], seen(1, 3), seen(5, 1)
    with way.zones(tmp_path / "state") as zones:
        state, pid = zones.settings.zone_state("vault"), zones.pid("vault")
        with all_writes(pid, tmp_path / "strace") as writes:
            shown = way.enrol(zones, 1, way.first)
            known = keys(state, shown)
            ended = next(state.glob("epoch-*.key")).read_bytes()
            wrong = Shown(way.kind, way.wrong_for(shown))
            presented = [*shown.needles(), *(needle for needle in wrong.needles() if needle.name != "number")]
            haystack = _everything(known, presented, captures, [probe, stranger])
            found = report.note("after the enrolment", search_memory(pid, haystack))
            assert way.attempt(zones, shown.data, probe)
            found += report.note("after a match", search_memory(pid, haystack))
            assert not way.attempt(zones, shown.data, stranger, stranger, stranger)
            found += report.note("after another's face", search_memory(pid, haystack))
            assert not way.attempt(zones, wrong.data)
            found += report.note("after a wrong secret", search_memory(pid, haystack))
            zones.command(Erase(known.handle))
            after = report.note("after the erasure", search_memory(pid, haystack))
            other = way.enrol(zones, 2, way.other)
            for number in range(1, further[-1] + 1):
                assert way.attempt(zones, other.data, seen(2, number + 2))
                if number in further:
                    after += report.note(f"after {number} further attempts", search_memory(pid, haystack))
            new = Haystack(keys(state, other).of_device())
            goes_on = report.note("of the epoch that goes on", search_memory(pid, new))
            measured = Haystack([Needle("sealed body", known.body, WINDOW)])
            report.note("sealed, as on disk or token", search_memory(pid, measured))
        assert beyond(found, HELD) == []
        assert beyond(after, (W, INDEX)) == [], "the ended epoch's key is gone"
        assert beyond(goes_on, HELD) == []
        copies = Counter(hit.name for hit in goes_on)
        assert (copies[W], copies[INDEX]) == (1, 1)
        # The buffer, and OpenSSL's two schedules of its cipher, whose first round keys are the key.
        assert 1 <= copies[E] <= 3
        in_text = _in_text(known, presented, captures, [probe, stranger])
        assert report.note("all files", search_files(state, in_text)) == []
        assert report.note("all that was written to files", search_writes(writes, in_text)) == []
        assert any(path.endswith("-wal") for path in writes.by_path), "this test saw the writes"
        assert report.note("log", in_text.find(zones.log("vault").read_bytes())) == []
        sealed = Haystack([Needle("the ended epoch's file", ended), Needle("sealed body", known.body)])
        assert search_files(state, sealed) == [], "no file holds what only a key was missing for"
        if way is WAYS["token, tier 1"]:
            assert search_writes(writes, Haystack([Needle("sealed body", known.body)])) == []


@each_way
def test_no_register_keeps_anything_of_an_attempt_or_an_ended_epoch(
    tmp_path: Path, report: Report, way: Way
) -> None:
    captures, probe = [seen(1, 1), seen(1, 2)], seen(1, 3)
    with way.zones(tmp_path / "state") as zones:
        shown, pid = way.enrol(zones, 1, way.first), zones.pid("vault")
        known = keys(zones.settings.zone_state("vault"), shown)
        haystack = _everything(known, list(shown.needles()), captures, [probe])
        found = report.note("registers after the enrolment", search_registers(pid, haystack))
        assert way.attempt(zones, shown.data, probe)
        found += report.note("registers after a match", search_registers(pid, haystack))
        zones.command(Erase(known.handle))
        after = report.note("registers after the erasure", search_registers(pid, haystack))
    assert [hit for hit in found if hit.name not in HELD] == []
    assert [hit for hit in after if hit.name not in {W, INDEX}] == []


def test_no_register_keeps_the_root_key(tmp_path: Path, report: Report) -> None:
    """Three starts: what a register holds is a matter of chance."""
    found = []
    for number in range(3):
        with bare_zones(tmp_path / str(number), "vault") as zones:
            shown = WAYS["token, tier 2"].enrol(zones, 1, b"")
            haystack = Haystack(keys(zones.settings.zone_state("vault"), shown).of_device())
            assert zones.attempt(shown.data, seen(1, 3))
            hits = search_registers(zones.pid("vault"), haystack)
            found += [hit for hit in report.note("registers of all threads", hits) if hit.name not in HELD]
    assert found == []


# Admin, which passes the token on.


@pytest.mark.parametrize("recognition", ["", "tier = 1\n"])
def test_admin_keeps_nothing_of_a_token_that_it_gave_out(
    tmp_path: Path, report: Report, recognition: str
) -> None:
    with bare_zones(tmp_path / "state", "vault", "admin", recognition=recognition) as zones:
        pid = zones.pid("admin")
        with all_writes(pid, tmp_path / "strace") as writes:
            person = zones.api.call("POST", "/people", {"name": "Somebody"})["id"]
            consent = {"notice_version": "1", "act": "signed-paper"}
            zones.api.call("POST", f"/people/{person}/consents", consent)
            enrolment = zones.api.call("POST", "/enrolments", {"person": person, "seconds": 20})["id"]
            zones.wait_window()
            zones.press(before_the_lens(b"", seen(1, 1), seen(1, 2)))
            eventually(lambda: zones.api.call("GET", f"/enrolments/{enrolment}")["state"] == "done")
            token = zones.take_token(enrolment)
        secret = Needle("secret S", bytes(Token.decode(token).secret))
        whole = Needle("token", token, least=32)
        haystack = Haystack([*spelled([secret]), *_as_sent(token), whole])
        found = report.note("memory of admin", search_memory(pid, haystack))
        registers = report.note("registers of admin", search_registers(pid, haystack))
        assert search_files(zones.settings.zone_state("admin"), haystack) == []
        assert search_writes(writes, haystack) == []
        assert haystack.find(zones.log("admin").read_bytes()) == []
    assert found == []
    assert registers == []


def test_registers_are_overwritten_by_the_same_work_again() -> None:
    script = """if True:
        import sys
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from appliance.vault.registers import overwrite_registers
        key = bytes.fromhex(sys.argv[1])
        sealed = AESGCM(key).encrypt(bytes(12), bytes(32), None)
        AESGCM(key).decrypt_into(bytes(12), sealed, None, bytearray(32))
        if sys.argv[2] == "overwrite":
            overwrite_registers()
        print("done", flush=True)
        input()
    """
    key = np.random.default_rng(4).bytes(32)
    found = {}
    for then in ("leave", "overwrite"):
        with subprocess.Popen(
            [sys.executable, "-c", script, key.hex(), then], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            found[then] = search_registers(process.pid, Haystack([Needle("key", key)]))
            process.kill()
    print(found)
    assert found["overwrite"] == []


# The whole door, with portraits.


@dataclass
class Tapped:
    """What lens has said to vault so far, and how much of it was taken."""

    tap: Tap
    taken: int = 0

    def probes(self) -> list[bytes]:
        """The embeddings that came since the last call."""
        found = []
        for heard in self.tap.heard:
            data = bytes(heard)
            while len(data) >= 3:
                kind, length = struct.unpack_from("!BH", data)
                if kind == Probe.TYPE:
                    found.append(data[3 : 3 + length])
                data = data[3 + length :]
        new, self.taken = found[self.taken :], len(found)
        return new


@contextlib.contextmanager
def tapped(house: House) -> Iterator[Tapped]:
    tap = Tap(house.door.settings.socket("lens/look"))
    try:
        yield Tapped(tap)
    finally:
        tap.close()


@pytest.mark.models
def test_a_whole_door_keeps_nothing_of_a_person_who_came_and_went(
    test_models: Path, portrait_paths: dict[str, Path], tmp_path: Path, report: Report
) -> None:
    with open_house(test_models, portrait_paths) as house, tapped(house) as from_lens:
        door = house.door
        state, pid = door.settings.zone_state("vault"), door.pid("vault")
        with all_writes(pid, tmp_path / "strace") as writes:
            token = house.enrol()
            captures = from_lens.probes()[-door.settings.recognition.captures :]
            known = keys(state, Shown(ClaimKind.TOKEN, token))
            assert np.allclose(np.frombuffer(known.stored, "<f4"), _stored_of(captures, known), atol=1e-6), (
                "the tap heard what was stored"
            )

            house.show(portrait_paths["obama2.jpg"])
            press_until(house, lambda: house.opened(0.0) != [])
            house.wait_locked()
            probes = from_lens.probes()
            assert probes
            code = door.state / "wrong.png"
            code.write_bytes(png(wrong_secret(token)))
            door.show([Picture(0.0, code, scale=0.6), Picture(0.5, portrait_paths["obama2.jpg"])])
            house.press()
            house.wait_locked()
            assert from_lens.probes() == [], "no face is embedded for a wrong secret"

            presented = list(Shown(ClaimKind.TOKEN, token).needles())
            haystack = _everything(known, presented, captures, probes)
            found = report.note("vault after the attempts", search_memory(pid, haystack))
            person = house.api.call("GET", "/people")["items"][0]["id"]
            assert house.api.call("DELETE", f"/people/{person}/template")["state"] == "erased"
            after = report.note("vault after the erasure", search_memory(pid, haystack))
        assert beyond(found, HELD) == []
        assert beyond(after, (W, INDEX)) == []
        in_text = _in_text(known, presented, captures, probes)
        assert report.note("vault's files", search_files(state, in_text)) == []
        assert report.note("all that vault wrote to files", search_writes(writes, in_text)) == []
        assert any(path.endswith("vault.db-wal") for path in writes.by_path), "this test saw the writes"
        assert report.note("all logs", search_files(door.state / "logs", in_text)) == []
        for zone in ("admin", "door", "lens"):
            assert report.note(f"{zone}'s files", search_files(door.state / zone, in_text)) == []
        # Measured, and not promised: lens has pictures and embeddings by nature, admin the token's text.
        visited: tuple[Zone, ...] = ("admin", "lens")
        for zone in visited:
            report.note(f"memory of {zone}", search_memory(door.pid(zone), in_text))
        assert report.note("memory of door", search_memory(door.pid("door"), in_text)) == []


def press_until(house: House, opened: Callable[[], bool]) -> None:
    """A busy machine may be late for one press."""
    for _ in range(4):
        house.press()
        house.wait_attempt()
        house.wait_locked()
        if opened():
            return
    eventually(opened, 1)


def wrong_secret(token: bytes) -> bytes:
    claimed = Token.decode(token)
    claimed.secret[0] ^= 1
    return bytes(claimed.encode())


def _stored_of(captures: list[bytes], known: Keys) -> np.ndarray:
    whole = make_template([read_embedding(each, len(EDGE.mean)) for each in captures])
    return Rotation(known.rotation_key, len(EDGE.mean)).rotate(whole, EDGE.mean)


def _as_sent(token: bytes) -> Iterator[Needle]:
    """The answer that admin sends."""
    yield Needle("token in base64", base64.b64encode(token), 12)


def _needles(known: Keys, captures: list[bytes], probes: list[bytes]) -> Iterator[Needle]:
    yield from template("template", captures, EDGE.mean, known)
    for number, capture in enumerate(captures, 1):
        yield from embedding(f"capture {number}", capture, EDGE.mean, known)
    for number, probe in enumerate(probes, 1):
        yield from embedding(f"probe {number}", probe, EDGE.mean, known)


def _everything(known: Keys, presented: list[Needle], captures: list[bytes], probes: list[bytes]) -> Haystack:
    secrets = [*presented, *known.of_record(), *known.of_device()]
    return Haystack([*secrets, *_needles(known, captures, probes)])


def _in_text(known: Keys, presented: list[Needle], captures: list[bytes], probes: list[bytes]) -> Haystack:
    """As bytes and as text; without the root key, which a simulation has in a file."""
    return Haystack([*spelled([*presented, *known.in_no_file()]), *_needles(known, captures, probes)])
