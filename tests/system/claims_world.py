"""One vault before which claims of every kind are held up in random order, and what is seen of each.

The vault is the real process, on its real sockets; its lens plays embeddings from a script, its door is here.
"""

import os
import random
import secrets
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from appliance.link.framing import read_message, send_message
from appliance.link.messages import TO_DOOR_GUIDANCE, CameraClosed, Embed, Finish, Guidance, Guide, Probe
from appliance.link.sockets import Deadline, connect
from appliance.rights import ALWAYS, Rights, Window
from appliance.vault.claims import Vaulted
from appliance.vault.limits import Limits
from appliance.vault.opening import open_vault
from appliance.vault.protection import SHARED, seal
from appliance.vault.store import NEVER, Record
from appliance.vault.token import Token
from tests.system.bare_zones import BareZones, bare_zones
from tests.vault.faces import EDGE, face, seen, vault_of
from tests.vault.scripted_lens import ScriptedLens

ME = frozenset({os.geteuid()})
ASKED = ("unknown", "wrong secret", "another face")
"""The kinds of issue 5."""
OTHERS = ("expired", "out of hours", "limited", "no lease", "no face", "right face")
"""The other refusals; and `right face`, which is answered at once: a difference that must be seen."""
OPENED = frozenset({"another face", "no face", "right face"})
"""The kinds whose claim opens, and for which a face is embedded."""
MEASURES = ("closing", "guidance", "answer")
"""What is timed, from the moment the code is handed to vault: until lens is told to close the camera, until
door reads `USE_BADGE`, until door reads the one byte."""
ENTRY = 1
"""The face that is enrolled, by its seed."""


@dataclass
class Seen:
    """What was seen of one claim: seconds since its code was handed over, and all that vault said."""

    kind: str
    closing: float = 0.0
    guidance: float = 0.0
    answer: float = 0.0
    embeds: int = 0
    said: list[Guidance] = field(default_factory=list)
    byte: bytes = b""


def order(random: random.Random, counts: dict[str, int]) -> list[str]:
    """So many claims of each kind, in random order."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    random.shuffle(kinds)
    return kinds


def rights_of(kind: str, now: datetime) -> bytes:
    """What a record of a kind may: one that is out of hours has its hours three days from now."""
    if kind != "out of hours":
        return ALWAYS
    return Rights(hours=(Window((now + timedelta(days=3)).weekday(), 0, 60),)).encode()


def enrolled(vaulted: Vaulted, kinds: list[str]) -> list[Token]:
    """A record of its own for each claim, and what is held up for it; of an unknown one, no record."""
    tokens: list[Token] = []
    records: list[Record] = []
    spent = Limits(vaulted.store, vaulted.epochs.index_key, vaulted.clock, budget=1)
    now = datetime.now(UTC)
    for kind in kinds:
        token = Token.create(secrets.token_bytes(16))
        expires = int(now.timestamp()) - 60 if kind == "expired" else NEVER
        binding = vaulted.binding(token.handle, SHARED, None, rights_of(kind, now), expires)
        sealed = seal(face(ENTRY), EDGE.mean, token.secret, vaulted.epochs.current, binding)
        if kind != "unknown":
            records.append(
                Record(
                    token.handle,
                    SHARED,
                    vaulted.pack,
                    sealed,
                    rights=rights_of(kind, now),
                    expires_at=expires,
                )
            )
        if kind == "limited":
            # With a budget of one, one failure spends the year.
            spent.charge(token.handle)
        if kind == "wrong secret":
            token = Token(token.handle, bytearray(secrets.token_bytes(16)))
        tokens.append(token)
    vaulted.store.add_all(records)
    return tokens


def faces_of(kind: str) -> tuple[bytes, ...]:
    """What lens embeds where it is asked to."""
    if kind == "no face":
        return ()
    return tuple(seen(ENTRY if kind == "right face" else 2 + frame, frame) for frame in range(3))


@contextmanager
def world(kinds: list[str]) -> Iterator[tuple[BareZones, list[Token]]]:
    """A vault with a record for each of these claims, each with its lease; and their tokens."""
    state = Path(tempfile.mkdtemp(prefix="drempel-claims-"))
    try:
        (state / "vault").mkdir()
        store, epochs = open_vault(state / "vault")
        try:
            tokens = enrolled(vault_of(store, epochs), kinds)
        finally:
            store.close()
        with bare_zones(state, "vault") as zones:
            for kind, token in zip(kinds, tokens, strict=True):
                if kind not in {"unknown", "no lease"}:
                    assert zones.vouch(token.handle)
            yield zones, tokens
    finally:
        shutil.rmtree(state, ignore_errors=True)


def hold_up(zones: BareZones, kind: str, token: Token) -> Seen:
    """One press, at which a token is held up and a face is before the lens."""
    outcome, handed_over = Seen(kind), 0.0

    def script(lens: ScriptedLens) -> None:
        nonlocal handed_over
        lens.open_camera()
        code, left = token.encode(), list(faces_of(kind))
        handed_over = time.monotonic()
        lens.show(code)
        while isinstance(asked := lens.hear(Embed, Finish), Embed):
            outcome.embeds += 1
            lens.say(*(Probe(left.pop(0)) for _ in range(min(asked.probes, len(left)))))
        outcome.closing = time.monotonic()
        lens.camera_open = False
        send_message(lens.connection, CameraClosed(), Deadline(5))

    zones.scene = script
    with (
        connect(zones.settings.socket("vault/guidance"), ME, Deadline(5)) as guided,
        connect(zones.settings.socket("vault/decision"), ME, Deadline(5)) as door,
    ):
        door.sendall(b"\x01")
        door.shutdown(socket.SHUT_WR)
        _be_door(guided, door, outcome)
    for measure in MEASURES:
        setattr(outcome, measure, getattr(outcome, measure) - handed_over)
    return outcome


def _be_door(guided: socket.socket, door: socket.socket, outcome: Seen) -> None:
    """Read the guidance and the answer, each in the moment in which it comes, to the end of the attempt."""
    poll = select.poll()
    poll.register(guided, select.POLLIN)
    poll.register(door, select.POLLIN)
    deadline = Deadline(10)
    while True:
        assert not deadline.passed, "vault does not answer"
        ready = {file for file, _ in poll.poll(1000)}
        now = time.monotonic()
        if guided.fileno() in ready:
            message = read_message(guided, TO_DOOR_GUIDANCE, deadline)
            assert isinstance(message, Guide)
            outcome.said.append(message.guidance)
            outcome.guidance = now
        if door.fileno() in ready:
            door.settimeout(5)
            part = door.recv(8)
            if not part:
                return
            outcome.byte += part
            outcome.answer = now


def hold_up_all(counts: dict[str, int], seed: int, tell: Callable[[str], None]) -> list[Seen]:
    """Claims of every kind, each once, in random order; what was seen, in that order."""
    chance = random.Random(seed)
    kinds = order(chance, counts)
    outcomes = []
    with world(kinds) as (zones, tokens):
        for number, (kind, token) in enumerate(zip(kinds, tokens, strict=True)):
            # No claim at a fixed time after the one before.
            time.sleep(chance.uniform(0, 0.03))
            outcomes.append(hold_up(zones, kind, token))
            if number % 100 == 99:
                tell(f"{number + 1} of {len(kinds)}")
    return outcomes
