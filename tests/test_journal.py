import enum
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.journal import GENESIS, Event, Head, Journal, JournalBroken, JournalError, verify


class Colour(enum.Enum):
    RED = 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path, sync=False)
    yield journal
    journal.close()


def fill(path: Path, lines: int) -> Head:
    journal = Journal(path, sync=False)
    for number in range(lines):
        journal.write(Event.PRESSED, number=number)
    journal.close()
    return journal.head


def stands(path: Path) -> Head | None:
    """Where the journal stands, or None where it is broken."""
    try:
        return verify(path)
    except JournalBroken:
        return None


def test_what_was_written_verifies_and_ends_where_the_writer_says(journal: Journal, path: Path) -> None:
    journal.write(Event.STARTED)
    journal.write(Event.ATTEMPT_ENDED, matched=True, milliseconds=120.5, probes=3, colour=Colour.RED)
    assert verify(path) == journal.head
    first, second = (json.loads(line) for line in path.read_bytes().splitlines())
    assert first["n"] == 1
    assert first["before"] == GENESIS
    assert second["event"] == "attempt ended"
    assert second["details"] == {"matched": True, "milliseconds": 120.5, "probes": 3, "colour": "red"}


def test_a_restart_goes_on_where_the_journal_ended(path: Path) -> None:
    before = fill(path, 3)
    again = Journal(path, sync=False)
    assert again.head == before
    again.write(Event.STOPPED)
    again.close()
    assert verify(path) == again.head
    assert again.head.lines == 4


def test_the_journal_is_for_its_zone_alone(journal: Journal, path: Path) -> None:
    journal.write(Event.STARTED)
    assert path.stat().st_mode & 0o777 == 0o600


def test_every_altered_byte_is_found(path: Path) -> None:
    noted = fill(path, 3)
    sound = path.read_bytes()
    last_line = sound.rstrip(b"\n").rfind(b"\n") + 1
    for place in range(len(sound)):
        for flip in (0x01, 0x20, 0x80):
            path.write_bytes(sound[:place] + bytes([sound[place] ^ flip]) + sound[place + 1 :])
            found = stands(path)
            assert found != noted
            # Only in the last line does it take the head that someone noted.
            assert found is None or place >= last_line


def test_every_removed_line_and_every_two_swapped_lines_are_found(path: Path) -> None:
    noted = fill(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    for one in range(len(lines)):
        path.write_bytes(b"".join(lines[:one] + lines[one + 1 :]))
        # The last line's removal is found by whoever noted the head.
        assert stands(path) == (Head(5, json.loads(lines[-1])["before"]) if one == 5 else None)
        assert stands(path) != noted
        for other in range(one):
            swapped = list(lines)
            swapped[one], swapped[other] = swapped[other], swapped[one]
            path.write_bytes(b"".join(swapped))
            assert stands(path) is None


def test_a_line_of_another_journal_does_not_fit_in(path: Path, tmp_path: Path) -> None:
    fill(path, 3)
    fill(tmp_path / "other", 4)
    stranger = (tmp_path / "other").read_bytes().splitlines(keepends=True)[3].replace(b"3", b"9")
    with path.open("ab") as file:
        file.write(stranger)
    with pytest.raises(JournalBroken, match="line 4 does not follow"):
        verify(path)


@pytest.mark.parametrize("left", range(1, 60, 7))
def test_a_line_that_a_power_cut_tore_is_removed_and_its_removal_is_recorded(path: Path, left: int) -> None:
    fill(path, 2)
    whole = path.read_bytes()
    torn = whole.splitlines(keepends=True)[1][:left]
    path.write_bytes(whole + torn)
    journal = Journal(path, sync=False)
    journal.close()
    assert path.read_bytes().startswith(whole)
    assert verify(path) == journal.head
    last = json.loads(path.read_bytes().splitlines()[-1])
    assert last["event"] == "torn line removed"
    assert last["details"] == {"bytes": left}


def test_a_tail_of_zeros_that_a_power_cut_left_is_removed_however_long_it_is(path: Path) -> None:
    fill(path, 2)
    with path.open("ab") as file:
        file.write(bytes(4096))
    journal = Journal(path, sync=False)
    journal.close()
    assert verify(path) == journal.head
    assert json.loads(path.read_bytes().splitlines()[-1])["details"] == {"bytes": 4096}


@pytest.mark.parametrize("detail", ["Jan de Vries", b"secret", None, ["a"], {"a": 1}, Path("/x"), 1j])
def test_text_has_no_way_into_the_journal(journal: Journal, path: Path, detail: object) -> None:
    with pytest.raises(TypeError, match="numbers and enumerations"):
        journal.write(Event.PRESSED, who=detail)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="numbers and enumerations"):
        journal.note(Event.PRESSED, who=detail)  # type: ignore[arg-type]
    assert path.read_bytes() == b""


def test_two_threads_make_one_chain(journal: Journal, path: Path) -> None:
    def write() -> None:
        for number in range(200):
            journal.write(Event.PRESSED, number=number)

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert journal.head.lines == 400
    assert verify(path) == journal.head


