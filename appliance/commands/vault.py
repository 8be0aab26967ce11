"""`drempel check` and `drempel decommission`: what stands in vault, and its end."""

import contextlib
import importlib
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from appliance.api_client import ApiClient, ApiError
from appliance.commands.shared import AsJson, Config, api_client, progress, show
from appliance.errors import ConfigurationError
from appliance.process import acting_as, in_place_of
from appliance.settings import Settings, load

PATIENCE = 2.0
"""Seconds of silence, after which a command says what it is doing."""

DESTROYED = "The keys are destroyed: no template of this device can ever be opened again. Badges go on."


def check(config: Config = None, as_json: AsJson = False) -> None:
    """See whether every stored record is whole and authentic, and count them; exit 1 where one is not.

    No names are told, and no template is opened for it.
    """
    api = api_client(config)
    with _said_when_slow("Vault reads every record: with 100,000 of them it takes up to a minute."):
        found = api.call("GET", "/vault/check")
    tiers = ", ".join(
        f"{count} of {tier.replace('tier', 'tier ')}" for tier, count in found["records"].items()
    )
    lines = [
        f"records: {tiers}; epoch {found['epoch']}",
        f"unreadable: {found['unreadable']}; database: {found['database']}",
    ]
    if not found["ok"]:
        lines.append(
            "a record that is not authentic never opens for its person: whoever is refused again and again "
            "is enrolled anew, which replaces it"
            if found["database"] == "sound"
            else "vault.db is damaged: stop vault, move the file away, and enrol everyone anew; badges go on"
        )
    show(found, "\n".join(lines), as_json=as_json)
    sys.exit(0 if found["ok"] else 1)


def rotate_keys(config: Config = None, as_json: AsJson = False) -> None:
    """Change vault's epoch key, as each erasure does. Everyone's token stays as it is.

    No copy of vault's database from before opens any more. How the other keys are changed: docs/keys.md.
    """
    api = api_client(config)
    with _said_when_slow(
        "Vault seals every record's half anew: with 100,000 of them it takes a few seconds."
    ):
        done = api.call("POST", "/vault/rotation")
    show(done, "The epoch key is a new one; the old one is destroyed.", as_json=as_json)


def trust_clock(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: the clock is right.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Say that this device's clock is right, after you looked at it: date, or timedatectl.

    Vault does not believe a clock that jumped far ahead, or back behind what it was: until then, people with
    hours are not recognised, and use their badge. It was wrong, and is right now? Then this puts it right.
    """
    api = api_client(config)
    if not yes:
        now = datetime.now(tz=UTC).astimezone(ZoneInfo(load(config).site.time_zone))
        if not sys.stdin.isatty():
            raise ConfigurationError("there is no terminal to ask on: add --yes where the clock is right")
        # A wrong time that is confirmed ends every template that it takes for over, a day later.
        if not typer.confirm(f"This device says that it is {now:%A %d %B %Y, %H:%M} there. Is that right?"):
            raise ConfigurationError("set the clock first (timedatectl): nothing changed")
    done = api.call("POST", "/vault/clock")
    show(done, "Vault goes by the clock from now on.", as_json=as_json)


def decommission(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask: destroy the keys.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Destroy vault's keys, for good: no template of this device can be opened any more. Badges go on.

    For the end of a device's life, or after tampering. There is no way back, and no copy of the keys: after
    it vault starts as a new device's only, and everyone is enrolled anew.
    """
    settings = load(config)
    name = settings.site.name
    if not yes:
        _confirm(name)
    api = api_client(config)
    if _vault_answers(api):
        api.call("POST", "/decommission", {"site": name})
    else:
        progress("No vault answers: the keys are destroyed in its place.")
        _destroy(settings)
    show({"state": "decommissioned"}, DESTROYED, as_json=as_json)


def _confirm(name: str) -> None:
    """Have the site's name typed.

    Raises:
        ConfigurationError: another was typed, or nobody can type.
    """
    if not sys.stdin.isatty():
        raise ConfigurationError("there is no terminal to confirm on: add --yes to destroy the keys")
    progress(
        f"This destroys the keys of {name!r} for good: nobody's face opens afterwards, until all are enrolled"
    )
    progress("anew on a vault that began as new. Badges go on.")
    if typer.prompt("Type the site's name to go on").strip() != name:
        raise ConfigurationError("that is not the site's name: nothing was destroyed")


def _vault_answers(api: ApiClient) -> bool:
    try:
        return api.call("GET", "/status")["vault"] is not None
    except ApiError:
        return False


def _destroy(settings: Settings) -> None:
    """Destroy the keys where no vault runs that would: in its place, and with its user's rights.

    Raises:
        ConfigurationError: vault runs after all, or this user may not.
        ApiError: something may still be there.
    """
    # Loaded by its name, as every zone is.
    destroy_keys = importlib.import_module("appliance.vault.decommission").destroy_keys
    with in_place_of(settings, "vault"), acting_as(settings.users.vault):
        try:
            destroy_keys(settings.zone_state("vault"), tcti=settings.recognition.tpm)
        except OSError as error:
            raise ApiError(
                f"a key may still be there ({error.strerror or error}): free some space or mend the disk, "
                "and call this again"
            ) from error
    progress("Where systemd handed vault its root key, remove the sealed credential drempel-root-key too.")


@contextlib.contextmanager
def _said_when_slow(text: str) -> Iterator[None]:
    timer = threading.Timer(PATIENCE, progress, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
