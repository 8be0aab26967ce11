"""The whole vault process in a thread: real sockets, a scripted lens, and door and admin byte for byte."""

import os
import secrets
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from appliance.journal import Journal
from appliance.link.framing import Message, read_message, send_message
from appliance.link.messages import (
    VAULT_TO_ADMIN,
    CodeRead,
    Done,
    Embed,
    Enrolled,
    Erase,
    Finish,
    Guidance,
    Guide,
    Lease,
    OpenEnrolment,
    Probe,
    Progress,
    Refusal,
    Refused,
    VaultState,
)
from appliance.link.sockets import Deadline, read_exact
from appliance.packs.manifest import PackNotAcknowledged
from appliance.settings import Recognition, Settings
from appliance.vault.keys import KeyLost
from appliance.vault.service import VaultService
from appliance.vault.store import StoreError
from appliance.vault.token import Token
from tests.vault.faces import RECOGNITION, seen
from tests.vault.scripted_lens import ScriptedLens, looking
from tests.vault.vault_house import House, capturing, running, settings_in, wait_for, window


@pytest.fixture
def house(short_folder: Path) -> Iterator[House]:
    with running(settings_in(short_folder)) as house:
        yield house


def test_a_match_is_the_byte_01_and_then_the_end(house: House) -> None:
    with house.lens(looking(house.enrol().encode(), seen(1))):
        assert house.press() == b"\x01"
    assert house.service._vaulted.store.records_read == 1


def test_no_match_is_the_byte_00_and_then_the_end(house: House) -> None:
    with house.lens(looking(house.enrol().encode(), seen(2), seen(3), seen(4))):
        assert house.press() == b"\x00"


def test_an_unknown_claim_is_the_same_byte(house: House) -> None:
    with house.lens(looking(Token.create(secrets.token_bytes(16)).encode())) as lens:
        assert house.press() == b"\x00"
    assert not lens.embeds()


