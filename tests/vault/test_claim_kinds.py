"""What each kind of claim opens, and what it costs: tokens of tier 1, cards, numbers with a PIN."""

import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.evaluation.guessing_simulation import SimulatedTime
from appliance.link.claims import of_card, of_number
from appliance.link.messages import ClaimKind
from appliance.rights import ALWAYS, Rights, Window
from appliance.settings import Recognition
from appliance.vault import credentials
from appliance.vault.check import check
from appliance.vault.claims import Vaulted, read_credential
from appliance.vault.clock import DAY, EARLIEST
from appliance.vault.credentials import Credential
from appliance.vault.limits import claim_key
from appliance.vault.protection import DEVICE, SHARED, Opened, terms_of
from appliance.vault.store import LookupTaken, Record
from appliance.vault.token import Token
from tests.cases import many
from tests.vault.faces import EDGE, RECOGNITION, again, at, enrol, enrol_for, enrol_on_token, face, vault_in
from tests.vault.records import flipped

CARD = of_card(128, (1 << 127) + 4711)
OTHER_CARD = of_card(128, (1 << 127) + 4712)
PIN = of_number("1234", "987654")
WRONG_PIN = of_number("1234", "987655")
UNKNOWN_NUMBER = of_number("4321", "987654")
EVERY_KIND: dict[str, Any] = {
    "tier": 3,
    "justification": "nobody can carry a card into this room",
    "claims": ["token", "card", "number"],
    "card_protection": "read with a key of ours",
    "answer_time": 2.5,
}


@pytest.fixture
def tier1(tmp_path: Path) -> Iterator[Vaulted]:
    with vault_in(tmp_path, tier=1) as vaulted:
        yield vaulted


@pytest.fixture
def every_kind(tmp_path: Path) -> Iterator[Vaulted]:
    with vault_in(tmp_path, **EVERY_KIND) as vaulted:
        yield vaulted


def shown(vaulted: Vaulted, wire: bytearray) -> Credential:
    return read_credential(bytearray(wire), vaulted.epochs.index_key)


def score(vaulted: Vaulted, claim: Token | Credential, seed: int = 1) -> float | None:
    """How alike this face is to what the claim opens; None where it opens nothing."""
    claimed = vaulted.open(claim)
    if claimed is None:
        return None
    vaulted.limits.succeeded(claimed.handle)
    return claimed.record.score(face(seed), EDGE.mean)


def failures(vaulted: Vaulted, handle: bytes) -> int:
    """Counted of a claim this year."""
    with vaulted.store.transaction() as db:
        (count,) = db.execute(
            "SELECT coalesce(sum(count), 0) FROM failure WHERE claim = ?",
            (claim_key(vaulted.epochs.index_key, handle),),
        ).fetchone()
    return int(count)


def with_body(token: Token, body: bytes) -> Token:
    return Token(token.handle, bytearray(token.secret), token.tier, body)


# Tier 1.


def test_the_template_is_on_the_token_and_the_device_keeps_no_body(tier1: Vaulted, tmp_path: Path) -> None:
    token = enrol_on_token(tier1, face(1))
    record = tier1.store.read(token.handle)
    assert record is not None
    assert record.sealed.body == b""
    on_disk = b"".join(path.read_bytes() for path in tmp_path.glob("vault.db*"))
    assert all(token.body[at : at + 16] not in on_disk for at in range(0, len(token.body) - 16, 16))
    assert score(tier1, Token.decode(again(token).encode())) == pytest.approx(1, abs=0.02)
    assert score(tier1, again(token), 2) != pytest.approx(1, abs=0.2)


def test_an_older_token_of_the_same_person_opens_nothing(tier1: Vaulted) -> None:
    """Renewed under the same handle even, with the same secret and the same face."""
    older = enrol_on_token(tier1, face(1))
    tier1.erase(older.handle)
    assert score(tier1, again(older)) is None
    newer = enrol_on_token(tier1, face(1), older.handle)
    assert score(tier1, again(older)) is None
    assert score(tier1, with_body(newer, older.body)) is None
    assert score(tier1, again(newer)) is not None


def test_the_body_of_another_opens_nothing(tier1: Vaulted) -> None:
    one, other = enrol_on_token(tier1, face(1)), enrol_on_token(tier1, face(2))
    assert score(tier1, with_body(one, other.body)) is None
    assert score(tier1, with_body(other, one.body)) is None
    for byte in range(0, len(one.body), 7):
        damaged = bytearray(one.body)
        damaged[byte] ^= 1
        assert score(tier1, with_body(one, bytes(damaged))) is None
    assert score(tier1, again(one)) is not None


