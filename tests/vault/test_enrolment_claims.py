"""Enrolment windows for a card, or a number and PIN: what is shown with each press, and what it makes."""

import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.link.claims import of_card, of_number
from appliance.link.messages import ClaimKind, Embed, Guidance, Hint, OpenEnrolment, Probe, Progress, Refusal
from appliance.link.sockets import Deadline, LinkError
from appliance.vault.claims import Vaulted, read_credential
from appliance.vault.enrolment import Window, Windows, capture
from appliance.vault.look import LensLook
from tests.vault.faces import DECIDER, EDGE, RECOGNITION, enrol_for, face, seen, vault_in
from tests.vault.scripted_lens import ScriptedLens, lens_at

CARD = of_card(128, (1 << 127) + 4711)
OTHER_CARD = of_card(128, (1 << 127) + 4712)
PIN = of_number("1234", "987654")
EVERY_KIND: dict[str, Any] = {
    "tier": 3,
    "justification": "nobody can carry a card into this room",
    "claims": ["token", "card", "number"],
    "card_protection": "read with a key of ours",
    "answer_time": 2.5,
}
Script = Callable[[ScriptedLens], None]


@dataclass
class Bench:
    """One window, and what was said and reported of it."""

    folder: Path
    vaulted: Vaulted
    users: frozenset[int]
    windows: Windows = field(default_factory=Windows)
    said: list[Guidance] = field(default_factory=list)
    reports: list[Progress] = field(default_factory=list)

    def open(self, claim: ClaimKind, captures: int = 3) -> Window:
        request = OpenEnrolment(secrets.token_bytes(16), b"c" * 16, 3600, captures, 60, claim)
        window = Window(request, Deadline(60), self.reports.append)
        assert self.windows.open(window)
        return window

    def press(self, window: Window, presented: bytearray | None, *embeddings: bytes) -> ScriptedLens:
        return self.press_as(window, presented, facing(*embeddings))

    def press_as(self, window: Window, presented: bytearray | None, script: Script) -> ScriptedLens:
        ours, doors = socket.socketpair()
        path = self.folder / "look.sock"
        shown = None if presented is None else bytearray(presented)
        with lens_at(path, script) as lens, ours, doors:
            doors.shutdown(socket.SHUT_WR)
            whole = Deadline(2.0)
            with LensLook(path, self.users, ours, whole) as look:
                capture(look, self.windows, window, DECIDER, self.vaulted, self.said.append, whole, shown)
                assert not lens.camera_open
        assert not shown or not any(shown), "what door was shown is overwritten"
        return lens

    def opens_for(self, wire: bytearray, seed: int) -> bool:
        claimed = self.vaulted.open(read_credential(bytearray(wire), self.vaulted.epochs.index_key))
        if claimed is None:
            return False
        self.vaulted.limits.succeeded(claimed.handle)
        return claimed.record.score(face(seed), EDGE.mean) > 0.95


@pytest.fixture
def bench(short_folder: Path, tmp_path: Path, me: frozenset[int]) -> Iterator[Bench]:
    with vault_in(tmp_path, **EVERY_KIND) as vaulted:
        yield Bench(short_folder, vaulted, me)


def facing(*embeddings: bytes) -> Script:
    """A person who looks into the lens, where vault has it look for a face; the camera closes when asked."""

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        if embeddings:
            lens.hear(Embed)
            lens.say(*(Probe(embedding) for embedding in embeddings))
        lens.close_camera_when_asked()

    return script


@pytest.mark.parametrize(
    ("kind", "wire", "tier"), [(ClaimKind.CARD, CARD, 2), (ClaimKind.NUMBER, PIN, 3)], ids=["card", "number"]
)
def test_what_was_shown_with_the_press_opens_the_record_and_there_is_no_token(
    bench: Bench, kind: ClaimKind, wire: bytearray, tier: int
) -> None:
    window = bench.open(kind)
    bench.press(window, wire, seen(1, 0), seen(1, 1), seen(1, 2))
    assert (window.stored, window.token, window.credential, window.captures) == (True, None, None, [])
    record = bench.vaulted.store.read(window.request.handle)
    assert record is not None
    assert record.tier == tier
    assert bench.said[-1] is Guidance.DONE
    bench.vaulted.leases.grant(window.request.handle, 60)
    assert bench.opens_for(wire, 1)


@pytest.mark.parametrize("presented", [None, PIN, bytearray(b"?" * 30), bytearray(b"\xc1")])
def test_a_press_without_the_card_captures_nothing_and_asks_for_it(
    bench: Bench, presented: bytearray | None
) -> None:
    window = bench.open(ClaimKind.CARD)
    lens = bench.press(window, presented)
    assert bench.said == [Guidance.SHOW_TOKEN]
    assert not lens.embeds()
    assert not window.captures


