"""Each zone has open only what design §1 allows it, and a zone that dies opens nothing."""

import os
import re
import signal
import time
from pathlib import Path

import pytest

from appliance.process import Zone
from tests.looking import only_root_looks_in
from tests.system.house import House, eventually

pytestmark = [pytest.mark.models, pytest.mark.timeout(300)]

IMAGES = r"cv2|opencv|PIL|_imaging|skimage|libjpeg|libpng|zxing"
INFERENCE = r"onnxruntime|onnx_cpp|onnx/"
PINS = r"lgpio|osdp"
DATABASE = r"_sqlite3|libsqlite3"
FORBIDDEN: dict[Zone, str] = {
    "door": rf"{IMAGES}|{INFERENCE}|numpy|cryptography|vault\.db|registry\.db|root\.key|epoch\.key",
    "lens": rf"{PINS}|vault\.db|registry\.db|badges\.db|root\.key|epoch\.key|badge\.key|cryptography",
    "vault": rf"{IMAGES}|{INFERENCE}|{PINS}|registry\.db|badges\.db|badge\.key",
    "admin": rf"{IMAGES}|{INFERENCE}|{PINS}|numpy|cryptography|vault\.db|badges\.db|root\.key|epoch\.key",
}


def descriptors(pid: int) -> dict[int, str]:
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed while we looked
    return found


def libraries(pid: int) -> set[str]:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}


def internet_sockets(pid: int) -> list[str]:
    inodes = set()
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        path = Path(f"/proc/{pid}/net/{table}")
        if path.exists():
            inodes |= {line.split()[9] for line in path.read_text().splitlines()[1:]}
    sockets = [re.fullmatch(r"socket:\[(\d+)\]", target) for target in descriptors(pid).values()]
    return [match.group(0) for match in sockets if match and match.group(1) in inodes]


@only_root_looks_in
@pytest.mark.parametrize("zone", ["door", "lens", "vault", "admin"])
def test_a_zone_has_open_only_what_it_may(house: House, zone: Zone) -> None:
    pid = house.door.pid(zone)
    opened = set(descriptors(pid).values())
    loaded = libraries(pid)
    forbidden = re.compile(FORBIDDEN[zone])
    assert [name for name in opened | loaded if forbidden.search(name)] == []
    assert internet_sockets(pid) == []
    state = str(house.door.state)
    own = (f"{state}/{zone}/", f"{state}/logs/{zone}.log")
    files = {name for name in opened if name.startswith("/") and not name.startswith("/dev/")}
    assert {name for name in files if not name.startswith(own)} == set(), "files of its own alone"
    devices = {name for name in opened if name.startswith("/dev/")} - {"/dev/null", "/dev/urandom"}
    if zone == "door":
        assert all(name.startswith("/dev/pts/") for name in devices), "the badge reader's line"
    else:
        assert devices == set()


@only_root_looks_in
def test_lens_alone_loads_a_database_or_image_library_where_it_may(house: House) -> None:
    assert not any(re.search(DATABASE, name) for name in libraries(house.door.pid("lens")))
    assert any("cv2" in name for name in libraries(house.door.pid("lens"))), "this test can see a library"


@only_root_looks_in
def test_the_camera_is_open_during_an_attempt_and_at_no_other_time(house: House) -> None:
    shows = str(house.door.state / "shows")

    def camera() -> list[str]:
        return [name for name in descriptors(house.door.pid("lens")).values() if name.startswith(shows)]

    house.wait_locked()
    assert camera() == []
    house.show(None)
    house.press()
    assert eventually(camera, 5), "open during the attempt"
    house.wait_locked()
    assert camera() == []


@pytest.mark.parametrize("zone", ["lens", "vault"])
@pytest.mark.parametrize("after", [0.1, 0.6, 0.9])
def test_a_zone_killed_in_an_attempt_leaves_the_relay_off(house: House, zone: Zone, after: float) -> None:
    house.wait_locked()
    house.show(house.portraits["biden.jpg"])
    since = house.press()
    house.wait_attempt()
    time.sleep(after)
    house.door.kill(zone)
    eventually(lambda: house.door.board.state(house.door.settings.door.lamp_busy_pin) == 0, 15)
    assert house.opened(since) == []
    assert house.door.board.wait_for(house.relay, 1, 5, since=house.badge()), "and the badge opens"
    house.door.wait_ready([zone])


def test_admin_killed_or_hung_keeps_no_badge_waiting(house: House) -> None:
    admin = house.door.pid("admin")
    os.kill(admin, signal.SIGSTOP)
    try:
        house.wait_locked()
        assert house.door.board.wait_for(house.relay, 1, 5, since=house.badge())
    finally:
        os.kill(admin, signal.SIGCONT)
    house.door.kill("admin")
    house.wait_locked()
    assert house.door.board.wait_for(house.relay, 1, 5, since=house.badge())
    house.door.wait_ready(["admin"])


def test_names_numbers_and_secrets_are_in_no_journal_or_log(house: House) -> None:
    from appliance.vault.token import Token  # noqa: PLC0415
    from tests.system.house import BADGE, NAME  # noqa: PLC0415

    token = Token.decode(house.token)
    person = house.api.call("GET", "/people")["items"][0]["id"]
    words = [NAME, person, f"{BADGE[1]:x}", str(BADGE[1]), token.handle.hex(), bytes(token.secret).hex()]
    for zone in ("door", "lens", "vault", "admin"):
        for path in (house.door.state / zone / "journal.jsonl", house.door.state / "logs" / f"{zone}.log"):
            text = path.read_text().lower()
            assert [word for word in words if word.lower() in text] == [], path
