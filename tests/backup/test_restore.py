"""A backup of a door, and the files that a restore leaves: whole, owned by the right user, and no others."""

import io
import json
import os
import pwd
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.admin.accounts import Accounts
from appliance.admin.registry.consent import Act, give_consent, withdraw_consent
from appliance.admin.registry.database import Registry
from appliance.admin.registry.people import add_person, list_people
from appliance.backup import restoring
from appliance.backup.contents import NAMES, Contents
from appliance.backup.copying import NotCopied
from appliance.backup.restoring import TombstonesLost, restore
from appliance.backup.sealing import BackupUnreadable
from appliance.door.badges import Badges
from appliance.errors import ConfigurationError
from appliance.journal import verify
from appliance.process import acting_as, in_place_of
from appliance.settings import Settings, load
from tests.backup.histories import Door

NAME = "Wilhelmina van Oranje"
USERS = {"door": "daemon", "lens": "bin", "vault": "mail", "admin": "news"}
AS_YOURSELF = dict.fromkeys(USERS, "")


def written(folder: Path, users: dict[str, str]) -> Path:
    config = folder / "drempel.toml"
    lines = "\n".join(f'{zone} = "{user}"' for zone, user in users.items())
    config.write_text(
        f'[site]\nname = "Here"\n[paths]\nstate = "{folder}/state"\nruntime = "{folder}/run"\n'
        f"[users]\n{lines}\n"
    )
    return config


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Door, Path]]:
    """A door with a person, a consent, a template and a badge; and its settings."""
    config = written(tmp_path, AS_YOURSELF)
    door = Door(tmp_path / "state")
    door.live([("add person", 0), ("consent", 0), ("enrol", 0), ("add badge", 0)])
    add_person(door.registry, NAME)
    vault = tmp_path / "state" / "vault"
    vault.mkdir()
    for name in ("vault.db", "root.key", "epoch-1.key"):
        (vault / name).write_bytes(b"SECRET OF VAULT " + name.encode())
    yield door, config
    door.close()


def taken(config: Path) -> Contents:
    return Contents.of_door(load(config), config)


def test_a_backup_of_a_running_door_holds_five_files_and_nothing_of_vault(site: tuple[Door, Path]) -> None:
    _, config = site
    packed = taken(config).packed()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        assert tuple(tar.getnames()) == NAMES
        about = tar.extractfile("about.json")
        assert about is not None
        assert set(json.load(about)) == {"format", "made_at", "made_by"}
    assert b"SECRET OF VAULT" not in packed
    assert NAME.encode() in packed


def test_what_is_only_in_the_log_yet_is_in_the_backup(site: tuple[Door, Path]) -> None:
    door, config = site
    assert (door.folder / "admin" / "registry.db-wal").stat().st_size > 0
    contents = taken(config)
    (door.folder / "copy.db").write_bytes(contents.registry)
    registry = Registry(door.folder / "copy.db")
    assert [each.name for each in list_people(registry, 0, 9).items] == ["Person 1", NAME]
    registry.close()


def test_it_comes_back_as_it_was(site: tuple[Door, Path]) -> None:
    door, config = site
    text = config.read_text()
    contents = Contents.unpacked(taken(config).packed())
    number = door._number
    badges, lawful = door.badges.ids(), door.lawful()
    door.live([("add badge", 0), ("add badge", 0), ("add person", 0)])
    door.close()
    config.write_text(text.replace("Here", "There"))
    done = restore(contents, config)
    assert (done.tombstones, done.settings) == ("replayed", True)
    assert config.read_text() == text
    door.open()
    assert door.badges.ids() == badges
    assert door.badges.opens(64, number)
    assert not door.badges.opens(64, number + 1)
    assert door.lawful() == lawful
    assert done.found.later_people == 1
    assert verify(door.folder / "admin" / "journal.jsonl").lines == 1
    assert "restored" in (door.folder / "admin" / "journal.jsonl").read_text()
    assert not (door.folder / "restoring").exists()
    for path in (door.folder / "door" / "badges.db", door.folder / "admin" / "registry.db"):
        assert path.stat().st_mode & 0o777 == 0o600
    # Vault's files are left as they are.
    assert (door.folder / "vault" / "root.key").read_bytes().startswith(b"SECRET")


def test_tombstones_are_replayed_from_the_log_of_a_zone_that_was_killed(site: tuple[Door, Path]) -> None:
    door, config = site
    contents = taken(config)
    person = list_people(door.registry, 0, 9).items[0].id
    withdraw_consent(door.registry, person)
    # As a kill leaves it: the withdrawal is in the log alone.
    killed = door.folder / "killed"
    shutil.copytree(door.folder / "admin", killed)
    door.close()
    shutil.rmtree(door.folder / "admin")
    killed.rename(door.folder / "admin")
    done = restore(contents, config)
    assert (done.found.consents_withdrawn_since, done.found.templates_kept) == (1, 0)
    door.open()
    assert door.lawful() == set()