def test_a_token_of_one_tier_claims_no_record_of_another(tmp_path: Path) -> None:
    with vault_in(tmp_path, tier=2) as vaulted:
        one, two = enrol_on_token(vaulted, face(1)), enrol(vaulted, face(2))
        read = vaulted.store.records_read
        assert score(vaulted, Token(one.handle, bytearray(one.secret))) is None
        assert score(vaulted, Token(two.handle, bytearray(two.secret), 1, one.body)) is None
        assert vaulted.store.records_read == read + 2
        # A site that became less strict goes on taking the tokens that it gave out before.
        assert score(vaulted, again(one)) is not None
        assert score(vaulted, again(two), 2) is not None


def test_a_site_that_became_stricter_takes_no_weaker_token(tier1: Vaulted) -> None:
    assert score(tier1, enrol(tier1, face(1))) is None


# Cards.


def test_a_card_opens_its_one_record_and_is_overwritten(tmp_path: Path) -> None:
    with vault_in(tmp_path, claims=["card"], card_protection="a key of ours") as vaulted:
        handle = enrol_for(vaulted, face(1), CARD)
        enrol_for(vaulted, face(2), OTHER_CARD)
        record = vaulted.store.read(handle)
        assert record is not None
        assert record.tier == SHARED
        before = vaulted.store.records_read
        wire = bytearray(CARD)
        claim = read_credential(wire, vaulted.epochs.index_key)
        assert not any(wire)
        assert score(vaulted, claim) == pytest.approx(1, abs=1e-6)
        assert not any(claim.value)
        assert vaulted.store.records_read == before + 1


def test_the_card_of_nobody_and_garbage_open_nothing_and_cost_nobody_anything(tmp_path: Path) -> None:
    with vault_in(tmp_path, claims=["card"], card_protection="a key of ours") as vaulted:
        handle = enrol_for(vaulted, face(1), CARD)
        for wire in (OTHER_CARD, of_card(96, 7), bytearray(b"\xc1"), bytearray(64), bytearray(b"?" * 20)):
            claim = shown(vaulted, wire)
            assert vaulted.open(claim) is None
            assert not any(claim.value)
        assert failures(vaulted, handle) == 0
        vaulted.leases.end(handle)
        assert vaulted.open(shown(vaulted, CARD)) is None


def test_a_row_that_was_given_another_card_does_not_open_for_it(tmp_path: Path) -> None:
    """Who writes to the database can point a card at somebody's record; its secret is another one."""
    with vault_in(tmp_path, claims=["card"], card_protection="a key of ours") as vaulted:
        handle = enrol_for(vaulted, face(1), CARD)
        with vaulted.store.transaction() as db:
            lookup = shown(vaulted, OTHER_CARD).lookup
            db.execute("UPDATE record SET lookup = ? WHERE handle = ?", (lookup, handle))
        assert vaulted.open(shown(vaulted, OTHER_CARD)) is None
        assert failures(vaulted, handle) == 0, "a wrong secret of 128 bits is no guess"


# Number and PIN.


def test_a_number_and_pin_open_a_record_of_tier_3(every_kind: Vaulted) -> None:
    handle = enrol_for(every_kind, face(1), PIN)
    record = every_kind.store.read(handle)
    assert record is not None
    assert record.tier == DEVICE
    assert score(every_kind, shown(every_kind, PIN)) == pytest.approx(1, abs=1e-6)
    assert failures(every_kind, handle) == 0


def test_wrong_pins_make_the_owner_wait_and_never_lock_anybody_out(every_kind: Vaulted) -> None:
    now = SimulatedTime()
    vaulted = at(every_kind, now, budget=6)
    handle = enrol_for(vaulted, face(1), PIN)
    for _ in range(3):
        assert vaulted.open(shown(vaulted, WRONG_PIN)) is None
    # After three the right PIN has to wait as well.
    assert vaulted.open(shown(vaulted, PIN)) is None
    for _ in range(10):
        now.pass_by(901)
        assert vaulted.open(shown(vaulted, WRONG_PIN)) is None
    assert failures(vaulted, handle) == 0
    now.pass_by(901)
    assert score(vaulted, shown(vaulted, PIN)) is not None, "fifteen minutes later it opens"
    for guesses in range(1, 7):
        now.pass_by(901)
        claimed = vaulted.open(shown(vaulted, PIN))
        assert claimed is not None
        claimed.forget()
        assert failures(vaulted, handle) == guesses, "who has the PIN has a try at the face, and that counts"
    now.pass_by(100 * DAY)
    assert vaulted.open(shown(vaulted, PIN)) is None, "the year's budget is spent"
    # A restart gives nothing back.
    assert at(vaulted, now, budget=6).open(shown(vaulted, PIN)) is None


