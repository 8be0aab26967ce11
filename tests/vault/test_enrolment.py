"""Capturing for an enrolment window, against a scripted lens on a real socket."""

import secrets
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.link.messages import (
    Embed,
    Finish,
    Guidance,
    Hint,
    OpenEnrolment,
    Probe,
    Progress,
    Refusal,
)
from appliance.link.sockets import Deadline, LinkError
from appliance.vault.claims import Vaulted
from appliance.vault.comparison import Vector
from appliance.vault.enrolment import Window, Windows, capture
from appliance.vault.look import LensLook
from tests.vault.faces import DECIDER, EDGE, RECOGNITION, enrol, face, seen
from tests.vault.scripted_lens import ScriptedLens, lens_at

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

    def open(self, captures: int = 3, seconds: int = 60) -> Window:
        request = OpenEnrolment(secrets.token_bytes(16), b"c" * 16, 3600, captures, seconds)
        window = Window(request, Deadline(seconds), self.reports.append)
        assert self.windows.open(window)
        return window

    def press(self, window: Window, script: Script) -> ScriptedLens:
        ours, doors = socket.socketpair()
        path = self.folder / "look.sock"
        with lens_at(path, script) as lens, ours, doors:
            doors.shutdown(socket.SHUT_WR)
            whole = Deadline(RECOGNITION.attempt_time)
            with LensLook(path, self.users, ours, whole) as look:
                capture(look, self.windows, window, DECIDER, self.vaulted, self.said.append, whole)
                assert not lens.camera_open
        return lens


@pytest.fixture
def bench(short_folder: Path, vaulted: Vaulted, me: frozenset[int]) -> Bench:
    return Bench(short_folder, vaulted, me)


def facing(*embeddings: bytes) -> Script:
    """A person who looks into the lens; the camera closes when vault asks."""

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(*(Probe(embedding) for embedding in embeddings))
        lens.close_camera_when_asked()

    return script


def test_good_frames_make_a_record_that_only_its_token_opens(bench: Bench, vaulted: Vaulted) -> None:
    window = bench.open()
    lens = bench.press(window, facing(seen(1, 0), seen(1, 1), seen(1, 2)))
    assert window.finished.is_set()
    assert window.token is not None
    assert window.token.handle == window.request.handle
    assert vaulted.store.count() == 1
    assert lens.embeds() == [Embed(3, 1)]
    assert bench.said == [Guidance.LOOK_HERE, *[Guidance.CAPTURED] * 3, Guidance.DONE]
    assert [progress.remaining for progress in bench.reports] == [2, 1, 0]
    # Nothing is lawful until admin vouches.
    token = window.token
    code = token.encode()
    assert vaulted.open(token) is None
    vaulted.leases.grant(window.request.handle, 60)
    again = type(token).decode(code)
    claimed = vaulted.open(again)
    assert claimed is not None
    assert claimed.record.score(face(1), EDGE.mean) > 0.99