def test_a_zone_that_runs_is_not_restored_under(site: tuple[Door, Path]) -> None:
    door, config = site
    contents = taken(config)
    before = (door.folder / "admin" / "registry.db").read_bytes()
    pid = os.fork()
    if pid == 0:
        with in_place_of(load(config), "lens"):
            os.close(os.open(door.folder / "held", os.O_CREAT))
            while not (door.folder / "let go").exists():
                pass
        os._exit(0)
    try:
        while not (door.folder / "held").exists():
            pass
        with pytest.raises(ConfigurationError, match=r"lens runs already.*stop Drempel first"):
            restore(contents, config)
    finally:
        (door.folder / "let go").touch()
        os.waitpid(pid, 0)
    assert (door.folder / "admin" / "registry.db").read_bytes() == before


def damage(door: Door) -> None:
    door.close()
    path = door.folder / "admin" / "registry.db"
    path.write_bytes(b"no database" + path.read_bytes()[11:])


def test_with_a_damaged_registry_nothing_is_restored_until_somebody_says_so(site: tuple[Door, Path]) -> None:
    door, config = site
    (badge,) = door.badges.ids()
    door.live([("add badge", 1)])
    contents = taken(config)
    # Taken away since, which door's own file still knows.
    door.badges.remove(badge)
    kept = door.badges.ids()
    damage(door)
    with pytest.raises(TombstonesLost, match="--tombstones-lost"):
        restore(contents, config)
    done = restore(contents, config, tombstones_lost=True)
    assert done.tombstones == "lost"
    door.open()
    assert door.lawful() == set()
    assert door.badges.ids() == door.active_badges() == kept
    assert '"tombstones_lost":true' in (door.folder / "admin" / "journal.jsonl").read_text().replace(" ", "")


def test_on_a_new_device_without_settings(site: tuple[Door, Path]) -> None:
    door, config = site
    contents = taken(config)
    door.close()
    shutil.rmtree(door.folder)
    config.unlink()
    done = restore(contents, config)
    assert done.tombstones == "none"
    assert (done.found.people, done.found.badges, done.found.templates_kept) == (2, 1, 0)
    assert load(config).site.name == "Here"
    door.open()
    assert len(door.people()) == 2


