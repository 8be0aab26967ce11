"""One attempt in vault, against a scripted lens on a real socket."""

import math
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path

import pytest

from appliance.link.claims import of_card, of_number
from appliance.link.messages import (
    CameraOpen,
    CodeRead,
    Embed,
    Finish,
    Guidance,
    Hint,
    LensFailed,
    LensTrouble,
    Look,
    Probe,
)
from appliance.link.sockets import Deadline, LinkError, Malformed
from appliance.rights import Rights
from appliance.settings import Recognition
from appliance.vault.attempt import CLOSING_MARGIN, verify
from appliance.vault.claims import Claimed, Vaulted
from appliance.vault.clock import DAY, EARLIEST
from appliance.vault.credentials import Credential
from appliance.vault.limits import claim_key
from appliance.vault.look import SLEPT, DoorGone, LensGone, LensLook
from appliance.vault.protection import Opened
from appliance.vault.token import Token
from tests.vault.faces import DECIDER, RECOGNITION, enrol, enrol_for, enrol_on_token, face, seen, vault_in
from tests.vault.scripted_lens import ScriptedLens, lens_at, looking

Script = Callable[[ScriptedLens], None]
CARD = of_card(128, (1 << 127) + 4711)
PIN = of_number("1234", "987654")
"""The brake of a PIN takes its time on a machine that is busy."""
NONSENSE = b"\xff" * 2048
WRONG_FACES = (seen(2), seen(3), seen(4))


@dataclass
class Outcome:
    """What came of an attempt: the handle that matched, what was said, and when it was over."""

    handle: bytes | None = None
    said: list[Guidance] = field(default_factory=list)
    over_at: float = 0.0


@contextmanager
def door() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of the decision channel after the request: door has half-closed."""
    vaults_end, doors_end = socket.socketpair()
    with vaults_end, doors_end:
        doors_end.shutdown(socket.SHUT_WR)
        yield vaults_end, doors_end


def attempt(
    folder: Path,
    vaulted: Vaulted,
    lens: Script,
    *,
    me: frozenset[int],
    during: Callable[[ScriptedLens, socket.socket], None] | None = None,
    presented: bytearray | None = None,
    settings: Recognition = RECOGNITION,
) -> tuple[Outcome, ScriptedLens]:
    """Verify whoever stands before this lens; `during` runs beside it, with door's end of the channel."""
    outcome = Outcome()
    path = folder / "look.sock"
    with lens_at(path, lens) as scripted, door() as (vaults_end, doors_end):
        beside = threading.Thread(target=during, args=(scripted, doors_end)) if during else None
        if beside:
            beside.start()
        whole = Deadline(settings.attempt_time)
        try:
            with LensLook(path, me, vaults_end, whole) as look:
                outcome.handle = verify(
                    look, vaulted, DECIDER, settings, outcome.said.append, whole, presented
                )
                outcome.over_at = time.monotonic()
                assert not scripted.camera_open, "the decision came before the camera was closed"
        finally:
            if beside:
                beside.join()
    return outcome, scripted


def test_the_face_of_the_token_matches_at_once_and_the_camera_is_closed_before(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))
    outcome, lens = attempt(short_folder, vaulted, looking(token.encode(), seen(1)), me=me)
    assert outcome.handle == token.handle
    assert outcome.said == [Guidance.SHOW_TOKEN, Guidance.LOOK_HERE]
    assert outcome.over_at - lens.times["CodeRead"] < RECOGNITION.answer_time / 2
    assert lens.times["CameraClosed"] <= outcome.over_at
    assert vaulted.store.records_read == 1
    assert [type(message) for message in lens.heard] == [Look, Embed, Finish]
    assert lens.embeds() == [Embed(RECOGNITION.probes, 0)]


def test_a_good_third_frame_is_enough(short_folder: Path, vaulted: Vaulted, me: frozenset[int]) -> None:
    token = enrol(vaulted, face(1))
    script = looking(token.encode(), seen(2), seen(3), seen(1))
    outcome, _ = attempt(short_folder, vaulted, script, me=me)
    assert outcome.handle == token.handle