def test_the_byte_leaves_only_after_the_camera_is_closed(house: House) -> None:
    def slow_to_close(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.show_faces(seen(1))
        lens.hear(Finish)
        time.sleep(0.4)
        lens.camera_open = False
        lens.times["closed"] = time.monotonic()
        lens.connection.sendall(b"\x15\x00\x00")

    token = house.enrol()
    with house.lens(slow_to_close) as lens:
        assert house.press() == b"\x01"
        answered = time.monotonic()
    assert lens.times["closed"] <= answered


def test_two_presses_at_once_are_served_one_after_the_other(house: House) -> None:
    answers: list[bytes] = []
    with house.lens(looking(house.enrol().encode(), seen(1))) as lens:
        presses = [threading.Thread(target=lambda: answers.append(house.press())) for _ in range(3)]
        for press in presses:
            press.start()
        for press in presses:
            press.join()
    assert answers == [b"\x01"] * 3
    assert lens.looks == 3


def test_a_withdrawal_at_the_door_opens_nothing_and_says_nothing(house: House) -> None:
    with house.lens(looking(house.enrol().encode(), seen(1))) as lens:
        assert house.press(b"\x02") == b""
        assert house.press(b"\x021234") == b""
        assert lens.looks == 0
        assert house.press() == b"\x01"


def test_a_door_that_says_anything_else_hears_nothing_and_the_next_press_is_served(house: House) -> None:
    generator = np.random.default_rng(5)
    hostile = [b"", b"\x00", b"\x03", b"\xff", bytes(66), b"\x01" + bytes(65), b"\x01" * 5000]
    for _ in range(30):
        verb = bytes([3 + generator.integers(0, 252)])
        hostile.append(verb + generator.bytes(int(generator.integers(0, 200))))
    with house.lens(looking(house.enrol().encode(), seen(1))) as lens:
        for request in hostile:
            assert house.press(request) == b""
        assert lens.looks == 0
        assert house.press() == b"\x01"
    assert "hostile message" in house.events()


def test_a_door_that_never_ends_its_request_holds_vault_for_a_second_and_no_longer(house: House) -> None:
    with house.lens(looking(house.enrol().encode(), seen(1))):
        began = time.monotonic()
        assert house.press(b"\x01", end=False) == b""
        assert time.monotonic() - began < 2.5
        assert house.press() == b"\x01"


def test_without_a_lens_a_press_ends_at_once_without_a_byte(house: House) -> None:
    began = time.monotonic()
    assert house.press() == b""
    assert time.monotonic() - began < 2
    with house.lens(looking(house.enrol().encode(), seen(1))):
        assert house.press() == b"\x01"


def test_a_lens_that_dies_midway_is_no_match(house: House) -> None:
    token = house.enrol()

    def dies(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.hear(Embed)
        lens.connection.close()

    with house.lens(dies):
        assert house.press() == b"\x00"


def test_a_door_that_hangs_up_frees_vault_and_closes_the_camera(house: House) -> None:
    def waiting(lens: ScriptedLens) -> None:
        lens.open_camera()

    with house.lens(waiting) as lens:
        with house.open("decision") as door:
            door.sendall(b"\x01")
            door.shutdown(socket.SHUT_WR)
            wait_for(lambda: lens.camera_open)
        assert lens.hung_up.wait(1)


def test_guidance_says_what_to_do_to_the_screen_of_that_press_alone(house: House) -> None:
    script = looking(house.enrol().encode(), seen(2), seen(3), seen(4))
    guides = (Guidance.SHOW_TOKEN, Guidance.LOOK_HERE, Guidance.USE_BADGE)
    expected = b"".join(Guide(each).encode() for each in guides)
    with house.lens(script), house.open("guidance") as first:
        time.sleep(0.1)
        assert house.press() == b"\x00"
        assert read_exact(first, len(expected), Deadline(2)) == expected
        with house.open("guidance") as second:
            time.sleep(0.1)
            assert house.press() == b"\x00"
            assert read_exact(second, len(expected), Deadline(2)) == expected
        assert house.rest_of(first) == b"", "the screen of one press heard of the next"


def test_a_screen_that_talks_back_or_does_not_read_delays_no_decision(house: House) -> None:
    with house.lens(looking(house.enrol().encode(), seen(1))), house.open("guidance") as screen:
        screen.sendall(os.urandom(5000))
        time.sleep(0.1)
        began = time.monotonic()
        assert house.press() == b"\x01"
        assert time.monotonic() - began < 1
    for _ in range(10):
        house.open("guidance").close()
        time.sleep(0.01)
    with house.lens(looking(house.enrol().encode(), seen(1))):
        assert house.press() == b"\x01"


@pytest.mark.parametrize("command", ["erase", "end of the ground"])
def test_an_erasure_during_an_attempt_wins(house: House, command: str) -> None:
    token = house.enrol()
    acts: dict[str, Message] = {"erase": Erase(token.handle), "end of the ground": Lease(token.handle, 0)}

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        lens.show(token.encode())
        lens.show_faces(seen(1))
        lens.hear(Finish)
        # The face has matched, and the camera closes: now the person's consent ends.
        assert house.command(acts[command]) == Done()
        lens.camera_open = False
        lens.connection.sendall(b"\x15\x00\x00")

    with house.lens(script):
        assert house.press() == b"\x00"


def test_a_lease_that_lapses_during_an_attempt_is_no_match(house: House) -> None:
    token = house.enrol()

    def script(lens: ScriptedLens) -> None:
        lens.open_camera()
        assert house.command(Lease(token.handle, 1)) == Done()
        lens.show(token.encode())
        lens.hear(Embed)
        time.sleep(0.7)
        lens.say(Probe(seen(1)))
        lens.hear(Finish)
        time.sleep(0.5)
        lens.camera_open = False
        lens.connection.sendall(b"\x15\x00\x00")

    with house.lens(script):
        assert house.press() == b"\x00"


def test_an_erased_person_is_not_let_in(house: House) -> None:
    token = house.enrol()
    code = token.encode()
    with house.lens(looking(code, seen(1))):
        assert house.press() == b"\x01"
    assert house.command(Erase(token.handle)) == Done()
    assert house.command(Erase(token.handle)) == Done()
    with house.lens(looking(code)) as lens:
        assert house.press() == b"\x00"
    assert not lens.embeds()
    assert house.state().records == 0
    assert house.events().count("erased") == 1


def test_an_enrolment_ends_in_a_token_that_lets_the_person_in(house: House) -> None:
    request = window(captures=3)
    with house.open("admin") as admin:
        send_message(admin, request, Deadline(5))
        wait_for(lambda: house.state().window == 1)
        with house.lens(capturing(seen(1, 0), seen(1, 1), seen(1, 2))):
            assert house.press() == b"\x00", "a press in an enrolment window never opens"
        heard = [read_message(admin, VAULT_TO_ADMIN, Deadline(5))]
        while not isinstance(heard[-1], Enrolled):
            heard.append(read_message(admin, VAULT_TO_ADMIN, Deadline(5)))
        assert admin.recv(1) == b""
    assert heard[:-1] == [Progress(left, Guidance.CAPTURED) for left in (2, 1, 0)]
    state = house.state()
    assert (state.records, state.leases, state.window) == (1, 1, 0)
    code = bytes(heard[-1].token)
    assert Token.decode(code).handle == request.handle
    with house.lens(looking(code, seen(1, 7))):
        assert house.press() == b"\x01"
    with house.lens(looking(code, seen(2), seen(3), seen(4))):
        assert house.press() == b"\x00"
    state_folder = house.settings.zone_state("vault")
    secret = bytes(Token.decode(code).secret)
    assert not any(secret in path.read_bytes() for path in state_folder.iterdir()), (
        "the device kept the secret"
    )


def test_a_token_does_not_open_in_an_enrolment_window_of_somebody_else(house: House) -> None:
    token = house.enrol()
    with house.open("admin") as admin:
        send_message(admin, window(captures=20), Deadline(5))
        wait_for(lambda: house.state().window == 1)

        def script(lens: ScriptedLens) -> None:
            lens.open_camera()
            lens.say(CodeRead(token.encode()))
            lens.show_faces(seen(1))
            # Admin cancels: the rest of the window need not be waited for.
            admin.close()
            lens.close_camera_when_asked()

        with house.lens(script):
            assert house.press() == b"\x00"


def test_a_window_closes_with_admins_connection_and_stores_nothing(house: House) -> None:
    with house.open("admin") as admin:
        send_message(admin, window(), Deadline(5))
        wait_for(lambda: house.state().window == 1)
    wait_for(lambda: house.state().window == 0)
    with house.lens(looking(house.enrol().encode(), seen(1))):
        assert house.press() == b"\x01"
    assert house.state().records == 1


def test_a_window_that_nobody_used_says_so(house: House) -> None:
    assert house.command(window(seconds=1)) == Refused(Refusal.WINDOW_EXPIRED)
    assert house.state().window == 0


def test_an_enrolment_is_refused_without_a_ground_or_over_another_record_or_window(house: House) -> None:
    no_consent = OpenEnrolment(secrets.token_bytes(16), bytes(16), 3600, 2, 60)
    no_lease = OpenEnrolment(secrets.token_bytes(16), b"c" * 16, 0, 2, 60)
    assert house.command(no_consent) == Refused(Refusal.NO_GROUND)
    assert house.command(no_lease) == Refused(Refusal.NO_GROUND)
    assert house.command(window(house.enrol().handle)) == Refused(Refusal.HANDLE_TAKEN)
    with house.open("admin") as admin:
        send_message(admin, window(), Deadline(5))
        wait_for(lambda: house.state().window == 1)
        assert house.command(window()) == Refused(Refusal.WINDOW_BUSY)


def test_a_handle_that_was_erased_while_its_window_is_open_is_not_stored_afterwards(house: House) -> None:
    """A consent withdrawn during the enrolment: after `Done` there may be nothing, now or later."""
    request = window(captures=1)
    with house.open("admin") as admin:
        send_message(admin, request, Deadline(5))
        wait_for(lambda: house.state().window == 1)

        def script(lens: ScriptedLens) -> None:
            lens.open_camera()
            lens.hear(Embed)
            assert house.command(Erase(request.handle)) == Done()
            lens.say(Probe(seen(1)))
            lens.close_camera_when_asked()

        with house.lens(script):
            assert house.press() == b"\x00"
        heard = [read_message(admin, VAULT_TO_ADMIN, Deadline(5))]
        while isinstance(heard[-1], Progress):
            heard.append(read_message(admin, VAULT_TO_ADMIN, Deadline(5)))
    assert isinstance(heard[-1], Refused)
    assert house.state().records == 0


def test_nobody_can_vouch_for_a_record_that_is_not_there(house: House) -> None:
    assert house.command(Lease(bytes(16), 3600)) == Refused(Refusal.UNKNOWN_HANDLE)
    assert house.state().leases == 0


def test_an_admin_that_says_anything_else_is_hung_up_on_and_the_next_one_is_served(house: House) -> None:
    generator = np.random.default_rng(6)
    hostile = [b"\x21\x00\x01", b"\x22\x00\x10" + bytes(5), b"\x30\x00\x00", b"\x23\x00\x12" + b"\xff" * 18]
    hostile += [generator.bytes(int(generator.integers(1, 100))) for _ in range(30)]
    for request in hostile:
        with house.open("admin") as admin:
            try:
                admin.sendall(request)
                admin.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # it hung up before the last byte
            assert house.rest_of(admin) == b""
    assert house.state().records == 0


def test_many_commands_at_once_are_all_answered(house: House) -> None:
    with house.open("admin") as holding:
        send_message(holding, window(), Deadline(5))
        answers: list[VaultState] = []
        asking = [threading.Thread(target=lambda: answers.append(house.state())) for _ in range(20)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
    assert len(answers) == 20


def test_a_restart_forgets_every_ground_and_no_record(short_folder: Path) -> None:
    settings = settings_in(short_folder)
    with running(settings) as house:
        token = house.enrol()
        code, handle = token.encode(), token.handle
        before = house.state()
    with running(settings) as house:
        after = house.state()
        assert (after.records, after.leases) == (1, 0)
        assert after.instance != before.instance
        with house.lens(looking(code)) as lens:
            assert house.press() == b"\x00"
        assert not lens.embeds()
        assert house.command(Lease(handle, 3600)) == Done()
        with house.lens(looking(code, seen(1))):
            assert house.press() == b"\x01"


def test_with_recognition_off_nothing_looks_at_anyone(short_folder: Path) -> None:
    with running(settings_in(short_folder, Recognition())) as house:
        with house.lens(looking(house.enrol().encode(), seen(1))) as lens:
            assert house.press() == b"\x00"
        assert lens.looks == 0
        assert house.command(window()) == Refused(Refusal.RECOGNITION_OFF)
        assert house.state().recognition == 0


def start(settings: Settings) -> None:
    """Begin a vault that shall not begin."""
    written = Journal(settings.zone_state("vault") / "journal.jsonl", sync=False)
    try:
        VaultService(settings, written)
    finally:
        written.close()


def test_a_pack_that_was_not_acknowledged_does_not_run(short_folder: Path) -> None:
    settings = settings_in(short_folder, RECOGNITION.model_copy(update={"acknowledge": []}))
    with pytest.raises(PackNotAcknowledged, match=r'acknowledge = \["edge"\]'):
        start(settings)


@pytest.mark.filterwarnings("ignore:unclosed database")
@pytest.mark.parametrize("damage", ["root gone", "epoch gone", "other root", "old epoch", "database damaged"])
def test_a_vault_whose_parts_do_not_belong_together_does_not_start(short_folder: Path, damage: str) -> None:
    settings = settings_in(short_folder)
    with running(settings) as house:
        house.enrol()
    state = settings.zone_state("vault")
    if damage == "root gone":
        (state / "root.key").unlink()
    elif damage == "epoch gone":
        (state / "epoch-1.key").unlink()
    elif damage == "other root":
        (state / "root.key").write_bytes(secrets.token_bytes(32))
    elif damage == "old epoch":
        with sqlite3.connect(state / "vault.db") as db:
            db.execute("UPDATE epoch SET number = 2")
        db.close()
    else:
        (state / "vault.db").write_bytes(b"x" * 20_000)
    with pytest.raises((KeyLost, StoreError)):
        start(settings)


def test_a_stranger_who_calls_is_hung_up_on_and_journalled(short_folder: Path) -> None:
    settings = settings_in(short_folder)
    with running(settings, door=frozenset({54321})) as house:
        with house.lens(looking(house.enrol().encode(), seen(1))) as lens:
            with house.open("decision") as door:
                assert house.rest_of(door) == b""
            assert lens.looks == 0
        wait_for(lambda: "wrong peer" in house.events())
        assert house.state().records == 1
