"""`drempel backup` and `drempel restore`: what may be kept elsewhere, and brought back; never a template."""

import contextlib
import dataclasses
import getpass
import os
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from appliance.commands.shared import AsJson, Config, progress, show
from appliance.errors import ConfigurationError
from appliance.settings import DEFAULT_PATH, load

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file", help="A file whose first line is the passphrase; else it is asked for."
    ),
]

NO_TEMPLATES = (
    "Templates are not in it, nor in any backup: an erased template stays erased, because no copy of the key "
    "that opened it is left anywhere."
)


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it: a new file.")],
    passphrase_file: PassphraseFile = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Write settings, badges and registry to one sealed file, as root; the door goes on meanwhile.

    Templates and vault's keys are not in it, so that it brings back nobody who was erased; nor are journals,
    the readers' keys and model packs. Whoever has the file and the passphrase reads everybody's name.
    """
    from appliance.backup.contents import Contents  # noqa: PLC0415
    from appliance.backup.sealing import seal  # noqa: PLC0415

    path = _settings_path(config)
    contents = Contents.of_door(load(path), path)
    with _passphrase(passphrase_file, twice=True) as passphrase:
        packed = contents.packed()
        try:
            seal(packed, passphrase, file)
        finally:
            packed[:] = bytes(len(packed))
    progress(NO_TEMPLATES)
    progress("Keep the file and the passphrase apart, and off this device: one without the other is nothing.")
    found = {"file": str(file), "made_at": contents.made_at, "bytes": file.stat().st_size}
    show(found, f"{file}: settings, badges and registry as of {contents.made_at}", as_json=as_json)


def restore(
    file: Annotated[Path, typer.Argument(help="What `drempel backup` wrote.")],
    passphrase_file: PassphraseFile = None,
    keep_settings: Annotated[
        bool, typer.Option("--keep-settings", help="Leave the settings file as it is, and obey it.")
    ] = False,
    tombstones_lost: Annotated[
        bool,
        typer.Option(
            "--tombstones-lost",
            help="Go on although the registry here is damaged, and nobody can tell who withdrew since.",
        ),
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup in force, as root, with Drempel stopped.

    What ended since the backup stays ended: who was erased is not brought back, who withdrew has withdrawn, a
    badge that was taken away does not open. Badges given since are gone, and so are templates made since.
    """
    from appliance.backup.contents import Contents  # noqa: PLC0415
    from appliance.backup.restoring import restore as put_in_force  # noqa: PLC0415
    from appliance.backup.sealing import unseal  # noqa: PLC0415

    with _passphrase(passphrase_file, twice=False) as passphrase:
        packed = unseal(file, passphrase)
    try:
        contents = Contents.unpacked(packed)
    finally:
        packed[:] = bytes(len(packed))
    done = put_in_force(
        contents, _settings_path(config), keep_settings=keep_settings, tombstones_lost=tombstones_lost
    )
    found = done.found
    for line in _next_steps(done.tombstones, done.made_at, found.later_people):
        progress(line)
    text = (
        f"restored, as of {done.made_at}: {found.people} people, {found.badges} badges, "
        f"{found.templates_kept} templates still enrolled\n"
        f"  not brought back: {found.people_erased_since} people erased since, "
        f"{found.consents_withdrawn_since} consents withdrawn since, {found.badges_not_restored} badges\n"
        f"  templates that vault is asked to erase: {found.templates_to_erase}"
    )
    as_data = {"made_at": done.made_at, "tombstones": done.tombstones, "settings": done.settings}
    show(as_data | dataclasses.asdict(found), text, as_json=as_json)


def _next_steps(tombstones: str, made_at: str, later_people: int) -> list[str]:
    """What the administrator does next, a line each."""
    steps = []
    if tombstones != "replayed":
        steps.append(
            f"Whoever withdrew or was erased after {made_at} is here as they were then, and so are badges "
            "taken away since: look in your own records, and do it again."
        )
        steps.append(NO_TEMPLATES + " People must be enrolled anew.")
    if tombstones == "lost":
        steps.append(
            "Vault may hold templates that nobody here knows of. They open nothing and expire by themselves; "
            "to end them now: drempel decommission."
        )
    if later_people:
        steps.append(
            f"{later_people} people came after the backup: they stay on record, without badge or template."
        )
    steps.append("Next: the readers' keys and the model pack, where they are not here; start Drempel; then")
    steps.append("`drempel status`, and `drempel people list` to see who must be enrolled anew.")
    return steps


def _settings_path(config: Path | None) -> Path:
    return config or Path(os.environ.get("DREMPEL_CONFIG") or DEFAULT_PATH)


@contextlib.contextmanager
def _passphrase(file: Path | None, *, twice: bool) -> Iterator[bytearray]:
    """The passphrase, in a buffer that is overwritten afterwards; composed as NFC, however it was typed.

    Raises:
        ConfigurationError: there is none, or it was typed differently the second time.
    """
    if file is not None:
        try:
            text = file.read_text(encoding="utf-8").split("\n", 1)[0].removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"{file} cannot be read as a line of text: name another file") from error
    elif not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to ask for the passphrase: use --passphrase-file")
    else:
        text = getpass.getpass("Passphrase of the backup: ")
        if twice and getpass.getpass("Once more: ") != text:
            raise ConfigurationError("the two differ: nothing was written; try again")
    secret = bytearray(unicodedata.normalize("NFC", text).encode())
    try:
        yield secret
    finally:
        secret[:] = bytes(len(secret))