def test_a_fourth_frame_is_never_compared(short_folder: Path, vaulted: Vaulted, me: frozenset[int]) -> None:
    token = enrol(vaulted, face(1))

    def pushy(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.hear(Embed)
        lens.say(*(Probe(each) for each in (*WRONG_FACES, seen(1), seen(1))))
        lens.close_camera_when_asked()

    outcome, _ = attempt(short_folder, vaulted, pushy, me=me)
    assert outcome.handle is None


@pytest.fixture
def refused(vaulted: Vaulted) -> dict[str, tuple[Script, bool]]:
    """Every way to be refused after a token was read, and whether the claim opened."""
    stranger = enrol(vaulted, face(1))
    no_ground = enrol(vaulted, face(1), lease=0)
    erased = enrol(vaulted, face(1))
    vaulted.erase(erased.handle)
    other_pack = enrol(vaulted, face(1), pack=b"p" * 32)
    nonsense = enrol(vaulted, face(1))
    slow = enrol(vaulted, face(1))
    unknown = Token.create(secrets.token_bytes(16))
    expired, late, too_early = (enrol(vaulted, face(1)) for _ in range(3))
    with vaulted.store.transaction() as db:
        db.execute("UPDATE record SET expires_at = 1 WHERE handle = ?", (expired.handle,))
    vaulted.set_rights(late.handle, Rights(None, EARLIEST, ()).encode())
    vaulted.set_rights(too_early.handle, Rights(EARLIEST + 36500 * DAY, None, ()).encode())
    limited = enrol(vaulted, face(1))
    for _ in range(3):
        vaulted.limits.charge(limited.handle)
    not_served = enrol_on_token(vaulted, face(1))
    with vaulted.store.transaction() as db:
        db.execute("UPDATE record SET tier = 3 WHERE handle = ?", (not_served.handle,))

    def without_embedding(code: bytes | bytearray) -> Script:
        return looking(code)

    def silent(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(slow.encode())
        lens.hear(Embed)
        lens.close_camera_when_asked()

    return {
        "another face": (looking(stranger.encode(), *WRONG_FACES), True),
        "no face in the picture": (silent, True),
        "numbers that are no face": (looking(nonsense.encode(), NONSENSE), True),
        "unknown claim": (without_embedding(unknown.encode()), False),
        "wrong secret": (without_embedding(Token(stranger.handle, bytearray(16)).encode()), False),
        "no ground": (without_embedding(no_ground.encode()), False),
        "erased": (without_embedding(erased.encode()), False),
        "another pack": (without_embedding(other_pack.encode()), False),
        "expired": (without_embedding(expired.encode()), False),
        "no longer valid": (without_embedding(late.encode()), False),
        "not valid yet": (without_embedding(too_early.encode()), False),
        "limited": (without_embedding(limited.encode()), False),
        "a tier that is not served": (without_embedding(not_served.encode()), False),
    }


def test_no_refusal_tells_by_its_time_or_its_words_what_its_reason_was(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int], refused: dict[str, tuple[Script, bool]]
) -> None:
    took: dict[str, float] = {}
    for reason, (script, opens) in refused.items():
        outcome, lens = attempt(short_folder, vaulted, script, me=me)
        assert outcome.handle is None, reason
        assert outcome.said == [Guidance.SHOW_TOKEN, Guidance.LOOK_HERE, Guidance.USE_BADGE], reason
        # Without a current ground no face may be embedded: that alone would be biometric processing.
        assert bool(lens.embeds()) is opens, reason
        took[reason] = outcome.over_at - lens.times["CodeRead"]
        assert lens.times["CameraClosed"] < outcome.over_at
        # The camera's lamp tells no more than the answer: it too goes out at one time.
        closing = lens.times["heard Finish"] - lens.times["CodeRead"]
        assert closing == pytest.approx(RECOGNITION.answer_time - CLOSING_MARGIN, abs=0.15), reason
    assert all(
        RECOGNITION.answer_time - 0.05 < each < RECOGNITION.answer_time + 0.25 for each in took.values()
    ), took
    assert max(took.values()) - min(took.values()) < 0.2, took


def shows_a_face(*embeddings: bytes) -> Script:
    """A lens that reads no code: the claim came with the press."""

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        if embeddings:
            lens.show_faces(*embeddings)
        lens.close_camera_when_asked()

    return script


BRAKED = RECOGNITION.model_copy(update={"answer_time": 2.5, "attempt_time": 6.0})
"""A PIN takes its time."""


@pytest.fixture
def cards(tmp_path: Path) -> Iterator[Vaulted]:
    with vault_in(
        tmp_path,
        claims=["card", "number"],
        card_protection="read with a key of ours",
        tier=3,
        justification="nobody can hold up a token here",
        answer_time=2.5,
    ) as vaulted:
        yield vaulted


def test_a_card_or_a_number_that_came_with_the_press_needs_no_code(
    short_folder: Path, cards: Vaulted, me: frozenset[int]
) -> None:
    for wire in (CARD, PIN):
        handle = enrol_for(cards, face(1), wire)
        presented = bytearray(wire)
        outcome, lens = attempt(
            short_folder, cards, shows_a_face(seen(1)), me=me, presented=presented, settings=BRAKED
        )
        assert outcome.handle == handle
        assert outcome.said == [Guidance.LOOK_HERE]
        assert not any(presented)
        assert lens.embeds() == [Embed(RECOGNITION.probes, 0)]


@pytest.mark.full
def test_no_refusal_of_a_card_or_number_tells_its_reason_by_its_time_or_its_words(
    short_folder: Path, cards: Vaulted, me: frozenset[int]
) -> None:
    for enrolled in (CARD, PIN):
        enrol_for(cards, face(1), enrolled)
    no_ground = of_number("5", "5555")
    cards.leases.end(enrol_for(cards, face(1), no_ground))
    limited = of_card(99, 5)
    handle = enrol_for(cards, face(1), limited)
    for _ in range(3):
        cards.limits.charge(handle)
    refusals: dict[str, tuple[bytes | bytearray, tuple[bytes, ...]]] = {
        "another face, card": (CARD, WRONG_FACES),
        "another face, number": (PIN, WRONG_FACES),
        "wrong PIN": (of_number("1234", "0000"), ()),
        "unknown number": (of_number("4321", "987654"), ()),
        "unknown card": (of_card(96, 1), ()),
        "no ground": (no_ground, ()),
        "limited": (limited, ()),
        "garbage": (b"\xff" * 64, ()),
        "one byte": (b"\x00", ()),
        "half a card": (CARD[:9], ()),
    }
    took: dict[str, float] = {}
    for reason, (wire, faces) in refusals.items():
        presented = bytearray(wire)
        outcome, lens = attempt(
            short_folder, cards, shows_a_face(*faces), me=me, presented=presented, settings=BRAKED
        )
        assert outcome.handle is None, reason
        assert outcome.said == [Guidance.LOOK_HERE, Guidance.USE_BADGE], reason
        assert bool(lens.embeds()) is bool(faces), reason
        assert not any(presented), reason
        took[reason] = outcome.over_at - lens.times["CameraOpen"]
    assert all(BRAKED.answer_time - 0.05 < each < BRAKED.answer_time + 0.25 for each in took.values()), took
    assert max(took.values()) - min(took.values()) < 0.2, took


def test_a_token_is_read_where_nothing_came_with_the_press(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))
    outcome, _ = attempt(
        short_folder, vaulted, looking(token.encode(), seen(1)), me=me, presented=bytearray()
    )
    assert outcome.handle == token.handle


