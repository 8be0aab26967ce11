"""What admin and door may ask of a vault that runs, beside attempts: over its sockets, byte for byte."""

import secrets
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.evaluation.guessing_simulation import SimulatedTime
from appliance.journal import Event, Journal, JournalError
from appliance.link.claims import of_card, of_number
from appliance.link.decision import DESTROY, Answer, Request, read_request
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    VAULT_TO_ADMIN,
    AskCheck,
    Checked,
    ClaimKind,
    Decommission,
    Done,
    Lease,
    OpenEnrolment,
    Progress,
    Refusal,
    Refused,
    RotateEpoch,
    SetRights,
)
from appliance.link.sockets import Deadline, Late
from appliance.rights import ALWAYS, RIGHTS, Rights, Window
from appliance.vault import service as services
from appliance.vault.clock import DAY, EARLIEST
from appliance.vault.decommission import Decommissioned
from appliance.vault.service import VaultService
from tests.vault.faces import RECOGNITION, enrol_for, enrol_on_token, face, seen
from tests.vault.scripted_lens import ScriptedLens, looking
from tests.vault.vault_house import House, Script, capturing, running, settings_in, wait_for

CARD = of_card(128, (1 << 127) + 4711)
PIN = of_number("1234", "987654")
EVERY_KIND: dict[str, Any] = {
    "tier": 3,
    "justification": "nobody can carry a card into this room",
    "claims": ["token", "card", "number"],
    "card_protection": "read with a key of ours",
    "answer_time": 2.5,
}
WRONG_FACES = (seen(2), seen(3), seen(4))


@pytest.fixture
def house(short_folder: Path) -> Iterator[House]:
    with running(settings_in(short_folder)) as house:
        yield house


@pytest.fixture
def every_kind(short_folder: Path) -> Iterator[House]:
    with running(settings_in(short_folder, RECOGNITION.model_copy(update=EVERY_KIND))) as house:
        yield house


def before_the_lens(*embeddings: bytes) -> Script:
    """Nobody shows a code: the claim came with the press."""

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        if embeddings:
            lens.show_faces(*embeddings)
        lens.close_camera_when_asked()

    return script


def key_files(house: House) -> set[str]:
    return {path.name for path in house.settings.zone_state("vault").glob("*.key*")}


def harm(house: House, statement: str) -> None:
    """Write to the database behind vault's back."""
    db = sqlite3.connect(house.settings.zone_state("vault") / "vault.db")
    db.executescript(statement)
    db.close()


# A card, or a number and PIN, with the press.


@pytest.mark.parametrize("wire", [CARD, PIN], ids=["card", "number"])
def test_what_door_was_shown_opens_with_the_right_face_alone(every_kind: House, wire: bytearray) -> None:
    enrol_for(every_kind.service._vaulted, face(1), wire)
    with every_kind.lens(before_the_lens(seen(1))):
        assert every_kind.press(b"\x01" + wire) == b"\x01"
    with every_kind.lens(before_the_lens(*WRONG_FACES)):
        assert every_kind.press(b"\x01" + wire) == b"\x00"


@pytest.mark.parametrize("claim", [of_card(96, 5), b"\xff" * 64, b"\x00", PIN], ids=repr)
def test_any_other_claim_is_no_match_and_no_face_is_embedded(every_kind: House, claim: bytes) -> None:
    enrol_for(every_kind.service._vaulted, face(1), CARD)
    with every_kind.lens(before_the_lens()) as lens:
        assert every_kind.press(b"\x01" + claim) == b"\x00"
    assert not lens.embeds()


