"""What vault works before a fixed time hides it: `Vaulted.open` of claims of three kinds."""

import random
import tempfile
import time
from pathlib import Path

from appliance.link.claims import of_number
from appliance.vault.claims import Vaulted, read_credential
from appliance.vault.credentials import Credential
from appliance.vault.protection import DEVICE, seal
from appliance.vault.store import Record
from appliance.vault.token import Token
from tests.system.claims_world import ASKED, ENTRY, enrolled, order
from tests.vault.faces import EDGE, face, vault_in

Work = dict[str, list[float]]
"""Seconds by kind of claim."""
WARMING = 3
"""Claims of each kind before any is timed."""


def work_of_tokens(count: int, seed: int) -> Work:
    """`Vaulted.open` of so many tokens of each kind, in random order; no face is compared."""
    with tempfile.TemporaryDirectory(prefix="drempel-claims-") as folder, vault_in(Path(folder)) as vaulted:
        kinds = list(ASKED) * WARMING + order(random.Random(seed), dict.fromkeys(ASKED, count))
        tokens = enrolled(vaulted, kinds)
        for token in tokens:
            vaulted.leases.grant(token.handle, 3600)
        took = [_open(vaulted, kind, token) for kind, token in zip(kinds, tokens, strict=True)]
    return _by_kind(kinds, took)


def work_of_numbers(count: int, seed: int) -> Work:
    """The same of numbers with a PIN, which Argon2id slows whether or not there is such a number."""
    with (
        tempfile.TemporaryDirectory(prefix="drempel-claims-") as folder,
        vault_in(
            Path(folder), tier=3, claims=["number"], justification="a bench", answer_time=2.5
        ) as vaulted,
    ):
        kinds = list(ASKED) * WARMING + order(random.Random(seed), dict.fromkeys(ASKED, count))
        claims = [_number(vaulted, kind, number) for number, kind in enumerate(kinds)]
        took = [_open(vaulted, kind, claim) for kind, claim in zip(kinds, claims, strict=True)]
    return _by_kind(kinds, took)


def _number(vaulted: Vaulted, kind: str, number: int) -> Credential:
    """What is typed; enrolled with that PIN, with another, or not at all."""
    typed = read_credential(of_number(str(1000 + number), "4711"), vaulted.epochs.index_key)
    if kind == "unknown":
        return typed
    handle = number.to_bytes(16)
    pin = "4711" if kind == "another face" else "0815"
    known = read_credential(of_number(str(1000 + number), pin), vaulted.epochs.index_key)
    binding = vaulted.binding(handle, DEVICE, known.lookup)
    sealed = seal(face(ENTRY), EDGE.mean, known.secret(), vaulted.epochs.current, binding)
    vaulted.store.add(Record(handle, DEVICE, vaulted.pack, sealed, lookup=known.lookup))
    vaulted.leases.grant(handle, 3600)
    return typed


def _open(vaulted: Vaulted, kind: str, claim: Token | Credential) -> float:
    """Seconds that it took; whether it opened is looked at."""
    began = time.perf_counter()
    claimed = vaulted.open(claim)
    took = time.perf_counter() - began
    assert (claimed is not None) is (kind == "another face")
    if claimed is not None:
        claimed.forget()
    return took


def _by_kind(kinds: list[str], took: list[float]) -> Work:
    timed = list(zip(kinds, took, strict=True))[len(ASKED) * WARMING :]
    return {kind: [each for name, each in timed if name == kind] for kind in ASKED}