def test_a_failed_attempt_counts_and_one_without_a_face_does_not(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))

    def nobody(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.hear(Embed)
        lens.close_camera_when_asked()

    def goes_away(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.hear(Embed)
        lens.camera_open = False
        lens.connection.close()

    for script in (nobody, goes_away):
        attempt(short_folder, vaulted, script, me=me)
        assert _failures(vaulted, token) == 0
    for faces in (WRONG_FACES, (NONSENSE,), WRONG_FACES):
        attempt(short_folder, vaulted, looking(token.encode(), *faces), me=me)
    assert _failures(vaulted, token) == 3
    outcome, lens = attempt(short_folder, vaulted, looking(token.encode()), me=me)
    assert outcome.handle is None
    assert not lens.embeds(), "a limited claim compares nothing"


def _failures(vaulted: Vaulted, token: Token) -> int:
    with vaulted.store.transaction() as db:
        key = claim_key(vaulted.epochs.index_key, token.handle)
        (count,) = db.execute(
            "SELECT coalesce(sum(count), 0) FROM failure WHERE claim = ?", (key,)
        ).fetchone()
    return int(count)


def test_a_full_disk_compares_nothing_and_is_a_refusal_at_its_time(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int], capsys: pytest.CaptureFixture[str]
) -> None:
    """What cannot be counted must not be tried."""
    token = enrol(vaulted, face(1))
    vaulted.store._db.execute("PRAGMA query_only = ON")
    outcome, lens = attempt(short_folder, vaulted, looking(token.encode()), me=me)
    assert outcome.handle is None
    assert outcome.said[-1] is Guidance.USE_BADGE
    assert not lens.embeds()
    took = outcome.over_at - lens.times["CodeRead"]
    assert RECOGNITION.answer_time - 0.05 < took < RECOGNITION.answer_time + 0.25
    assert "vault.db cannot be written" in capsys.readouterr().err


def test_a_poster_is_passed_over_and_the_token_after_it_is_taken(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(b"https://example.org/")
        lens.show(b"\xd2" + bytes(34))
        lens.show(token.encode())
        lens.show_faces(seen(1))
        lens.close_camera_when_asked()

    outcome, _ = attempt(short_folder, vaulted, script, me=me)
    assert outcome.handle == token.handle


def test_who_shows_no_token_is_pointed_to_the_badge_while_there_is_time_and_nothing_is_embedded(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.close_camera_when_asked()

    began = time.monotonic()
    outcome, lens = attempt(short_folder, vaulted, script, me=me)
    assert outcome.handle is None
    assert outcome.said == [Guidance.SHOW_TOKEN, Guidance.USE_BADGE]
    assert not lens.embeds()
    waited = RECOGNITION.attempt_time - RECOGNITION.answer_time
    assert waited - 0.05 < outcome.over_at - began < waited + 0.5


def test_a_second_token_in_one_attempt_claims_nothing(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    first, second = enrol(vaulted, face(1)), enrol(vaulted, face(2))

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(first.encode())
        lens.hear(Embed)
        lens.say(CodeRead(second.encode()), Probe(seen(2)))
        lens.close_camera_when_asked()

    outcome, _ = attempt(short_folder, vaulted, script, me=me)
    assert outcome.handle is None
    assert vaulted.store.records_read == 1


class Remembering(Vaulted):
    """A vault whose opened templates the test can look at afterwards."""

    opened: list[Opened] = []  # noqa: RUF012 - a test's own list, cleared by it

    def open(self, claim: Token | Credential) -> Claimed | None:
        claimed = super().open(claim)
        if claimed is not None:
            assert claimed.record._template.any()
            self.opened.append(claimed.record)
        return claimed


@pytest.mark.parametrize(
    "faces", [(seen(1),), WRONG_FACES, (NONSENSE,)], ids=["match", "no match", "nonsense"]
)
def test_the_template_is_overwritten_after_the_comparison_however_it_ends(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int], faces: tuple[bytes, ...]
) -> None:
    token = enrol(vaulted, face(1))
    Remembering.opened.clear()
    parts = {each.name: getattr(vaulted, each.name) for each in fields(Vaulted)}
    remembering = Remembering(**parts)
    attempt(short_folder, remembering, looking(token.encode(), *faces), me=me)
    (record,) = Remembering.opened
    assert not record._template.any()


def test_a_lens_that_dies_midway_is_a_refusal_like_every_other(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))

    def dies(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.hear(Embed)
        lens.camera_open = False
        lens.connection.close()

    outcome, lens = attempt(short_folder, vaulted, dies, me=me)
    assert outcome.handle is None
    assert outcome.said[-1] is Guidance.USE_BADGE
    took = outcome.over_at - lens.times["CodeRead"]
    assert RECOGNITION.answer_time - 0.05 < took < RECOGNITION.answer_time + 0.25


def test_a_match_whose_camera_was_never_closed_is_no_match(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))

    def dies_at_the_end(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.show_faces(seen(1))
        lens.hear(Finish)
        lens.camera_open = False
        lens.connection.close()

    outcome, _ = attempt(short_folder, vaulted, dies_at_the_end, me=me)
    assert outcome.handle is None


def test_a_lens_that_does_not_close_its_camera_is_not_waited_for_without_end(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))

    def stuck(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.show_faces(seen(1))
        lens.hear(Finish)
        # The test's own watch on the camera looks away: it stays open for good.
        lens.camera_open = False

    began = time.monotonic()
    outcome, _ = attempt(short_folder, vaulted, stuck, me=me)
    assert outcome.handle is None
    assert time.monotonic() - began < 4


@pytest.mark.parametrize("trouble", LensTrouble)
def test_a_lens_in_trouble_ends_the_attempt(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int], trouble: LensTrouble
) -> None:
    def script(lens: ScriptedLens) -> None:
        lens.hear(Look)
        lens.say(LensFailed(trouble))

    with pytest.raises(LensGone, match=trouble.name.lower().replace("_", " ")):
        attempt(short_folder, vaulted, script, me=me)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\x13\x08\x04" + bytes(0x804),
        b"\x30\x00\x00",
        b"\x01\x00\x00",
        b"\x12\x00\x00",
        b"\x12\x01\x91" + bytes(0x191),
        b"\x14\x00\x01\xff",
        b"\xff" * 100,
    ],
    ids=repr,
)
def test_a_lens_that_speaks_anything_else_ends_the_attempt(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int], hostile: bytes
) -> None:
    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.connection.sendall(hostile)

    with pytest.raises(Malformed):
        attempt(short_folder, vaulted, script, me=me)