def test_captures_of_several_presses_add_up(bench: Bench, vaulted: Vaulted) -> None:
    window = bench.open()

    def short_look(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(Probe(seen(1, 0)), Probe(seen(1, 1)))
        lens.connection.close()

    with pytest.raises(LinkError):
        bench.press(window, short_look)
    assert window.remaining == 1
    assert vaulted.store.count() == 0
    lens = bench.press(window, facing(seen(1, 2)))
    assert lens.embeds() == [Embed(1, 1)]
    assert window.token is not None


def test_another_face_in_the_window_starts_the_captures_anew(bench: Bench, vaulted: Vaulted) -> None:
    window = bench.open()
    kept: list[Vector] = []

    def two_people(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(Probe(seen(1, 0)), Probe(seen(1, 1)))
        while len(window.captures) < 2:
            pass
        kept.extend(window.captures)
        lens.say(Probe(seen(2, 0)))
        assert lens.hear() == Embed(2, 1)
        lens.say(Probe(seen(2, 1)), Probe(seen(2, 2)))
        lens.close_camera_when_asked()

    bench.press(window, two_people)
    assert [progress.remaining for progress in bench.reports] == [2, 1, 2, 1, 0]
    assert all(not capture.any() for capture in kept), (
        "what was captured of the first face was not overwritten"
    )
    assert window.token is not None
    vaulted.leases.grant(window.request.handle, 60)
    claimed = vaulted.open(window.token)
    assert claimed is not None
    assert claimed.record.score(face(2), EDGE.mean) > 0.99
    assert claimed.record.score(face(1), EDGE.mean) < 0.9


def test_numbers_that_are_no_face_are_asked_for_again_and_not_said_to_be_captured(bench: Bench) -> None:
    window = bench.open(captures=1)

    def confused(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(Probe(b"\xff" * 2048))
        assert lens.hear() == Embed(1, 1)
        lens.say(Probe(seen(1)))
        lens.close_camera_when_asked()

    bench.press(window, confused)
    assert window.token is not None
    assert bench.said == [Guidance.LOOK_HERE, Guidance.CAPTURED, Guidance.DONE]


def test_hints_reach_the_person_and_admin(bench: Bench) -> None:
    window = bench.open(captures=1)

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(Hint(Guidance.COME_CLOSER), Hint(Guidance.TOO_DARK), Probe(seen(1)))
        lens.close_camera_when_asked()

    bench.press(window, script)
    assert bench.said[1:3] == [Guidance.COME_CLOSER, Guidance.TOO_DARK]
    assert bench.reports[:2] == [Progress(1, Guidance.COME_CLOSER), Progress(1, Guidance.TOO_DARK)]


def test_the_captures_are_overwritten_once_the_record_is_stored(bench: Bench) -> None:
    window = bench.open(captures=2)
    kept: list[Vector] = []

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(Probe(seen(1, 0)))
        while not window.captures:
            pass
        kept.extend(window.captures)
        lens.say(Probe(seen(1, 1)))
        lens.hear(Finish)
        kept.extend(window.captures)
        lens.camera_open = False
        lens.connection.sendall(b"\x15\x00\x00")

    bench.press(window, script)
    assert window.token is not None
    assert len(kept) == 3
    assert not any(capture.any() for capture in kept)
    assert window.captures == []


def test_a_window_that_was_closed_at_the_last_moment_stores_nothing(bench: Bench, vaulted: Vaulted) -> None:
    window = bench.open(captures=2)

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        lens.say(Probe(seen(1, 0)), Probe(seen(1, 1)))
        # All captures are there, and the camera closes: now admin cancels.
        lens.hear(Finish)
        bench.windows.close(window)
        lens.camera_open = False
        lens.connection.sendall(b"\x15\x00\x00")

    bench.press(window, script)
    assert window.token is None
    assert vaulted.store.count() == 0
    assert Guidance.DONE not in bench.said
    assert window.captures == []


def test_no_capture_outlives_its_window(bench: Bench, vaulted: Vaulted) -> None:
    """A probe that arrives after the window was closed is not kept either."""
    window = bench.open(captures=2)

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        bench.windows.close(window)
        lens.say(Probe(seen(1, 0)))
        lens.close_camera_when_asked()

    bench.press(window, script)
    assert vaulted.store.count() == 0
    assert window.captures == []


def test_a_window_whose_time_is_over_stores_nothing(bench: Bench, vaulted: Vaulted) -> None:
    window = bench.open(captures=1, seconds=1)

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.hear(Embed)
        threading.Event().wait(1.1)
        lens.say(Probe(seen(1)))
        lens.close_camera_when_asked()

    bench.press(window, script)
    assert vaulted.store.count() == 0
    assert window.token is None
    assert bench.windows.current() is None


def test_one_window_at_a_time_and_the_next_after_its_end(bench: Bench) -> None:
    first = bench.open()
    second = Window(OpenEnrolment(bytes(16), b"c" * 16, 60, 1, 60), Deadline(60), bench.reports.append)
    assert not bench.windows.open(second)
    assert bench.windows.current() is first
    bench.windows.close(second)
    assert bench.windows.current() is first
    bench.windows.close(first)
    assert bench.windows.current() is None
    assert bench.windows.open(second)


def test_a_handle_that_is_taken_meanwhile_is_refused_and_the_first_record_stays(
    bench: Bench, vaulted: Vaulted
) -> None:
    token = enrol(vaulted, face(7))
    request = OpenEnrolment(token.handle, b"c" * 16, 60, 1, 60)
    window = Window(request, Deadline(60), bench.reports.append)
    bench.windows.open(window)
    bench.press(window, facing(seen(1)))
    assert (window.token, window.refusal) == (None, Refusal.HANDLE_TAKEN)
    claimed = vaulted.open(token)
    assert claimed is not None
    assert claimed.record.score(face(7), EDGE.mean) == pytest.approx(1, abs=1e-6)


def test_a_store_that_fails_finishes_the_window_with_that_refusal(bench: Bench, vaulted: Vaulted) -> None:
    window = bench.open(captures=1)
    vaulted.store.close()
    bench.press(window, facing(seen(1)))
    assert window.finished.is_set()
    assert (window.token, window.refusal) == (None, Refusal.STORAGE)
    assert Guidance.DONE not in bench.said


def test_closing_a_window_overwrites_what_it_holds(bench: Bench) -> None:
    window = bench.open()
    window.captures.append(face(1))
    kept = window.captures[0]
    bench.windows.close(window)
    assert not kept.any()