@pytest.mark.parametrize("ends", ["match", "no lens", "recognition off"])
def test_what_door_was_shown_is_overwritten_however_the_attempt_ends(
    short_folder: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    requests: list[Request] = []

    def kept(connection: Any) -> Request:
        requests.append(read_request(connection))
        return requests[-1]

    monkeypatch.setattr(services, "read_request", kept)
    off = {"enabled": False} if ends == "recognition off" else {}
    with running(settings_in(short_folder, RECOGNITION.model_copy(update=EVERY_KIND | off))) as house:
        enrol_for(house.service._vaulted, face(1), CARD)
        if ends == "match":
            with house.lens(before_the_lens(seen(1))):
                assert house.press(b"\x01" + CARD) == b"\x01"
        else:
            house.press(b"\x01" + CARD)
    (request,) = requests
    assert len(request.claim) == len(CARD)
    assert not any(request.claim)


# Enrolling for one.


def opening(kind: ClaimKind, captures: int = 2) -> OpenEnrolment:
    return OpenEnrolment(secrets.token_bytes(16), b"c" * 16, 3600, captures, 60, kind)


@pytest.mark.parametrize("kind", [ClaimKind.CARD, ClaimKind.NUMBER])
def test_a_site_that_does_not_serve_a_claim_enrols_nobody_for_it(house: House, kind: ClaimKind) -> None:
    assert house.command(opening(kind)) == Refused(Refusal.CLAIM_NOT_SERVED)
    assert house.state().window == 0


@pytest.mark.parametrize(
    ("kind", "wire"), [(ClaimKind.CARD, CARD), (ClaimKind.NUMBER, PIN)], ids=["card", "number"]
)
def test_an_enrolment_for_a_card_or_number_ends_without_a_token(
    every_kind: House, kind: ClaimKind, wire: bytearray
) -> None:
    assert _enrolled(every_kind, kind, wire) == Done()
    state = every_kind.state()
    assert (state.records, state.leases) == (1, 1)
    with every_kind.lens(before_the_lens(seen(1, 7))):
        assert every_kind.press(b"\x01" + wire) == b"\x01"
    # Somebody else with the same card.
    assert _enrolled(every_kind, kind, wire) == Refused(Refusal.CLAIM_TAKEN)
    assert every_kind.state().records == 1
    with every_kind.lens(before_the_lens(seen(1, 8))):
        assert every_kind.press(b"\x01" + wire) == b"\x01"


def _enrolled(house: House, kind: ClaimKind, wire: bytearray) -> Message:
    """What admin hears at the end of a window that one press fills."""
    with house.open("admin") as admin:
        send_message(admin, opening(kind), Deadline(5))
        wait_for(lambda: house.state().window == 1)
        with house.lens(capturing(seen(1, 0), seen(1, 1))):
            assert house.press(b"\x01" + wire) == b"\x00"
        heard = read_message(admin, VAULT_TO_ADMIN, Deadline(5))
        while isinstance(heard, Progress):
            heard = read_message(admin, VAULT_TO_ADMIN, Deadline(5))
    return heard


# Rights.


def test_hours_close_the_door_to_a_face_and_open_it_again(house: House) -> None:
    token = house.enrol()
    code = token.encode()
    assert house.command(SetRights(token.handle, Rights(None, EARLIEST, ()).encode())) == Done()
    with house.lens(looking(code)) as lens:
        assert house.press() == b"\x00"
    assert not lens.embeds()
    every_day = tuple(Window(day, 0, 1440) for day in range(7))
    assert house.command(SetRights(token.handle, Rights(None, None, every_day).encode())) == Done()
    with house.lens(looking(code, seen(1))):
        assert house.press() == b"\x01"


def test_rights_of_nobody_and_rights_that_are_none_are_refused(house: House) -> None:
    token = house.enrol()
    assert house.command(SetRights(bytes(16), Rights(None, None, ()).encode())) == Refused(
        Refusal.UNKNOWN_HANDLE
    )
    assert house.command(SetRights(token.handle, b"\xff" * RIGHTS)) == Refused(Refusal.MALFORMED)
    record = house.service._vaulted.store.read(token.handle)
    assert record is not None
    assert record.rights == ALWAYS


# Check and rotation.


def test_a_check_counts_by_tier_and_finds_what_was_altered(every_kind: House) -> None:
    vaulted = every_kind.service._vaulted
    enrol_on_token(vaulted, face(1))
    for seed in (2, 3):
        every_kind.enrol(seed)
    enrol_for(vaulted, face(4), PIN)
    assert every_kind.command(AskCheck()) == Checked(1, 2, 1, 0, 1, 1)
    harm(
        every_kind, "UPDATE half SET half = zeroblob(92) WHERE handle IN (SELECT handle FROM record LIMIT 1)"
    )
    harm(
        every_kind,
        "PRAGMA ignore_check_constraints = ON; UPDATE record SET tier = 9 WHERE tier = 2 AND handle IN "
        "(SELECT handle FROM record WHERE tier = 2 LIMIT 1)",
    )
    harm(every_kind, "DELETE FROM body WHERE handle IN (SELECT handle FROM record WHERE tier = 3)")
    checked = every_kind.command(AskCheck())
    assert isinstance(checked, Checked)
    # The first by its handle may be any of the four.
    assert (checked.tier1, checked.tier2, checked.tier3) == (1, 1, 1)
    assert checked.unreadable in {2, 3}


def test_a_rotation_changes_the_key_and_no_token(house: House) -> None:
    token = house.enrol()
    code = token.encode()
    assert house.command(RotateEpoch()) == Done()
    assert house.command(RotateEpoch()) == Done()
    assert key_files(house) == {"root.key", "epoch-3.key"}
    assert house.command(AskCheck()) == Checked(0, 1, 0, 0, 3, 1)
    with house.lens(looking(code, seen(1))):
        assert house.press() == b"\x01"
    assert house.events().count("keys rotated") == 2


def test_a_command_that_finds_no_keys_is_hung_up_on_in_one_line(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as one that comes as another decommissions."""
    token = house.enrol()
    house.service._vaulted.epochs.forget()
    with house.open("admin") as admin:
        send_message(admin, AskCheck(), Deadline(5))
        assert house.rest_of(admin) == b""
    with house.lens(looking(token.encode())) as lens:
        assert house.press() == b""
    assert not lens.embeds()
    said = capsys.readouterr().err
    assert "epoch's key was destroyed" in said
    assert "Traceback" not in said


# The end.


def _is_over(house: House) -> None:
    wait_for(house.service._over.is_set)
    assert key_files(house) == set()
    epochs = house.service._vaulted.epochs
    assert not any(epochs.index_key)
    wait_for(lambda: "stopped" in house.events())
    assert "decommissioned" in house.events()
    written = Journal(house.settings.zone_state("vault") / "journal.jsonl", sync=False)
    with pytest.raises(Decommissioned, match="to begin as a new device"):
        VaultService(house.settings, written)
    written.close()


def test_decommissioning_destroys_the_keys_and_ends_vault(house: House) -> None:
    house.enrol()
    assert house.command(Decommission()) == Done()
    _is_over(house)


def test_tampering_does_so_by_one_word_of_doors(house: House) -> None:
    house.enrol()
    assert house.press(b"\x03" + DESTROY) == b"\x00"
    _is_over(house)


@pytest.mark.parametrize(
    "request_", [b"\x03", b"\x03" + DESTROY[:-1], b"\x03" + DESTROY + b".", b"\x01" + DESTROY]
)
def test_no_other_word_of_doors_destroys_anything(house: House, request_: bytes) -> None:
    with house.lens(before_the_lens()):
        assert house.press(request_) in {b"", b"\x00"}
    assert key_files(house) == {"root.key", "epoch-1.key"}
    assert house.state().instance


def test_no_torn_command_of_admins_destroys_anything(house: House) -> None:
    for torn in (b"\x27\x00\x00", b"\x27\x00\x10" + bytes(16), b"\x27\x00\x10" + DESTROY[:-1] + b"?"):
        with house.open("admin") as admin:
            admin.sendall(torn)
            assert house.rest_of(admin) == b""
    assert key_files(house) == {"root.key", "epoch-1.key"}


def test_an_enrolment_under_way_ends_with_the_keys_and_stores_nothing(house: House) -> None:
    with house.open("admin") as admin:
        send_message(admin, opening(ClaimKind.TOKEN), Deadline(5))
        wait_for(lambda: house.state().window == 1)
        assert house.command(Decommission()) == Done()
        assert isinstance(read_message(admin, VAULT_TO_ADMIN, Deadline(5)), Refused)
    assert house.service._vaulted.store.count() == 0


def test_keys_that_resist_are_said_to(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def resist() -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(house.service._commands, "_destroy", resist)
    assert house.command(Decommission()) == Refused(Refusal.STORAGE)
    # A vault without keys must seal nothing any more, whatever is left on the disk.
    wait_for(house.service._over.is_set)


def test_a_journal_that_takes_no_line_keeps_no_key_and_no_vault(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def note(self, event: Event) -> None:
            raise JournalError(f"{event} cannot be written: free some space")

    monkeypatch.setattr(house.service._commands, "_journal", Full())
    with house.open("admin") as admin:
        send_message(admin, Decommission(), Deadline(5))
        house.rest_of(admin)
    wait_for(house.service._over.is_set)
    assert key_files(house) == set()


# Limits.


def test_a_match_that_door_did_not_wait_for_is_no_failure(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = house.enrol()

    def gone(_connection: object, answer: Answer) -> None:
        assert answer is Answer.MATCH
        raise Late("door is gone")

    monkeypatch.setattr(services, "write_answer", gone)
    with house.lens(looking(token.encode(), seen(1))):
        assert house.press() == b""
    with house.service._vaulted.store.transaction() as db:
        assert db.execute("SELECT sum(count) FROM failure").fetchone() == (0,)


def test_the_limits_survive_a_restart(short_folder: Path) -> None:
    settings = settings_in(short_folder)
    with running(settings) as house:
        token = house.enrol()
        code, handle = token.encode(), token.handle
        with house.lens(looking(code, *WRONG_FACES)) as lens:
            for _ in range(3):
                assert house.press() == b"\x00"
            assert len(lens.embeds()) == 3
    with running(settings) as house:
        assert house.command(Lease(handle, 3600)) == Done()
        with house.lens(looking(code)) as lens:
            assert house.press() == b"\x00"
        assert not lens.embeds()


def test_a_match_ends_the_wait_that_was_coming(house: House) -> None:
    token = house.enrol()
    code = token.encode()
    for _ in range(3):
        for _ in range(2):
            with house.lens(looking(code, *WRONG_FACES)):
                assert house.press() == b"\x00"
        with house.lens(looking(code, seen(1))):
            assert house.press() == b"\x01"
        # After the answer, so that the door does not wait for it.
        wait_for(lambda: house.service._vaulted.limits._charged is None)


# Time.


def test_expired_records_are_erased_by_themselves_a_day_after_their_end(house: House) -> None:
    now = SimulatedTime()
    house.at(now)
    expiring, staying = house.enrol(1), house.enrol(2)
    vaulted = house.service._vaulted
    ends = EARLIEST + 11 * DAY
    with vaulted.store.transaction() as db:
        db.execute("UPDATE record SET expires_at = ? WHERE handle = ?", (ends, expiring.handle))
    _look(house)
    assert house.state().records == 2
    now.pass_by(DAY + 1)
    with house.lens(looking(expiring.encode())) as lens:
        assert house.press() == b"\x00", "refused from its end on"
    assert not lens.embeds()
    _look(house)
    assert house.state().records == 2
    now.pass_by(DAY + 1)
    _look(house)
    wait_for(lambda: house.state().records == 1)
    assert vaulted.store.exists(staying.handle)
    # One for the erasure, and one a day.
    assert vaulted.epochs.current.epoch >= 2
    assert {"expired", "erased"} <= set(house.events())


def _look(house: House) -> None:
    """Have vault look for the expired, and wait until it has."""
    house.service._look_for_the_expired = Deadline(0)
    wait_for(lambda: not house.service._look_for_the_expired.passed)
    time.sleep(0.3)


@pytest.mark.parametrize("years", [-1, 10])
def test_a_clock_that_jumps_is_said_and_costs_nobody_a_template(
    house: House, capsys: pytest.CaptureFixture[str], years: int
) -> None:
    now = SimulatedTime()
    house.at(now)
    always, valid = house.enrol(1), house.enrol(2)
    until = EARLIEST + 900 * DAY
    assert house.command(SetRights(valid.handle, Rights(None, until, ()).encode())) == Done()
    _look(house)
    now.pass_by(60)
    now.wrong = years * 365 * DAY
    house.service._look_at_the_clock = Deadline(0)
    _look(house)
    said = capsys.readouterr().err
    assert said.count("the clock is") == 1
    assert "timedatectl" in said
    for _ in range(3):
        now.pass_by(DAY)
        _look(house)
    assert house.state().records == 2
    with house.lens(looking(always.encode(), seen(1))):
        assert house.press() == b"\x01"
    now.wrong = 0
    house.service._look_at_the_clock = Deadline(0)
    _look(house)
    assert "trusted again" in capsys.readouterr().err
    with house.lens(looking(valid.encode(), seen(2))):
        assert house.press() == b"\x01"


def test_who_expired_stays_expired_when_the_clock_goes_back_a_year(house: House) -> None:
    now = SimulatedTime()
    house.at(now)
    token = house.enrol(1)
    with house.service._vaulted.store.transaction() as db:
        db.execute("UPDATE record SET expires_at = ?", (EARLIEST + 11 * DAY,))
    now.pass_by(2 * DAY)
    now.synchronised = True
    for wrong in (0, -365 * DAY):
        now.wrong = wrong
        with house.lens(looking(token.encode())) as lens:
            assert house.press() == b"\x00"
        assert not lens.embeds()
        # And after a restart at that time.
        house.at(now)
