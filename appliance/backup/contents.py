"""What is in a backup: a tar of five files, and of nothing else.

`about.json` says when it was made and by which Drempel; then `drempel.toml`, admin's `registry.db`, and
door's `badges.db` with `badge.key`, without which its pseudonyms match no badge. Never in it: vault's files
(`vault.db`, the epoch key, the root key), so that no backup brings an erased template back; the journals,
which are evidence of one device; the readers' keys, which their installer has; the model packs.
"""

import importlib.metadata
import io
import json
import sqlite3
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from appliance.backup.copying import copy_database, read_file
from appliance.backup.sealing import BackupUnreadable
from appliance.door.badges import is_key_of
from appliance.errors import ConfigurationError
from appliance.settings import Settings

FORMAT = 1
"""Of the list of files, in `about.json`."""
_ABOUT, _CONFIG, _REGISTRY, _BADGES, _KEY = NAMES = (
    "about.json",
    "drempel.toml",
    "registry.db",
    "badges.db",
    "badge.key",
)
_FILES = NAMES[1:]


@dataclass(frozen=True, slots=True, repr=False)
class Contents:
    """The files, as bytes; `made_at` is UTC, ISO 8601."""

    made_at: str
    config: bytes
    registry: bytes
    badges: bytes
    badge_key: bytes

    @classmethod
    def of_door(cls, settings: Settings, config: Path) -> "Contents":
        """Those of the door on this device, which may be running.

        Door's part is taken before admin's: a badge that is taken away in between stands in the registry as
        removed, and one that is given in between is in neither, once restored.

        Raises:
            NotCopied: a part is damaged or missing, or the badge file is not of this key.
            ConfigurationError: this user may not read a part.
        """
        door, admin = settings.zone_state("door"), settings.zone_state("admin")
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        key = read_file(door / _KEY, settings.users.door)

        def fits(copy: sqlite3.Connection) -> None:
            if not is_key_of(key, copy):
                raise sqlite3.DatabaseError(f"{_KEY} is not its key")

        badges = copy_database(door / _BADGES, settings.users.door, fits)
        registry = copy_database(admin / _REGISTRY, settings.users.admin)
        try:
            text = config.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{config} cannot be read: {error.strerror or error}") from error
        return cls(made_at, text, registry, badges, key)

    def packed(self) -> bytearray:
        """The tar, in a buffer that the caller owns: the badge key is in it."""
        about = {
            "format": FORMAT,
            "made_at": self.made_at,
            "made_by": f"drempel {importlib.metadata.version('drempel')}",
        }
        parts = (json.dumps(about).encode(), self.config, self.registry, self.badges, self.badge_key)
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in zip(NAMES, parts, strict=True):
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o600
                tar.addfile(entry, io.BytesIO(content))
        return bytearray(buffer.getbuffer())

    @classmethod
    def unpacked(cls, packed: bytearray) -> "Contents":
        """Those of a tar that `packed` made; it is authentic, so what is wrong with it is its age.

        Raises:
            BackupUnreadable: it was made by another version of Drempel.
        """
        try:
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
                found = {entry.name: tar.extractfile(entry) for entry in tar if entry.isfile()}
                parts = {name: file.read() for name, file in found.items() if file is not None}
            about = json.loads(parts[_ABOUT])
            if about["format"] != FORMAT:
                raise BackupUnreadable("this backup was made by a newer Drempel: upgrade this one")
            config, registry, badges, key = (parts[name] for name in _FILES)
            return cls(str(about["made_at"]), config, registry, badges, key)
        except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
            if isinstance(error, BackupUnreadable):
                raise
            raise BackupUnreadable(
                "this backup lacks a part: it was made by another version of Drempel"
            ) from None
