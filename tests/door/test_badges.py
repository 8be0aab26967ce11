import secrets
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.door.badges import Badges, BadgesUnreadable, BadgeTaken

NUMBER = 0x2ABCDE1


@pytest.fixture
def badges(tmp_path: Path) -> Iterator[Badges]:
    opened = Badges(tmp_path)
    yield opened
    opened.close()


def badge_id() -> bytes:
    return secrets.token_bytes(16)


def test_a_badge_opens_from_the_moment_it_is_added_until_it_is_removed(badges: Badges) -> None:
    badge = badge_id()
    assert not badges.opens(26, NUMBER)
    badges.add(badge, 26, NUMBER)
    assert badges.opens(26, NUMBER)
    badges.remove(badge)
    badges.remove(badge)
    assert not badges.opens(26, NUMBER)
    assert badges.count() == 0


def test_the_same_number_with_another_length_is_another_badge(badges: Badges) -> None:
    badges.add(badge_id(), 26, NUMBER)
    assert not badges.opens(27, NUMBER)
    assert not badges.opens(34, NUMBER)


def test_adding_the_same_badge_twice_changes_nothing(badges: Badges) -> None:
    badge = badge_id()
    badges.add(badge, 26, NUMBER)
    badges.add(badge, 26, NUMBER)
    assert badges.count() == 1


def test_a_number_belongs_to_one_badge(badges: Badges) -> None:
    badges.add(badge_id(), 26, NUMBER)
    with pytest.raises(BadgeTaken):
        badges.add(badge_id(), 26, NUMBER)
    assert badges.count() == 1


def test_a_badge_keeps_its_number(badges: Badges) -> None:
    badge = badge_id()
    badges.add(badge, 26, NUMBER)
    with pytest.raises(BadgeTaken):
        badges.add(badge, 26, NUMBER + 1)
    assert badges.opens(26, NUMBER)
    assert not badges.opens(26, NUMBER + 1)


@pytest.mark.parametrize(("bits", "number"), [(0, 0), (129, 1), (26, 1 << 26), (26, -1)])
def test_an_absurd_number_opens_nothing_and_cannot_be_added(badges: Badges, bits: int, number: int) -> None:
    assert not badges.opens(bits, number)
    with pytest.raises(ValueError, match="bits"):
        badges.add(badge_id(), bits, number)


def test_badges_outlive_a_restart(tmp_path: Path) -> None:
    first = Badges(tmp_path)
    first.add(badge_id(), 26, NUMBER)
    first.close()
    second = Badges(tmp_path)
    assert second.opens(26, NUMBER)
    second.close()


def test_neither_number_nor_key_stands_in_the_file(tmp_path: Path) -> None:
    badges = Badges(tmp_path)
    number = int.from_bytes(b"wiegand!")
    badges.add(badge_id(), 64, number)
    badges.close()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("badges.db*"))
    assert b"wiegand!" not in stored
    assert (tmp_path / "badge.key").read_bytes() not in stored


def test_a_removed_badge_leaves_no_trace_in_file_or_log(tmp_path: Path) -> None:
    badges = Badges(tmp_path)
    badge = badge_id()
    badges.add(badge, 26, NUMBER)
    pseudonym = badges._pseudonym(26, NUMBER)
    badges.remove(badge)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("badges.db*"))
    assert badge not in stored
    assert pseudonym not in stored
    badges.close()


def test_file_and_key_are_for_their_user_alone(tmp_path: Path) -> None:
    badges = Badges(tmp_path)
    badges.add(badge_id(), 26, NUMBER)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    badges.close()
    assert set(modes) >= {"badges.db", "badges.db-wal", "badge.key"}
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_of_the_wrong_size_is_refused(tmp_path: Path, size: int) -> None:
    Badges(tmp_path).close()
    (tmp_path / "badge.key").write_bytes(bytes(size))
    with pytest.raises(BadgesUnreadable, match=f"{size} bytes"):
        Badges(tmp_path)


