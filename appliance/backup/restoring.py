"""Putting a backup in force: tombstones first, in a draft; then badges, registry and settings, each whole.

All four zones stand still. The draft is made in a folder that only the caller can enter; a file then takes
its place by one rename, with its zone's user as its owner. Cut short at any moment, the same restore run
again comes to the same end: a file that has its place already is one more state to replay tombstones from.
"""

import contextlib
import os
import pwd
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance.admin.registry.database import SCHEMA, TABLES, UPGRADES
from appliance.admin.registry.restoring import Replayed, replay
from appliance.backup.contents import Contents
from appliance.backup.copying import NotCopied, copy_database, read_file
from appliance.backup.sealing import BackupUnreadable
from appliance.database import DatabaseUnusable, open_database
from appliance.door.badges import Badges, BadgesUnreadable
from appliance.errors import ConfigurationError
from appliance.journal import Event, Journal, JournalBroken, JournalError
from appliance.process import ZONES, Zone, acting_as, in_place_of
from appliance.settings import Settings, load

_DRAFTS = "restoring"
"""The folder of the drafts, below `[paths] state`."""


class TombstonesLost(ConfigurationError):
    """The registry on this device is gone or unreadable, so nobody knows what ended since the backup."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    `tombstones` is "replayed", "none" (a new device) or "lost" (a damaged registry); `made_at` the backup's
    moment; `settings` whether its settings were put in force too.
    """

    made_at: str
    tombstones: str
    settings: bool
    found: Replayed


def restore(
    contents: Contents, config: Path, *, keep_settings: bool = False, tombstones_lost: bool = False
) -> Restored:
    """Put a backup in force on this device.

    Args:
        contents: the backup.
        config: where the settings file is, or is to be.
        keep_settings: leave that file as it is, and obey it.
        tombstones_lost: go on where the registry on this device is damaged or gone.

    Raises:
        ConfigurationError: a zone runs; the settings do not fit; this needs root. Nothing changed.
        TombstonesLost, AnotherRegistry: see there. Nothing changed.
        BackupUnreadable: a part of the backup cannot be used. Nothing changed.
    """
    settings = load(config) if keep_settings else _settings_of(contents, config)
    with in_place_of(settings, *ZONES), _drafts(settings.paths.state) as drafts:
        badges, registry = drafts / "badges.db", drafts / "registry.db"
        badges.write_bytes(contents.badges)
        (drafts / "badge.key").write_bytes(contents.badge_key)
        registry.write_bytes(contents.registry)
        tombstones, current = _current_registry(settings, drafts, lost=tombstones_lost)
        try:
            door = Badges(drafts)
            with contextlib.closing(door):
                known = door.ids()
                if tombstones == "lost":
                    known &= _badges_in_force(settings, drafts, contents.badge_key, known)
                found, allowed = replay(registry, current, known)
                door.keep_only(allowed)
        except (BadgesUnreadable, DatabaseUnusable) as error:
            raise BackupUnreadable(
                f"a part of this backup cannot be used: {error}; use another backup"
            ) from error
        # The registry first: cut short after it, this is run again and finds its own tombstones; door's files
        # without it would look like a device whose registry is gone. The key before its file: were it cut
        # short there, door would say so and open for nobody.
        _install(registry, settings, "admin")
        _install(drafts / "badge.key", settings, "door")
        _install(badges, settings, "door")
        if not keep_settings:
            _install_settings(contents.config, config)
        _note(settings, lost=tombstones == "lost")
    return Restored(contents.made_at, tombstones, not keep_settings, found)


def _settings_of(contents: Contents, config: Path) -> Settings:
    """The backup's settings, where they name the same places and users as those in force."""
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / config.name
        draft.write_bytes(contents.config)
        try:
            settings = load(draft)
        except ConfigurationError as error:
            raise ConfigurationError(
                f"the settings in the backup do not fit this version of Drempel: write {config} anew, and "
                "restore with --keep-settings"
            ) from error
    if config.exists():
        try:
            text = tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return settings  # damaged: it is what is being restored
        for table, key in (("paths", "state"), *(("users", zone) for zone in ZONES)):
            now = text.get(table, {}).get(key, getattr(getattr(Settings(), table), key))
            if str(now) != str(getattr(getattr(settings, table), key)):
                raise ConfigurationError(
                    f"{config} has another [{table}] {key} than the backup: restore with --keep-settings, or "
                    "move it away first"
                )
    return settings