def test_an_unknown_number_takes_the_same_work_and_the_same_writes_as_a_wrong_pin(
    every_kind: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = enrol_for(every_kind, face(1), PIN)
    no_lease = enrol_for(every_kind, face(2), of_number("77", "987654"))
    every_kind.leases.end(no_lease)
    braked: list[bytes] = []
    brake = credentials.brake

    def counted(pin: bytearray, salt: bytes, index_key: bytearray) -> bytearray:
        braked.append(salt)
        return brake(pin, salt, index_key)

    monkeypatch.setattr(credentials, "brake", counted)
    claims = {
        "right": PIN,
        "wrong PIN": WRONG_PIN,
        "unknown": UNKNOWN_NUMBER,
        "no ground": of_number("77", "987654"),
    }
    work = {name: traced(every_kind, shown(every_kind, wire)) for name, wire in claims.items()}
    assert len(braked) == len(claims)
    assert all(statements for statements in work.values())
    writes = {name: changing(done) for name, done in work.items()}
    assert len({tuple(each) for each in writes.values()}) == 1, writes
    assert failures(every_kind, handle) == 1, "the right PIN's, for which no face came"


def changing(statements: list[str]) -> list[str]:
    """Those that write."""
    return [each for each in statements if each.split()[0] in {"INSERT", "DELETE", "UPDATE"}]


def traced(vaulted: Vaulted, claim: Token | Credential) -> list[str]:
    """The statements of an attempt, without their values."""
    statements: list[str] = []
    db = vaulted.store._db
    db.set_trace_callback(lambda text: statements.append(" ".join(text.split()[:3])))
    try:
        vaulted.open(claim)
    finally:
        db.set_trace_callback(None)
    return statements


# One charge an attempt, whatever its reason.


def test_each_attempt_is_charged_once_before_anything_is_compared(tmp_path: Path) -> None:
    now = SimulatedTime()
    with vault_in(tmp_path, claims=["token", "card"], card_protection="a key of ours") as begun:
        vaulted = at(begun, now)
        known, other_pack = enrol(vaulted, face(1)), enrol(vaulted, face(2), pack=b"p" * 32)
        no_ground, erased = enrol(vaulted, face(3), lease=0), enrol(vaulted, face(4))
        expired, late = enrol(vaulted, face(5)), enrol(vaulted, face(6))
        limited, short = enrol(vaulted, face(7)), enrol(vaulted, face(8)[:128])
        enrol_for(vaulted, face(9), PIN, tier=DEVICE)
        vaulted.erase(erased.handle)
        with vaulted.store.transaction() as db:
            db.execute("UPDATE record SET expires_at = 1 WHERE handle = ?", (expired.handle,))
        vaulted.set_rights(late.handle, Rights(None, EARLIEST, ()).encode())
        for _ in range(3):
            assert vaulted.open(again(limited)) is not None
        claims: dict[str, Token | Credential] = {
            "right": known,
            "unknown": Token.create(secrets.token_bytes(16)),
            "wrong secret": Token(known.handle, bytearray(16)),
            "another tier": Token(known.handle, bytearray(16), 1, bytes(300)),
            "another pack": other_pack,
            "no ground": no_ground,
            "erased": erased,
            "expired": expired,
            "no longer valid": late,
            "limited": limited,
            "of another length": short,
            "a card of nobody": shown(vaulted, OTHER_CARD),
            "garbage": shown(vaulted, bytearray(b"?")),
            "a kind that is not served": shown(vaulted, PIN),
        }
        writes = {name: changing(traced(vaulted, claim)) for name, claim in claims.items()}
        assert writes["unknown"].count("INSERT INTO failure") == 1
        assert all(done == writes["unknown"] for done in writes.values()), writes


def test_an_erasure_during_an_attempt_leaves_nothing_counted_of_the_erased(
    vaulted: Vaulted, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = enrol(vaulted, face(1))
    erasing = threading.Thread(target=vaulted.erase, args=(token.handle,))
    find = Vaulted._open

    def found_and_then_erased(*given: Any) -> tuple[Record | None, Opened | None]:
        found = find(*given)
        erasing.start()
        erasing.join(0.5)
        return found

    monkeypatch.setattr(Vaulted, "_open", found_and_then_erased)
    vaulted.open(token)
    erasing.join()
    with vaulted.store.transaction() as db:
        assert db.execute("SELECT count(*) FROM wait WHERE stranger = 0").fetchone() == (0,)
        assert db.execute("SELECT count(*) FROM failure").fetchone() == (0,)


# What a site takes.


@pytest.mark.parametrize("wire", [CARD, PIN], ids=["card", "number"])
def test_a_kind_that_is_not_served_is_refused_like_every_other_claim(
    vaulted: Vaulted, wire: bytearray
) -> None:
    handle = enrol_for(vaulted, face(1), wire)
    assert vaulted.open(shown(vaulted, wire)) is None
    assert failures(vaulted, handle) == 0


def test_a_site_of_tier_2_refuses_records_of_tier_3(tmp_path: Path) -> None:
    """Such as those that it made when it was one of tier 3."""
    with vault_in(tmp_path, **EVERY_KIND) as before:
        handle = enrol_for(before, face(1), PIN)
        store, epochs = before.store, before.epochs
        after = replace(
            before,
            policy=replace(before.policy, tier=2, kinds=frozenset(ClaimKind)),
            store=store,
            epochs=epochs,
        )
        assert before.open(shown(before, PIN)) is not None
        assert after.open(shown(after, PIN)) is None
        # Nor does a token of tier 2 reach it.
        assert after.open(Token(handle, bytearray(16))) is None


def test_tokens_are_refused_where_only_cards_are_served(tmp_path: Path) -> None:
    with vault_in(tmp_path, claims=["card"], card_protection="a key of ours") as vaulted:
        assert vaulted.open(enrol(vaulted, face(1))) is None


@pytest.mark.parametrize(
    ("claims", "tier", "expected"),
    [
        (ClaimKind.TOKEN, 1, 1),
        (ClaimKind.TOKEN, 2, 2),
        (ClaimKind.TOKEN, 3, 2),
        (ClaimKind.CARD, 2, 2),
        (ClaimKind.CARD, 3, 2),
        (ClaimKind.NUMBER, 3, 3),
    ],
)
def test_nothing_is_enrolled_in_a_weaker_tier_than_its_claim_needs(
    vaulted: Vaulted, claims: ClaimKind, tier: int, expected: int
) -> None:
    assert replace(vaulted.policy, tier=tier).tier_of(claims) == expected


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"tier": 3}, "justification"),
        ({"tier": 3, "justification": " \n"}, "justification"),
        ({"claims": ["number"]}, "tier = 3"),
        ({**EVERY_KIND, "claims": ["token"]}, "tier 3 is for numbers"),
        ({**EVERY_KIND, "answer_time": 2.0}, "answer_time = 2.5"),
        ({"claims": ["card"]}, "card_protection"),
        ({"claims": []}, "nobody could claim"),
        ({"tpm": "nonsense"}, "tpm"),
        ({"claims": ["token", "number"], "tier": 1}, "tier = 3"),
        ({"claims": ["card"], "card_protection": "a key of ours", "tier": 1}, "tier = 1"),
        ({"tier": 4}, "tier"),
        ({"claims": ["face"]}, "claims"),
    ],
)
def test_the_settings_refuse_what_cannot_be_meant(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Recognition(**{**RECOGNITION.model_dump(), **changed})


# Hours and validity.


def test_hours_and_validity_are_looked_at_with_a_trusted_clock_alone(tmp_path: Path) -> None:
    now = SimulatedTime()
    with vault_in(tmp_path) as begun:
        vaulted = at(begun, now)
        always, hours, until = (enrol(vaulted, face(seed)) for seed in (1, 2, 3))
        begins = EARLIEST + 10 * DAY
        # 11 January 2025 is a Saturday.
        saturday = Rights(None, None, (Window(5, 0, 1440),))
        vaulted.set_rights(hours.handle, saturday.encode())
        vaulted.set_rights(until.handle, Rights(None, begins + 400 * DAY, ()).encode())
        assert [score(vaulted, again(each), 0) is not None for each in (always, hours, until)] == [True] * 3
        now.pass_by(DAY)
        assert [score(vaulted, again(each), 0) is not None for each in (always, hours, until)] == [
            True,
            False,
            True,
        ]
        # Ten years forward: the clock is not believed; who has no hours goes on.
        now.wrong = 3650 * DAY
        assert [score(vaulted, again(each), 0) is not None for each in (always, hours, until)] == [
            True,
            False,
            True,
        ]
        # Truly past its end, and then a year back: it stays past.
        now.wrong = 0
        now.pass_by(400 * DAY)
        assert score(vaulted, again(until), 0) is None
        now.wrong = -365 * DAY
        for each in (vaulted, at(vaulted, now)):
            assert score(each, again(until), 0) is None
            assert score(each, again(always), 0) is not None


def test_damaged_rights_open_nothing(vaulted: Vaulted, capsys: pytest.CaptureFixture[str]) -> None:
    token = enrol(vaulted, face(1))
    with vaulted.store.transaction() as db:
        db.execute("UPDATE record SET rights = x'ff' WHERE handle = ?", (token.handle,))
    assert vaulted.open(again(token)) is None
    assert "rights are damaged" in capsys.readouterr().err


def test_a_pin_is_braked_before_anything_is_known_of_the_number(every_kind: Vaulted) -> None:
    """Timed: an unknown number is not told by an early end."""
    enrol_for(every_kind, face(1), PIN)
    took = []
    for wire in (WRONG_PIN, UNKNOWN_NUMBER):
        began = time.monotonic()
        assert every_kind.open(shown(every_kind, wire)) is None
        took.append(time.monotonic() - began)
    assert min(took) > 0.5 * max(took), took


# What else a row says.


@many
@given(
    lookup=st.none() | st.binary(min_size=32, max_size=32),
    rights=st.binary(max_size=122),
    end=st.integers(-(2**40), 2**40),
    data=st.data(),
)
def test_every_bit_of_a_records_terms_is_bound(
    lookup: bytes | None, rights: bytes, end: int, data: st.DataObject
) -> None:
    terms = terms_of(lookup, rights, end)
    others = [terms_of(lookup, rights, end ^ 1 << data.draw(st.integers(0, 39)))]
    others.append(terms_of(None if lookup else bytes(32), rights, end))
    bit = data.draw(st.integers(0, 8 * 122 - 1))
    if rights:
        others += [terms_of(lookup, flipped(rights, bit), end), terms_of(lookup, rights[:-1], end)]
    if lookup:
        others.append(terms_of(flipped(lookup, bit), rights, end))
    assert len(terms) == 32
    assert terms not in others


@pytest.mark.parametrize(
    "altered",
    ["rights = x''", "rights = zeroblob(122)", "expires_at = expires_at + 1", "lookup = randomblob(32)"],
)
def test_a_row_whose_terms_were_altered_opens_nothing_and_is_found(every_kind: Vaulted, altered: str) -> None:
    """With plain SQLite and no key: an expired person must not come back, nor a card find another record."""
    enrol_for(every_kind, face(1), CARD)
    assert check(every_kind.store, every_kind.epochs).unreadable == 0
    with every_kind.store.transaction() as db:
        db.execute(f"UPDATE record SET {altered}")  # noqa: S608 - the test's own words
    assert score(every_kind, shown(every_kind, CARD)) is None
    assert check(every_kind.store, every_kind.epochs).unreadable == 1


def test_rights_are_changed_with_their_seal(every_kind: Vaulted) -> None:
    handle = enrol_for(every_kind, face(1), CARD)
    assert every_kind.set_rights(handle, Rights(valid_until=EARLIEST).encode())
    assert score(every_kind, shown(every_kind, CARD)) is None
    assert every_kind.set_rights(handle, ALWAYS)
    assert score(every_kind, shown(every_kind, CARD)) == pytest.approx(1, abs=1e-6)
    assert check(every_kind.store, every_kind.epochs).unreadable == 0
    assert not every_kind.set_rights(bytes(16), ALWAYS)


def test_a_card_is_taken_over_by_its_persons_next_record_alone(every_kind: Vaulted) -> None:
    old = enrol_for(every_kind, face(1), CARD)
    row = every_kind.store.read(old)
    assert row is not None
    epoch = every_kind.epochs.current.epoch
    with pytest.raises(LookupTaken):
        every_kind.keep(replace(row, handle=b"n" * 16), replaces=b"x" * 16)
    every_kind.keep(replace(row, handle=b"n" * 16), replaces=old)
    assert every_kind.store.read(old) is None
    assert every_kind.epochs.current.epoch == epoch + 1, "the old record is erased for good"