def test_another_key_is_refused(tmp_path: Path) -> None:
    Badges(tmp_path).close()
    (tmp_path / "badge.key").write_bytes(secrets.token_bytes(32))
    with pytest.raises(BadgesUnreadable, match="not the key"):
        Badges(tmp_path)


def test_a_lost_key_is_not_quietly_replaced(tmp_path: Path) -> None:
    Badges(tmp_path).close()
    (tmp_path / "badge.key").unlink()
    with pytest.raises(BadgesUnreadable, match="backup"):
        Badges(tmp_path)
    assert not (tmp_path / "badge.key").exists()


def test_a_power_cut_between_key_and_file_is_finished_at_the_next_start(tmp_path: Path) -> None:
    key = secrets.token_bytes(32)
    (tmp_path / "badge.key").write_bytes(key)
    (tmp_path / "badge.new").write_bytes(b"torn")
    Badges(tmp_path).close()
    assert (tmp_path / "badge.key").read_bytes() == key


def test_a_damaged_file_is_refused_at_start(tmp_path: Path) -> None:
    Badges(tmp_path).close()
    (tmp_path / "badges.db").write_bytes(b"no database at all" * 400)
    with pytest.raises(BadgesUnreadable, match="backup"):
        Badges(tmp_path)


def test_a_file_damaged_while_the_door_runs_opens_for_nobody(tmp_path: Path) -> None:
    badges = Badges(tmp_path)
    for number in range(400):
        badges.add(badge_id(), 26, number)
    badges._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    size = (tmp_path / "badges.db").stat().st_size
    with (tmp_path / "badges.db").open("r+b") as file:
        file.seek(4096)  # the schema's page stays whole
        file.write(secrets.token_bytes(size - 4096))
    with pytest.raises(BadgesUnreadable):
        badges.opens(26, 7)
    badges.close()


def test_a_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    Badges(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "badges.db")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(BadgesUnreadable, match="another version"):
        Badges(tmp_path)


def test_a_look_up_does_not_wait_for_a_change(tmp_path: Path, badges: Badges) -> None:
    badges.add(badge_id(), 26, NUMBER)
    other = sqlite3.connect(tmp_path / "badges.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    # The change holds its lock throughout; a look-up that had to wait for it would fail.
    assert badges.opens(26, NUMBER)
    with pytest.raises(BadgesUnreadable, match="locked"):
        badges.add(badge_id(), 26, NUMBER + 1)
    other.execute("ROLLBACK")
    other.close()


def test_badges_may_be_added_on_a_thread_while_others_are_looked_up(badges: Badges) -> None:
    numbers = range(100)
    failures: list[BaseException] = []

    def add() -> None:
        try:
            for number in numbers:
                badges.add(badge_id(), 32, number)
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            failures.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    while thread.is_alive():
        badges.opens(32, 5)
    thread.join()
    assert not failures
    assert all(badges.opens(32, number) for number in numbers)


cards = st.integers(1, 128).flatmap(lambda bits: st.tuples(st.just(bits), st.integers(0, (1 << bits) - 1)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(held=st.sets(cards, max_size=5), shown=cards)
def test_exactly_the_badges_that_were_added_open(
    tmp_path_factory: pytest.TempPathFactory, held: set[tuple[int, int]], shown: tuple[int, int]
) -> None:
    badges = Badges(tmp_path_factory.mktemp("badges"))
    try:
        for bits, number in held:
            badges.add(badge_id(), bits, number)
        assert badges.opens(*shown) is (shown in held)
        assert all(badges.opens(*card) for card in held)
        assert badges.count() == len(held)
    finally:
        badges.close()


def test_only_the_badges_that_are_named_are_kept(badges: Badges, tmp_path: Path) -> None:
    kept, gone = badge_id(), badge_id()
    badges.add(kept, 26, NUMBER)
    badges.add(gone, 26, NUMBER + 1)
    assert badges.ids() == {kept, gone}
    badges.keep_only({kept, badge_id()})
    assert badges.ids() == {kept}
    assert badges.opens(26, NUMBER)
    assert not badges.opens(26, NUMBER + 1)
    badges.close()
    assert gone not in (tmp_path / "badges.db").read_bytes()