def test_a_lens_that_opens_with_a_face_is_not_believed(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    def script(lens: ScriptedLens) -> None:
        lens.hear(Look)
        lens.say(Probe(seen(1)))

    with pytest.raises(Malformed, match="did not open its camera"):
        attempt(short_folder, vaulted, script, me=me)


def test_probes_before_the_claim_opens_are_never_compared(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    token = enrol(vaulted, face(1))

    def eager(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.say(Probe(seen(1)), Probe(seen(1)))
        lens.show(token.encode())
        lens.show_faces(*WRONG_FACES)
        lens.close_camera_when_asked()

    outcome, _ = attempt(short_folder, vaulted, eager, me=me)
    assert outcome.handle is None


def test_hints_in_a_verification_reach_nobody(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int]
) -> None:
    """Advice about a face would tell a claim that opened from one that did not."""
    token = enrol(vaulted, face(1))

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.say(Hint(Guidance.COME_CLOSER), Hint(Guidance.CAPTURED), CameraOpen())
        lens.show_faces(seen(1))
        lens.close_camera_when_asked()

    outcome, _ = attempt(short_folder, vaulted, script, me=me)
    assert outcome.handle == token.handle
    assert outcome.said == [Guidance.SHOW_TOKEN, Guidance.LOOK_HERE]


@pytest.mark.parametrize("when", ["before a token", "before a face", "while a refusal waits"])
def test_a_door_that_hangs_up_ends_the_look_at_once(
    short_folder: Path, vaulted: Vaulted, me: frozenset[int], when: str
) -> None:
    known, unknown = enrol(vaulted, face(1)), Token.create(bytes(16))
    ready = threading.Event()

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        if when == "before a face":
            lens.show(known.encode())
            lens.hear(Embed)
        elif when == "while a refusal waits":
            lens.show(unknown.encode())
        ready.set()

    hung_up_at: list[float] = []

    def hang_up(lens: ScriptedLens, doors_end: socket.socket) -> None:
        ready.wait(5)
        time.sleep(0.1)
        hung_up_at.append(time.monotonic())
        doors_end.close()
        # The lens sees the end of the look, and closes its camera.
        assert lens.hung_up.wait(1)

    with pytest.raises(DoorGone):
        attempt(short_folder, vaulted, script, me=me, during=hang_up)
    assert time.monotonic() - hung_up_at[0] < 0.7


def test_a_pause_polls_until_shortly_before_its_end_and_sleeps_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A poll counts whole milliseconds from its own begin, and its end would tell when that was."""
    whole = Deadline(0.05)
    ends: list[float] = []

    def poll(_: LensLook, deadline: Deadline) -> None:
        ends.append(whole.remaining - deadline.remaining)
        time.sleep(math.ceil(1000 * deadline.remaining) / 1000)

    monkeypatch.setattr(LensLook, "next", poll)
    with door() as (vaults_end, _):
        LensLook(Path("/none"), frozenset(), vaults_end, whole).pause(whole)
    assert whole.passed
    assert ends
    assert all(SLEPT - 0.001 < each < SLEPT + 0.001 for each in ends)


def test_a_lens_of_another_user_is_asked_nothing(short_folder: Path, vaulted: Vaulted) -> None:
    def script(lens: ScriptedLens) -> None:
        with pytest.raises(LinkError):
            lens.hear()

    with pytest.raises(LinkError, match="may not speak here"):
        attempt(short_folder, vaulted, script, me=frozenset({54321}))