def test_a_full_disk_leaves_no_half_line_and_the_next_write_works(path: Path) -> None:
    script = f"""
        import resource
        from pathlib import Path
        from appliance.journal import Event, Journal, JournalError, verify

        path = Path({str(path)!r})
        journal = Journal(path)
        journal.write(Event.STARTED)
        size = path.stat().st_size
        for room in (0, 1, 50):
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + room, resource.RLIM_INFINITY))
            try:
                journal.write(Event.PRESSED)
            except JournalError as error:
                assert "\\n" not in str(error)
            else:
                raise SystemExit("the full disk went unnoticed")
            journal.note(Event.PRESSED)
            assert path.stat().st_size == size, "half a line stayed behind"
            assert verify(path) == journal.head
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        journal.write(Event.STOPPED)
        assert verify(path) == journal.head
        assert journal.head.lines == 2
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("pressed: the journal cannot be written") == 3


def test_a_journal_that_is_gone_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be read"):
        verify(tmp_path / "nowhere")
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal(tmp_path / "no" / "folder")


def test_a_note_after_the_end_stops_nobody(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal(path, sync=False)
    journal.close()
    journal.close()
    journal.note(Event.STOPPED)
    assert capsys.readouterr().err.startswith("stopped: ")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tail=st.binary(max_size=80)
    | st.sampled_from([b'{"n":"x"}', b'{"n":[1]}', b'{"n":null}', b'{"n":1e999}', b"[1]", b"1"])
)
def test_whatever_stands_last_the_journal_opens_or_says_that_it_is_broken(path: Path, tail: bytes) -> None:
    path.write_bytes(tail + b"\n")
    try:
        journal = Journal(path, sync=False)
    except JournalBroken as broken:
        assert "move it away" in str(broken)  # noqa: PT017 - opening is as good
    else:
        journal.close()


def test_a_noted_head_on_the_chain_is_found_again(path: Path) -> None:
    heads = [Head(0, GENESIS)]
    journal = Journal(path, sync=False)
    for _ in range(4):
        journal.write(Event.PRESSED)
        heads.append(journal.head)
    journal.close()
    for noted in heads:
        assert verify(path, noted) == heads[-1]


def test_with_a_noted_head_a_cut_tail_an_altered_last_line_and_a_new_chain_are_found(path: Path) -> None:
    noted = fill(path, 4)
    sound = path.read_bytes()
    lines = sound.splitlines(keepends=True)
    anew = path.with_name("anew")
    fill(anew, 6)
    altered = sound.replace(b'"number":3', b'"number":9')
    for forged in (b"".join(lines[:3]), altered, anew.read_bytes().replace(b"pressed", b"started"), b""):
        path.write_bytes(forged)
        assert forged != sound
        if forged.count(b"started") == 0:
            verify(path)  # without the noted head nothing is found
        with pytest.raises(JournalBroken):
            verify(path, noted)
    path.write_bytes(b"")
    with pytest.raises(JournalBroken, match="none leads to the head that was noted at line 4"):
        verify(path, noted)


def test_a_chain_that_was_written_anew_is_found_with_a_noted_head_only(path: Path) -> None:
    noted = fill(path, 4)
    path.unlink()
    journal = Journal(path, sync=False)
    for _ in range(9):
        journal.write(Event.UNLOCKED)
    journal.close()
    assert verify(path) == journal.head
    with pytest.raises(JournalBroken, match="written anew"):
        verify(path, noted)


def details(path: Path, event: Event) -> list[dict[str, int]]:
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [line.get("details", {}) for line in lines if line["event"] == event.value]


@pytest.mark.parametrize("event", [Event.WRONG_PEER, Event.HOSTILE_MESSAGE])
def test_strangers_get_a_line_a_minute_with_their_number(
    path: Path, monkeypatch: pytest.MonkeyPatch, event: Event
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    journal = Journal(path, sync=False)
    for _ in range(500):
        journal.note(event)
    assert details(path, event) == [{"count": 1}]
    now += 59
    journal.note(event)
    assert len(details(path, event)) == 1
    now += 2
    journal.note(event)
    assert details(path, event) == [{"count": 1}, {"count": 501}]
    for _ in range(7):
        journal.note(event)
    journal.close()
    assert details(path, event) == [{"count": 1}, {"count": 501}, {"count": 7}]
    assert verify(path) == journal.head


def test_one_event_of_strangers_does_not_hide_another_nor_any_of_the_zones_own(
    journal: Journal, path: Path
) -> None:
    for _ in range(5):
        journal.note(Event.WRONG_PEER)
        journal.note(Event.HOSTILE_MESSAGE)
        journal.note(Event.BADGE_REFUSED)
    assert len(details(path, Event.WRONG_PEER)) == len(details(path, Event.HOSTILE_MESSAGE)) == 1
    assert len(details(path, Event.BADGE_REFUSED)) == 5
