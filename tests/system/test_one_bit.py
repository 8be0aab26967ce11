"""Every byte that vault sends to door, over fifty attempts of every kind."""

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.link.messages import (
    Guidance,
    Guide,
)
from appliance.vault.token import Token
from tests.system.house import NAME, House, eventually, side_by_side
from tests.system.tap import Tap

pytestmark = [pytest.mark.models, pytest.mark.timeout(600)]

REFUSED = ("no match", "no face", "two faces", "unknown token", "wrong secret")


class Attempts:
    """Makes attempts of each kind, and keeps what vault said in each."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.decisions: dict[str, list[bytes]] = {}
        self.guidance: dict[str, list[bytes]] = {}
        self.opened: Counter[str] = Counter()
        self.two = side_by_side(
            house.portraits["obama2.jpg"], house.portraits["biden.jpg"], house.door.state / "2.png"
        )
        self._tap()

    def _tap(self) -> None:
        settings = self.house.door.settings
        self._decision = Tap(settings.socket("vault/decision"))
        self._guidance = Tap(settings.socket("vault/guidance"))

    def untap(self) -> None:
        """Give the listeners their names back."""
        self._decision.close()
        self._guidance.close()

    def make(self, kind: str, act: Callable[[], None]) -> None:
        house = self.house
        house.wait_locked()
        before = len(self._decision.heard), len(self._guidance.heard)
        since = house.press()
        act()
        house.wait_locked()
        # What a late vault still has to say, it says now.
        time.sleep(0.3)
        self.decisions.setdefault(kind, []).extend(
            bytes(heard) for heard in self._decision.heard[before[0] :]
        )
        self.guidance.setdefault(kind, []).extend(bytes(heard) for heard in self._guidance.heard[before[1] :])
        self.opened[kind] += len(house.opened(since))

    def press_again(self) -> None:
        self.house.wait_attempt()
        self.house.press()

    def kill_midway(self) -> None:
        self.house.wait_attempt()
        time.sleep(0.3)
        self.house.door.kill("vault")

    def come_back(self) -> None:
        self.house.door.wait_ready(["vault"])
        self.untap()
        self._tap()
        eventually(lambda: self.house.api.call("GET", "/status")["vault"]["leases"] == 1)

    def answer_late(self) -> None:
        """Vault stops for as long as door waits, then says what it was about to say."""
        self.house.wait_attempt()
        vault = self.house.door.pid("vault")
        os.kill(vault, signal.SIGSTOP)
        try:
            self.house.wait_locked()
        finally:
            os.kill(vault, signal.SIGCONT)
        time.sleep(1.0)


def other_token(house: House, kind: str) -> bytes:
    token = Token.decode(house.token)
    if kind == "unknown token":
        return bytes(Token.create(os.urandom(16)).encode())
    if kind == "wrong secret":
        return bytes(Token.create(token.handle).encode())
    damaged = bytearray(house.token)
    damaged[20] ^= 0x10
    return bytes(damaged)


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.full)])
def test_in_ten_or_fifty_attempts_vault_says_one_byte_or_nothing(house: House, rounds: int) -> None:
    attempts = Attempts(house)
    try:
        make_all(attempts, house, rounds)
    finally:
        attempts.untap()


def make_all(attempts: Attempts, house: House, rounds: int) -> None:
    right, wrong = house.portraits["obama2.jpg"], house.portraits["biden.jpg"]

    def nothing() -> None:
        """Just wait for the answer."""

    for _ in range(rounds):
        for kind, picture in (
            ("match", right),
            ("no match", wrong),
            ("no face", None),
            ("two faces", attempts.two),
        ):
            house.show(picture)
            attempts.make(kind, nothing)
        for kind in ("unknown token", "wrong secret", "damaged token"):
            house.show(right, token=other_token(house, kind))
            attempts.make(kind, nothing)
        house.show(right)
        attempts.make("second press", attempts.press_again)
        attempts.make("killed midway", attempts.kill_midway)
        attempts.come_back()
        house.show(right)
        attempts.make("late answer", attempts.answer_late)

    made = {kind: len(answers) for kind, answers in attempts.decisions.items()}
    print(made, dict(attempts.opened))
    assert sum(made.values()) == 10 * rounds, "one connection an attempt, and a second press makes none"
    for kind, answers in attempts.decisions.items():
        for answer in answers:
            assert answer in {b"\x00", b"\x01", b""}, kind
    assert attempts.decisions["match"] == [b"\x01"] * rounds
    assert attempts.decisions["second press"] == [b"\x01"] * rounds
    assert attempts.decisions["killed midway"] == [b""] * rounds
    for kind in (*REFUSED, "damaged token"):
        assert attempts.decisions[kind] == [b"\x00"] * rounds, kind
    assert attempts.opened == Counter({"match": rounds, "second press": rounds}), "only those"
    guidance_says_nothing_of_who(attempts)


def guidance_says_nothing_of_who(attempts: Attempts) -> None:
    said = {kind: [parse(each) for each in all_of_kind] for kind, all_of_kind in attempts.guidance.items()}
    print({kind: {tuple(g.name for g in each) for each in all_of_kind} for kind, all_of_kind in said.items()})
    refused = {tuple(each) for kind in REFUSED for each in said[kind]}
    assert refused == {(Guidance.SHOW_TOKEN, Guidance.LOOK_HERE, Guidance.USE_BADGE)}, (
        "the same, whatever the reason"
    )
    everything = b"".join(each for all_of_kind in attempts.guidance.values() for each in all_of_kind)
    token = Token.decode(attempts.house.token)
    for secret in (NAME.encode(), token.handle, bytes(token.secret), token.handle[:4]):
        assert secret not in everything


def parse(data: bytes) -> list[Guidance]:
    """The guidance in a stream, which holds nothing else; a killed vault may leave a torn end."""
    size = len(Guide(Guidance.DONE).encode())
    said = []
    for start in range(0, len(data) - size + 1, size):
        message = data[start : start + size]
        guidance = Guidance(message[-1])
        assert message == Guide(guidance).encode()
        said.append(guidance)
    return said


def test_no_face_is_embedded_for_a_claim_that_does_not_open(house: House) -> None:
    journal = house.door.state / "lens" / "journal.jsonl"

    def embeddings() -> list[int]:
        return [
            line.get("details", {}).get("embeddings")
            for line in lines(journal)
            if line["event"] == "camera closed"
        ]

    for kind in ("unknown token", "wrong secret", "damaged token"):
        house.wait_locked()
        looks = len(embeddings())
        house.show(house.portraits["obama2.jpg"], token=other_token(house, kind))
        house.press()
        house.wait_locked()
        eventually(lambda: len(embeddings()) > looks)  # noqa: B023 - called at once
        assert embeddings()[looks:] == [0], kind
    looks = len(embeddings())
    house.show(house.portraits["obama2.jpg"])
    house.press()
    house.wait_locked()
    eventually(lambda: len(embeddings()) > looks)
    assert embeddings()[looks] >= 1, "the counter counts"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