@contextlib.contextmanager
def _drafts(state: Path) -> Iterator[Path]:
    """An empty folder that only the caller can enter, on the file system of what it is for."""
    folder = state / _DRAFTS
    # One that a restore left which was cut short: there is a registry in it.
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _current_registry(settings: Settings, drafts: Path, *, lost: bool) -> tuple[str, Path | None]:
    """A copy of the registry in force, and how its tombstones stand: see `Restored`."""
    path = settings.zone_state("admin") / "registry.db"
    with acting_as(settings.users.admin):
        # Also where it is a link to what this user may not see: that is no new device.
        there = os.path.lexists(path)
    if not there and _is_new(settings):
        return "none", None
    if not there:
        if lost:
            return "lost", None
        raise TombstonesLost(
            f"{path} is gone, though other zones hold something: nobody can tell who withdrew, was erased, "
            "or lost a badge since the backup: look in your own records, restore with --tombstones-lost, and "
            "erase these people again"
        )
    copy = drafts / "current.db"
    try:
        copy.write_bytes(copy_database(path, settings.users.admin))
        open_database(copy, SCHEMA, TABLES, UPGRADES).close()
    except (NotCopied, DatabaseUnusable) as error:
        if lost:
            return "lost", None
        raise TombstonesLost(
            f"{error}: so nobody can tell who withdrew, was erased, or lost a badge since the backup: look "
            "in your own records, restore with --tombstones-lost, and erase these people again"
        ) from error
    return "replayed", copy


def _is_new(settings: Settings) -> bool:
    """Whether no zone of this device has ever held anything."""
    held: list[tuple[Zone, str]] = [("door", "badges.db"), ("vault", "vault.db")]
    for zone, name in held:
        with acting_as(getattr(settings.users, zone)):
            if os.path.lexists(settings.zone_state(zone) / name):
                return False
    return True


def _badges_in_force(settings: Settings, drafts: Path, key: bytes, known: set[bytes]) -> set[bytes]:
    """The badges that door has now, where that can be told; else all of the backup's.

    With the registry lost, door's own file still says which badges were taken away since.
    """
    door = settings.zone_state("door")
    folder = drafts / "door"
    folder.mkdir()
    try:
        if read_file(door / "badge.key", settings.users.door) != key:
            return known
        (folder / "badge.key").write_bytes(key)
        (folder / "badges.db").write_bytes(copy_database(door / "badges.db", settings.users.door))
        with contextlib.closing(Badges(folder)) as now:
            return now.ids()
    except (NotCopied, BadgesUnreadable):
        return known


def _install(draft: Path, settings: Settings, zone: Zone) -> None:
    """Give a draft its zone's user and its place, durably."""
    place = settings.zone_state(zone) / draft.name
    name = getattr(settings.users, zone)
    draft.chmod(0o600)
    if name:
        user = pwd.getpwnam(name)
        os.chown(draft, user.pw_uid, user.pw_gid)
    _sync(draft)
    # What a log of the file before holds stands in the file, where that was sound; the new one has none.
    for log in ("-wal", "-shm", "-journal"):
        place.with_name(place.name + log).unlink(missing_ok=True)
    draft.rename(place)
    _sync(place.parent)


def _install_settings(text: bytes, config: Path) -> None:
    """Put the settings file in its place, durably; everyone's to read, since there is no secret in it."""
    config.parent.mkdir(parents=True, exist_ok=True)
    draft = config.with_name(f".{config.name}.restoring")
    draft.write_bytes(text)
    draft.chmod(config.stat().st_mode & 0o777 if config.exists() else 0o644)
    _sync(draft)
    draft.rename(config)
    _sync(config.parent)


def _note(settings: Settings, *, lost: bool) -> None:
    """Write the restore down in admin's journal; a journal that is damaged keeps nobody from restoring."""
    with acting_as(settings.users.admin), contextlib.suppress(JournalError, JournalBroken):
        journal = Journal(settings.zone_state("admin") / "journal.jsonl")
        with contextlib.closing(journal):
            journal.note(Event.RESTORED, tombstones_lost=lost)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