@pytest.mark.parametrize("step", ["badge.key", "badges.db", "registry.db", "settings"])
def test_a_restore_that_is_cut_short_comes_to_the_same_when_it_is_run_again(
    site: tuple[Door, Path], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    door, config = site
    contents = taken(config)
    person = list_people(door.registry, 0, 9).items[0].id
    door._erase_person(person, None)
    door.close()

    class Cut(Exception):
        pass

    install = restoring._install

    def cut(draft: Path, *rest: object) -> None:
        if draft.name == step:
            raise Cut
        install(draft, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        if step == "settings":
            patched.setattr(restoring, "_install_settings", lambda *_: (_ for _ in ()).throw(Cut))
        else:
            patched.setattr(restoring, "_install", cut)
        with pytest.raises(Cut):
            restore(contents, config)
    restore(contents, config)
    door.open()
    assert person not in door.people()
    assert door.badges.ids() == door.active_badges() == set()
    assert door.lawful() == set()


def test_a_power_cut_leaves_its_drafts_to_the_next_restore_which_removes_them(
    site: tuple[Door, Path],
) -> None:
    door, config = site
    contents = taken(config)
    door.close()
    (door.folder / "restoring").mkdir()
    (door.folder / "restoring" / "registry.db").write_text(NAME)
    restore(contents, config)
    assert not (door.folder / "restoring").exists()
    door.open()


def test_settings_that_name_other_places_are_not_overwritten(site: tuple[Door, Path]) -> None:
    door, config = site
    contents = taken(config)
    door.close()
    elsewhere = config.read_text().replace("/state", "/elsewhere")
    config.write_text(elsewhere)
    with pytest.raises(ConfigurationError, match=r"another \[paths\] state.*--keep-settings"):
        restore(contents, config)
    done = restore(contents, config, keep_settings=True)
    assert (done.settings, done.tombstones) == (False, "none")
    assert config.read_text() == elsewhere
    door.open()


def test_a_damaged_part_is_not_backed_up(site: tuple[Door, Path]) -> None:
    door, config = site
    key = (door.folder / "door" / "badge.key").read_bytes()
    (door.folder / "door" / "badge.key").write_bytes(bytes(32))
    with pytest.raises(NotCopied, match=r"badge\.key is not its key"):
        taken(config)
    (door.folder / "door" / "badge.key").write_bytes(key)
    damage(door)
    with pytest.raises(NotCopied, match=r"registry\.db"):
        taken(config)
    door.folder.joinpath("admin", "registry.db").unlink()
    with pytest.raises(NotCopied, match=r"registry\.db"):
        taken(config)
    assert not (door.folder / "admin" / "registry.db").exists()
    door.open()


@pytest.mark.parametrize("part", ["badges", "registry"])
def test_a_backup_with_a_part_that_is_no_database_changes_nothing(site: tuple[Door, Path], part: str) -> None:
    door, config = site
    contents = taken(config)
    people = door.people()
    door.close()
    values = {name: getattr(contents, name) for name in Contents.__slots__}
    broken = Contents(**{**values, part: b"no database" * 1000})
    with pytest.raises(BackupUnreadable, match="another backup"):
        restore(broken, config)
    door.open()
    assert door.people() == people


def test_a_tar_of_another_version_is_said_to_be_one() -> None:
    with pytest.raises(BackupUnreadable, match="another version"):
        Contents.unpacked(bytearray(10240))


def test_a_backup_shows_nothing_of_itself(site: tuple[Door, Path]) -> None:
    _, config = site
    assert NAME not in repr(taken(config))


# --- as root, with four users -------------------------------------------------------------------


@pytest.fixture
def device() -> Iterator[Settings]:
    """Folders as on a device, below one that everyone may enter."""
    root = Path(tempfile.mkdtemp(prefix="drempel-"))
    root.chmod(0o755)
    settings = load(written(root, USERS))
    for zone, user in USERS.items():
        settings.zone_state(zone).mkdir(parents=True, mode=0o700)  # type: ignore[arg-type]
        shutil.chown(settings.zone_state(zone), user, pwd.getpwnam(user).pw_gid)  # type: ignore[arg-type]
    with acting_as(USERS["door"]):
        badges = Badges(settings.zone_state("door"))
        badges.add(bytes(16), 26, 5)
        badges.close()
    with acting_as(USERS["admin"]):
        registry = Registry(settings.zone_state("admin") / "registry.db")
        person = add_person(registry, NAME)[0].id
        give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
        with registry.transaction() as db:
            db.execute("INSERT INTO badge VALUES (?, ?, '', 'active')", (bytes(16), person))
        Accounts(registry)
        registry.close()
    yield settings
    shutil.rmtree(root)


def owners(folder: Path) -> dict[str, str]:
    return {path.name: pwd.getpwuid(path.stat().st_uid).pw_name for path in folder.iterdir()}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become four users")
def test_every_file_is_its_zones_own(device: Settings, *, fresh: bool) -> None:
    config = device.paths.state.parent / "drempel.toml"
    contents = Contents.of_door(device, config)
    assert set(owners(device.zone_state("admin")).values()) == {USERS["admin"]}
    assert set(owners(device.zone_state("door")).values()) == {USERS["door"]}
    if fresh:
        shutil.rmtree(device.paths.state)
        config.unlink()
    done = restore(contents, config)
    assert (done.found.people, done.found.badges) == (1, 1)
    for zone, user in USERS.items():
        folder = device.zone_state(zone)  # type: ignore[arg-type]
        assert pwd.getpwuid(folder.stat().st_uid).pw_name == user
        assert folder.stat().st_mode & 0o777 == 0o700
        assert set(owners(folder).values()) == {user}
    assert os.geteuid() == 0
    with acting_as(USERS["door"]):
        badges = Badges(device.zone_state("door"))
        assert badges.opens(26, 5)
        badges.close()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become four users")
def test_a_zone_gone_bad_cannot_lead_root_to_anothers_files(device: Settings) -> None:
    """Its file is a link to vault's: root reads it as that zone would, which may not."""
    config = device.paths.state.parent / "drempel.toml"
    secret = device.zone_state("vault") / "vault.db"
    database = sqlite3.connect(secret)
    database.execute("CREATE TABLE secret (it)")
    database.close()
    shutil.chown(secret, USERS["vault"])
    secret.chmod(0o600)
    admin = device.zone_state("admin") / "registry.db"
    admin.unlink()
    admin.symlink_to(secret)
    with pytest.raises(NotCopied):
        Contents.of_door(device, config)
    contents = Contents("2026-11-25", config.read_bytes(), b"", b"", b"")
    with pytest.raises(TombstonesLost):
        restore(contents, config)
    assert admin.is_symlink()
