"""What the forensic tests have in common: what is searched for, where, and what is printed of it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.vault.token import Token
from tests.system.known_secrets import (
    Keys,
    embedding,
    spelled,
    template,
)
from tests.system.raw_search import (
    Haystack,
    Hit,
    Needle,
    Writes,
)
from tests.vault.faces import EDGE


@dataclass
class Report:
    """What was found, and when."""

    lines: list[str]

    def note(self, when: str, hits: Iterable[Hit]) -> list[Hit]:
        hits = list(hits)
        counted = Counter((hit.name, hit.length) for hit in hits)
        found = ", ".join(
            f"{name}: {count} of {size} bytes" for (name, size), count in sorted(counted.items())
        )
        self.lines.append(f"{when:<34}{found or 'nothing'}")
        return hits


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


def _needles(known: Keys, captures: list[bytes], probes: list[bytes]) -> Iterator[Needle]:
    yield from template("template", captures, EDGE.mean, known)
    for number, capture in enumerate(captures, 1):
        yield from embedding(f"capture {number}", capture, EDGE.mean, known)
    for number, probe in enumerate(probes, 1):
        yield from embedding(f"probe {number}", probe, EDGE.mean, known)


def everything(known: Keys, presented: list[Needle], captures: list[bytes], probes: list[bytes]) -> Haystack:
    secrets = [*presented, *known.of_record(), *known.of_device()]
    return Haystack([*secrets, *_needles(known, captures, probes)])


def in_text(known: Keys, presented: list[Needle], captures: list[bytes], probes: list[bytes]) -> Haystack:
    """As bytes and as text; without the root key, which a simulation has in a file."""
    return Haystack([*spelled([*presented, *known.in_no_file()]), *_needles(known, captures, probes)])


def wrong_secret(token: bytes) -> bytes:
    claimed = Token.decode(token)
    claimed.secret[0] ^= 1
    return bytes(claimed.encode())