def test_a_later_press_without_the_card_captures_nothing_either(bench: Bench) -> None:
    """Else the face of who presses next would be stored for the card of who pressed before."""
    window = bench.open(ClaimKind.CARD)
    bench.press(window, CARD, seen(1, 0), seen(1, 1))
    assert window.remaining == 1
    lens = bench.press(window, None)
    assert not lens.embeds()
    assert bench.said[-1] is Guidance.SHOW_TOKEN
    assert window.remaining == 1, "what was captured with the card stays"
    bench.press(window, CARD, seen(1, 2))
    assert window.stored


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        (ClaimKind.CARD, CARD, OTHER_CARD),
        (ClaimKind.NUMBER, PIN, of_number("1235", "987654")),
        (ClaimKind.NUMBER, PIN, of_number("1234", "111111")),
    ],
    ids=["card", "number", "pin"],
)
def test_another_card_number_or_pin_starts_the_captures_anew(
    bench: Bench, kind: ClaimKind, first: bytearray, second: bytearray
) -> None:
    window = bench.open(kind)
    bench.press(window, first, seen(1, 0), seen(1, 1))
    kept, shown = list(window.captures), window.credential
    assert shown is not None
    lens = bench.press(window, second, seen(1, 2), seen(1, 3), seen(1, 4))
    assert lens.embeds()[0] == Embed(3, 1)
    assert not any(capture.any() for capture in kept)
    assert not any(shown.value)
    assert window.stored
    bench.vaulted.leases.grant(window.request.handle, 60)
    assert not bench.opens_for(first, 1)
    assert bench.opens_for(second, 1)


def test_the_same_card_again_goes_on_with_the_captures(bench: Bench) -> None:
    window = bench.open(ClaimKind.CARD)
    bench.press(window, CARD, seen(1, 0))
    bench.press(window, CARD, seen(1, 1))
    bench.press(window, CARD, seen(1, 2))
    assert window.stored


@pytest.mark.parametrize(("kind", "wire"), [(ClaimKind.CARD, CARD), (ClaimKind.NUMBER, PIN)])
def test_a_card_or_number_that_somebody_has_is_refused_and_the_first_record_stays(
    bench: Bench, kind: ClaimKind, wire: bytearray
) -> None:
    first = enrol_for(bench.vaulted, face(7), wire)
    window = bench.open(kind, captures=1)
    bench.press(window, wire, seen(1))
    assert (window.stored, window.refusal) == (False, Refusal.CLAIM_TAKEN)
    assert window.credential is None
    assert Guidance.DONE not in bench.said
    assert bench.vaulted.store.count() == 1
    bench.vaulted.leases.grant(first, 60)
    assert bench.opens_for(wire, 7)


def test_a_card_in_a_window_for_a_token_is_overwritten_and_not_kept(bench: Bench) -> None:
    window = bench.open(ClaimKind.TOKEN, captures=1)
    bench.press(window, CARD, seen(1))
    assert window.token is not None
    record = bench.vaulted.store.read(window.request.handle)
    assert record is not None
    assert record.lookup is None


def test_what_was_shown_is_overwritten_when_the_window_closes(bench: Bench) -> None:
    window = bench.open(ClaimKind.CARD)
    bench.press(window, CARD, seen(1, 0))
    shown, captures = window.credential, list(window.captures)
    assert shown is not None
    bench.windows.close(window)
    assert window.credential is None
    assert not any(shown.value)
    assert not any(each.any() for each in captures)


def test_a_window_that_closes_as_lens_goes_away_keeps_no_card(bench: Bench) -> None:
    window = bench.open(ClaimKind.CARD)

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        window.finished.set()
        lens.say(Probe(seen(1)), Hint(Guidance.TOO_DARK))
        lens.camera_open = False
        lens.connection.close()

    with pytest.raises(LinkError):
        bench.press_as(window, CARD, script)
    assert (window.credential, window.captures) == (None, [])


def test_a_closed_window_has_nothing_embedded(bench: Bench) -> None:
    window = bench.open(ClaimKind.TOKEN)
    bench.windows.close(window)
    lens = bench.press(window, None)
    assert not lens.embeds()


def test_in_tier_1_the_token_has_the_template_and_the_device_has_not(
    short_folder: Path, tmp_path: Path, me: frozenset[int]
) -> None:
    with vault_in(tmp_path, tier=1) as vaulted:
        bench = Bench(short_folder, vaulted, me)
        window = bench.open(ClaimKind.TOKEN)
        bench.press(window, None, seen(1, 0), seen(1, 1), seen(1, 2))
        assert window.token is not None
        assert (window.token.tier, len(window.token.encode())) == (1, 323)
        record = vaulted.store.read(window.request.handle)
        assert record is not None
        assert (record.tier, record.sealed.body) == (1, b"")
        vaulted.leases.grant(window.request.handle, 60)
        claimed = vaulted.open(window.token)
        assert claimed is not None
        assert claimed.record.score(face(1), EDGE.mean) > 0.95


def test_a_template_lives_as_long_as_the_settings_say(bench: Bench) -> None:
    window = bench.open(ClaimKind.TOKEN, captures=1)
    bench.press(window, None, seen(1))
    record = bench.vaulted.store.read(window.request.handle)
    assert record is not None
    assert record.expires_at is not None
    lifetime = record.expires_at - bench.vaulted.clock.latest
    assert abs(lifetime - RECOGNITION.renew_after_days * 86_400) < 60
