"""That the search for remnants can find them: in bytes, text, memory, registers, and files that are gone."""

import base64
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.looking import only_root_looks_in
from tests.system.known_secrets import (
    spelled,
)
from tests.system.raw_search import (
    Haystack,
    Hit,
    Needle,
    all_writes,
    search_memory,
    search_registers,
)

pytestmark = [pytest.mark.root, only_root_looks_in, pytest.mark.timeout(240)]

HOLDER = """
import sys
import numpy as np
held = bytearray.fromhex(sys.argv[1])
for buffer in [bytearray(held) for _ in range(3)]:
    buffer[:40] = bytes(40)
print("held", flush=True)
input()
"""


def test_a_run_of_a_secret_is_found_at_any_address_and_chance_is_not() -> None:
    rng = np.random.default_rng(1)
    secret, key = rng.bytes(2048), rng.bytes(32)
    haystack = Haystack([Needle("long", secret, 32, 4), Needle("key", key)])
    noise = rng.bytes(1 << 16)
    assert haystack.find(noise) == []
    for at in (0, 1, 13, 4096 - 5, len(noise)):
        assert haystack.find(noise[:at] + secret + noise[at:]) == [Hit(at, "long", 0, 2048)]
        partial = noise[:at] + secret[101 : 101 + 39] + noise[at:]
        assert haystack.find(partial) == [Hit(at, "long", 101, 39)], "32 bytes from any coordinate on"
        assert haystack.find(noise[:at] + secret[100:131] + noise[at:]) == [], "31 are not enough"
        assert haystack.find(noise[:at] + key[24:] + noise[at:], 1000) == [Hit(1000 + at, "key", 24, 8)]


def test_a_secret_is_found_in_the_text_of_a_log() -> None:
    rng = np.random.default_rng(2)
    key = rng.bytes(32)
    haystack = Haystack(spelled([Needle("key", key)]))
    for text in (
        key.hex(),
        key.hex().upper(),
        *(base64.b64encode(b"x" * n + key).decode() for n in range(3)),
    ):
        assert haystack.find(f"a line with {text} in it".encode()), text


def test_what_a_process_still_holds_is_found_in_its_memory() -> None:
    secret = np.random.default_rng(3).bytes(2048)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, secret.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        hits = search_memory(process.pid, Haystack(spelled([Needle("held", secret, 32, 4)])))
        process.kill()
    assert ("held", 0, 2048) in {(hit.name, hit.offset, hit.length) for hit in hits}
    assert any(hit.offset >= 40 for hit in hits if hit.name == "held"), "freed, and overwritten in part alone"
    assert any(hit.name == "held, hexadecimal" for hit in hits), "its own command line"


def test_what_was_written_to_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    script = f"input(); p = {str(tmp_path / 'gone')!r}; f = open(p, 'wb', buffering=0)\n"
    script += "f.write(bytes(range(99))); "
    script += "f.seek(0); f.write(bytes(99)); import os; os.unlink(p); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with all_writes(process.pid, tmp_path / "strace") as writes:
            process.stdin.write(b"\n")
            assert process.stdout.readline()
        process.kill()
    assert bytes(range(99)) in writes.by_path[str(tmp_path / "gone")]


def test_registers_are_overwritten_by_the_same_work_again() -> None:
    script = """if True:
        import sys
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from appliance.vault.registers import overwrite_registers
        key = bytes.fromhex(sys.argv[1])
        sealed = AESGCM(key).encrypt(bytes(12), bytes(32), None)
        AESGCM(key).decrypt_into(bytes(12), sealed, None, bytearray(32))
        if sys.argv[2] == "overwrite":
            overwrite_registers()
        print("done", flush=True)
        input()
    """
    key = np.random.default_rng(4).bytes(32)
    found = {}
    for then in ("leave", "overwrite"):
        with subprocess.Popen(
            [sys.executable, "-c", script, key.hex(), then], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            found[then] = search_registers(process.pid, Haystack([Needle("key", key)]))
            process.kill()
    print(found)
    assert found["overwrite"] == []
