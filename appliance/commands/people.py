"""`drempel people`, `consent`, `enrol`, `erase` and `badges`: all through the local API."""

import base64
import enum
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from appliance.api_client import ApiClient, ApiError
from appliance.commands.shared import (
    AsJson,
    Config,
    Who,
    api_client,
    badge_number,
    call_api,
    person_id,
    progress,
    show,
    show_table,
)
from appliance.errors import ConfigurationError


class Claim(enum.StrEnum):
    """With what a person claims their template."""

    TOKEN = "token"  # noqa: S105 - a word of the interface
    CARD = "card"
    NUMBER = "number"


people_app = typer.Typer(help="People: who may have a badge or a template.", no_args_is_help=True)
consent_app = typer.Typer(help="Consent: without it on record, nobody is enrolled.", no_args_is_help=True)
badges_app = typer.Typer(help="Badges: equal to the face, and independent of it.", no_args_is_help=True)


@people_app.command("add")
def people_add(
    name: Annotated[
        str, typer.Argument(help="As the administrator knows the person; it stays in the admin zone.")
    ],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Add a person."""
    person = call_api(config, "POST", "/people", {"name": name.strip()})
    show(person, f"added {person['name']}: {person['id']}", as_json=as_json)


@people_app.command("list")
def people_list(config: Config = None, as_json: AsJson = False) -> None:
    """Everyone, and what is held for them."""
    people = api_client(config).pages("/people")
    show_table(sorted(people, key=lambda each: str(each["name"]).casefold()), as_json=as_json)


@people_app.command("erase")
def people_erase(who: Who, config: Config = None, as_json: AsJson = False) -> None:
    """Erase a person: template, badges, consents and name."""
    api = api_client(config)
    api.call("DELETE", f"/people/{person_id(api, who)}")
    show({"state": "erased"}, "erased, in every zone", as_json=as_json)


@consent_app.command("give")
def consent_give(
    who: Who,
    notice: Annotated[str, typer.Option(help="The version of the notice that the person has read.")],
    act: Annotated[
        str, typer.Option(help="signed-paper or signed-screen: what the person did.")
    ] = "signed-paper",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Record that a person consented, by an act of their own."""
    consent = _of_person(config, "POST", who, "consents", {"notice_version": notice, "act": act})
    show(consent, f"on record since {consent['given_at']}: notice {notice}, {act}", as_json=as_json)


@consent_app.command("withdraw")
def consent_withdraw(who: Who, config: Config = None, as_json: AsJson = False) -> None:
    """Withdraw a consent: the template is erased, the badges go on."""
    _erasure(_of_person(config, "DELETE", who, "consents"), as_json=as_json)


@consent_app.command("list")
def consent_list(who: Who, config: Config = None, as_json: AsJson = False) -> None:
    """All consents of a person."""
    api = api_client(config)
    show_table(list(api.pages(f"/people/{person_id(api, who)}/consents")), as_json=as_json)


def erase(who: Who, config: Config = None, as_json: AsJson = False) -> None:
    """Erase a person's template; consent and badges stay."""
    _erasure(_of_person(config, "DELETE", who, "template"), as_json=as_json)


def enrol(
    who: Who,
    png: Annotated[Path | None, typer.Option(help="Write the token as a PNG, to print or to send.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the token as an SVG, at the size to print.")] = None,
    seconds: Annotated[int, typer.Option(min=10, max=3600, help="How long the window stays open.")] = 120,
    claim: Annotated[
        Claim,
        typer.Option(help="What the person will hold up or type: a token that is given out, or theirs."),
    ] = Claim.TOKEN,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enrol a person: they press the button at the door, and look. The token is given out once.

    With --claim card or number there is no token: the person holds up the card, or types number and PIN, with
    each press. A site takes what claims and tier in its settings name.
    """
    from appliance import qr  # noqa: PLC0415

    if (png or svg) and claim is not Claim.TOKEN:
        raise ConfigurationError(f"a {claim.value} is the person's own: leave out --png and --svg")
    api = api_client(config)
    # The files first: a token that cannot be written down would be lost.
    files = {path: qr.reserve(path) for path in (png, svg) if path is not None}
    try:
        enrolment = _enrol(api, who, seconds, claim)
    except BaseException:
        for path in files:
            path.unlink()
        raise
    if claim is not Claim.TOKEN:
        show({"id": enrolment["id"], "state": "done"}, f"Enrolled, for their {claim.value}.", as_json=as_json)
        return
    text = api.call("POST", f"/enrolments/{enrolment['id']}/token")["token"]
    token = bytearray(base64.b64decode(text))
    progress("Enrolled. This is the token, this once: it cannot be shown again.")
    if png:
        files[png].write(qr.png(token))
    if svg:
        files[svg].write(qr.svg(token))
    for file in files.values():
        file.close()
    if as_json:
        show({"id": enrolment["id"], "state": "done", "token": text}, "", as_json=True)
    elif not files:
        print(qr.for_terminal(token))
    token[:] = bytes(len(token))


def _enrol(api: ApiClient, who: str, seconds: int, claim: Claim) -> dict[str, Any]:
    """Open a window and see it through.

    Raises:
        ApiError: it failed, or was cancelled from the keyboard; nothing was kept.
    """
    enrolment: dict[str, Any] = api.call(
        "POST", "/enrolments", {"person": person_id(api, who), "seconds": seconds, "claim": claim.value}
    )
    progress(f"The window is open for {seconds} s: let the person press the button and look into the lens.")
    try:
        enrolment = _watch(api, enrolment)
    except KeyboardInterrupt:
        api.call("DELETE", f"/enrolments/{enrolment['id']}")
        raise ApiError("cancelled: nothing was kept") from None
    if enrolment["state"] != "done":
        raise ApiError(enrolment["problem"] or "admin ended before the enrolment did: enrol again")
    return enrolment


def _watch(api: ApiClient, enrolment: dict[str, Any]) -> dict[str, Any]:
    """Follow an enrolment until it is no longer open, and say what the person could do better."""
    for now in api.events(f"/enrolments/{enrolment['id']}/events"):
        enrolment = now
        if enrolment["guidance"] and enrolment["state"] == "open":
            progress(f"  {enrolment['remaining']} to go: {enrolment['guidance'].replace('_', ' ')}")
    return enrolment


@badges_app.command("add")
def badges_add(
    who: Who,
    number: Annotated[str, typer.Argument(help="BITS:HEX as the reader sends it, such as 26:1a2b3c.")],
    label: Annotated[str, typer.Option(help="To tell badges apart; not the number.")] = "",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Let a badge open the door for a person."""
    bits, value = badge_number(number)
    api = api_client(config)
    body = {"person": person_id(api, who), "bits": bits, "number": f"{value:x}", "label": label}
    badge = api.call("POST", "/badges", body)
    show(badge, f"added badge {badge['id']}", as_json=as_json)


@badges_app.command("list")
def badges_list(
    who: Annotated[
        str | None, typer.Argument(help="Only those of this person, by id or by name; else all.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Badges, by their ids; numbers are not kept."""
    api = api_client(config)
    query = {} if who is None else {"person": person_id(api, who)}
    show_table(list(api.pages("/badges", query=query)), as_json=as_json)


@badges_app.command("remove")
def badges_remove(
    badge: Annotated[str, typer.Argument(help="The badge's id, see `drempel badges list`.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """A badge opens no more."""
    removal = call_api(config, "DELETE", f"/badges/{quote(badge, safe='')}")
    show(removal, removal["state"], as_json=as_json)
    sys.exit(0 if removal["state"] == "removed" else 1)


def _of_person(
    config: Path | None, method: str, who: str, what: str, body: dict[str, Any] | None = None
) -> Any:
    """Call a route below one person."""
    api = api_client(config)
    return api.call(method, f"/people/{person_id(api, who)}/{what}", body)


def _erasure(erasure: dict[str, str], *, as_json: bool) -> None:
    erased = erasure["state"] == "erased"
    text = "the template is erased" if erased else "vault is away: the erasure is pending, and will be done"
    show(erasure, text, as_json=as_json)
    sys.exit(0 if erased else 1)
