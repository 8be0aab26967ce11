"""`drempel status`, `events` and `accounts`: how the site is, and who may call its API; through that API."""

import sys
import time
from typing import Annotated
from urllib.parse import quote

import typer

from appliance.api_client import ApiError
from appliance.commands.shared import AsJson, Config, api_client, call_api, progress, show, show_table

accounts_app = typer.Typer(
    help="Accounts of the local API: a token and a role each, for programs and for the front desk.",
    no_args_is_help=True,
)

LOOK_AGAIN = 1.0
"""Seconds between two looks at the door's events."""


def status(config: Config = None, as_json: AsJson = False) -> None:
    """How the zones are."""
    found = call_api(config, "GET", "/status")
    lines = [found["site"]]
    for zone in ("door", "vault"):
        state = found[zone]
        text = (
            "away"
            if state is None
            else ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in state.items())
        )
        lines.append(f"  {zone}: {text}")
    show(found, "\n".join(lines), as_json=as_json)
    sys.exit(0 if found["door"] and found["vault"] else 1)


def events(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on, and print what happens; Ctrl-C ends it.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """What happened at the door lately, without anyone's name; with --json one object a line."""
    api = api_client(config)
    after, silent = "", False
    try:
        while True:
            try:
                page = api.call("GET", f"/door/events?limit=100{after}")
            except ApiError as away:
                if not follow:
                    raise
                if not silent:
                    progress(f"{away}; waiting for it")
                silent = True
                time.sleep(LOOK_AGAIN)
                continue
            silent = False
            if page["missed"] and after:
                progress("the door was restarted, or more happened than it keeps: some events are missing")
            for event in page["items"]:
                line = f"{event['at']}  {event['kind'].replace('_', ' ')}"
                show(event, line, as_json=as_json, indent=None)
            after = f"&after={page['next']}"
            if not page["items"]:
                if not follow:
                    return
                time.sleep(LOOK_AGAIN)
    except KeyboardInterrupt:
        return


@accounts_app.command("add")
def accounts_add(
    label: Annotated[str, typer.Argument(help="To tell it by, such as: front desk.")],
    role: Annotated[str, typer.Option(help="administrator, enroller or auditor.")],
    days: Annotated[int, typer.Option(help="For how many days it counts, 1 to 3650.")] = 90,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make an account, and show its token, this once."""
    account = call_api(config, "POST", "/accounts", {"label": label, "role": role, "days": days})
    progress(f"Account {account['id']}, until {account['expires_at']}. This is its token, this once: send it")
    progress("as `Authorization: Bearer ...`. Lost means `drempel accounts revoke`, and a new account.")
    show(account, account["token"], as_json=as_json)


@accounts_app.command("list")
def accounts_list(config: Config = None, as_json: AsJson = False) -> None:
    """All accounts, also those that ended: the journal knows them by number. Tokens are not kept."""
    show_table(list(api_client(config).pages("/accounts")), as_json=as_json)


@accounts_app.command("revoke")
def accounts_revoke(
    account: Annotated[str, typer.Argument(help="The account's id, see `drempel accounts list`.")],
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """End an account at once."""
    call_api(config, "DELETE", f"/accounts/{quote(account, safe='')}")
    show({"state": "revoked"}, "revoked", as_json=as_json)
