"""What a thief finds after a person came and went at a whole door, with portraits (see `test_forensics`)."""

import contextlib
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from appliance.link.messages import ClaimKind, Probe
from appliance.process import Zone
from appliance.qr import png
from appliance.simulation.door import Shown as Picture
from appliance.vault.comparison import make_template, read_embedding
from appliance.vault.rotation import Rotation
from tests.looking import only_root_looks_in
from tests.system.forensics import (
    Report,
    beyond,
    everything,
    in_text,
    search_files,
    search_writes,
    wrong_secret,
)
from tests.system.house import House, eventually, open_house
from tests.system.known_secrets import (
    HELD,
    INDEX,
    Keys,
    Shown,
    W,
    keys,
)
from tests.system.raw_search import (
    all_writes,
    search_memory,
)
from tests.system.tap import Tap
from tests.vault.faces import EDGE

pytestmark = [pytest.mark.root, only_root_looks_in, pytest.mark.timeout(240)]


PASSED_BY: tuple[Zone, ...] = ("admin", "door")
"""Admin gave the token out; door saw nothing but the press."""


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
            haystack = everything(known, presented, captures, probes)
            found = report.note("vault after the attempts", search_memory(pid, haystack))
            person = house.api.call("GET", "/people")["items"][0]["id"]
            assert house.api.call("DELETE", f"/people/{person}/template")["state"] == "erased"
            after = report.note("vault after the erasure", search_memory(pid, haystack))
        assert beyond(found, HELD) == []
        assert beyond(after, (W, INDEX)) == []
        texts = in_text(known, presented, captures, probes)
        assert report.note("vault's files", search_files(state, texts)) == []
        assert report.note("all that vault wrote to files", search_writes(writes, texts)) == []
        assert any(path.endswith("vault.db-wal") for path in writes.by_path), "this test saw the writes"
        assert report.note("all logs", search_files(door.state / "logs", texts)) == []
        for zone in ("admin", "door", "lens"):
            assert report.note(f"{zone}'s files", search_files(door.state / zone, texts)) == []
        # Measured, and not promised: lens has pictures and embeddings by nature, and what libraries copy.
        report.note("memory of lens", search_memory(door.pid("lens"), texts))
        for zone in PASSED_BY:
            assert report.note(f"memory of {zone}", search_memory(door.pid(zone), texts)) == []


def press_until(house: House, opened: Callable[[], bool]) -> None:
    """A busy machine may be late for one press."""
    for _ in range(4):
        house.press()
        house.wait_attempt()
        house.wait_locked()
        if opened():
            return
    eventually(opened, 1)


def _stored_of(captures: list[bytes], known: Keys) -> np.ndarray:
    whole = make_template([read_embedding(each, len(EDGE.mean)) for each in captures])
    return Rotation(known.rotation_key, len(EDGE.mean)).rotate(whole, EDGE.mean)
