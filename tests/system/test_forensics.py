"""What a thief finds in the raw bytes of vault's files and memory: nothing (`pytest -s` prints what it is).

The secrets are known to the test: from the token, from what vault holds before the erasure, and from a tap on
the socket on which embeddings come. Every file is searched, with all that was ever written to it, and the
memory of the process that lives on. What CPython does not promise, that a freed object is overwritten, is
measured: remnants are counted after one, ten and a hundred further attempts.
"""

import base64
import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from appliance.link.claims import of_card, of_number
from appliance.link.messages import ClaimKind, Erase
from appliance.vault.token import Token
from tests.looking import only_root_looks_in
from tests.system.bare_zones import BareZones, bare_zones, before_the_lens
from tests.system.forensics import (
    Report,
    beyond,
    everything,
    in_text,
    search_files,
    search_writes,
    wrong_secret,
)
from tests.system.house import eventually
from tests.system.known_secrets import (
    HELD,
    INDEX,
    PEPPER,
    WINDOW,
    E,
    Shown,
    W,
    keys,
    spelled,
)
from tests.system.raw_search import (
    Haystack,
    Needle,
    all_writes,
    search_memory,
    search_registers,
)
from tests.vault.faces import seen

pytestmark = [pytest.mark.root, only_root_looks_in, pytest.mark.timeout(240)]

# The vault process alone, with faces that the test makes up.


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
    "card": Way(
        ClaimKind.CARD,
        'claims = ["token", "card"]\ncard_protection = "a key of ours"\n',
        card(1),
        card(2),
        card(3),
    ),
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
            haystack = everything(known, presented, captures, [probe, stranger])
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
        assert beyond(found, (*HELD, PEPPER)) == []
        assert beyond(after, (W, INDEX, PEPPER)) == [], "the ended epoch's key is gone"
        assert beyond(goes_on, (*HELD, PEPPER)) == []
        copies = Counter(hit.name for hit in goes_on)
        assert (copies[W], copies[INDEX]) == (1, 1)
        # The buffer, and OpenSSL's two schedules of its cipher, whose first round keys are the key.
        assert 1 <= copies[E] <= 3
        texts = in_text(known, presented, captures, [probe, stranger])
        assert report.note("all files", search_files(state, texts)) == []
        assert report.note("all that was written to files", search_writes(writes, texts)) == []
        assert any(path.endswith("-wal") for path in writes.by_path), "this test saw the writes"
        assert report.note("log", texts.find(zones.log("vault").read_bytes())) == []
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
        haystack = everything(known, list(shown.needles()), captures, [probe])
        found = report.note("registers after the enrolment", search_registers(pid, haystack))
        assert way.attempt(zones, shown.data, probe)
        found += report.note("registers after a match", search_registers(pid, haystack))
        zones.command(Erase(known.handle))
        after = report.note("registers after the erasure", search_registers(pid, haystack))
    assert [hit for hit in found if hit.name not in {*HELD, PEPPER}] == []
    assert [hit for hit in after if hit.name not in {W, INDEX, PEPPER}] == []


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


def _as_sent(token: bytes) -> Iterator[Needle]:
    """The answer that admin sends."""
    yield Needle("token in base64", base64.b64encode(token), 12)
