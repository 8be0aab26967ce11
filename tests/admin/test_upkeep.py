import secrets
import threading
import time
from collections.abc import Callable, Collection
from socket import socket

import pytest

from appliance.admin import upkeep as upkeep_module
from appliance.admin.registry.consent import Act, give_consent, withdraw_consent
from appliance.admin.registry.database import Registry, RegistryError
from appliance.admin.registry.holdings import (
    begin_badge,
    begin_template,
    complete_badge,
    complete_template,
    doom_badge,
    doomed_badges,
    doomed_templates,
)
from appliance.admin.registry.people import add_person
from appliance.link.framing import Message
from appliance.link.messages import (
    MAX_LEASE,
    AskVault,
    Erase,
    Lease,
    Refusal,
    Refused,
    RemoveBadge,
)
from appliance.link.sockets import LinkError
from tests.admin.conftest import Office
from tests.admin.scripted_zones import ScriptedZone, zone_at


def enrolled(registry: Registry, name: str) -> tuple[str, bytes]:
    person = add_person(registry, name)[0].id
    consent, _ = give_consent(registry, person, "2026-1", Act.SIGNED_PAPER)
    handle = begin_template(registry, person, consent.id)
    assert complete_template(registry, handle)
    return person, handle


def wait_for(condition: Callable[[], bool], seconds: float = 6) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_admin_vouches_for_what_is_lawful_and_for_nothing_else(office: Office, vault: ScriptedZone) -> None:
    registry = office.house.registry
    _, lawful = enrolled(registry, "Jan")
    withdrawn_person, withdrawn = enrolled(registry, "Piet")
    withdraw_consent(registry, withdrawn_person)
    office.upkeep.vouch_now()
    assert vault.of(Lease) == [Lease(lawful, MAX_LEASE)]
    assert withdrawn not in vault.vouched()


def test_a_round_without_need_vouches_for_nothing_anew(office: Office, vault: ScriptedZone) -> None:
    enrolled(office.house.registry, "Jan")
    for _ in range(3):
        office.upkeep.vouch_now()
    assert len(vault.of(Lease)) == 1


def test_a_new_template_is_vouched_for_at_the_next_round_and_the_others_are_not(
    office: Office, vault: ScriptedZone
) -> None:
    """Vault may have been killed after it granted the first lease, and before the registry's line."""
    enrolled(office.house.registry, "Jan")
    office.upkeep.vouch_now()
    vault.heard.clear()
    _, new = enrolled(office.house.registry, "Piet")
    person, withdrawn = enrolled(office.house.registry, "Klaas")
    withdraw_consent(office.house.registry, person)
    for _ in range(2):
        office.upkeep.vouch_now()
    assert vault.of(Lease) == [Lease(new, MAX_LEASE)]
    assert withdrawn not in vault.vouched()


def test_a_vault_that_was_restarted_gets_every_lease_anew(office: Office, vault: ScriptedZone) -> None:
    handles = {enrolled(office.house.registry, name)[1] for name in ("Jan", "Piet")}
    office.upkeep.vouch_now()
    vault.heard.clear()
    vault.instance = secrets.token_bytes(16)
    office.upkeep.vouch_now()
    assert vault.vouched() == handles


def test_a_record_that_vault_lost_keeps_nobody_else_from_being_vouched_for(
    office: Office, vault: ScriptedZone
) -> None:
    for name in ("Jan", "Piet"):
        enrolled(office.house.registry, name)
    vault.refuse[Lease] = Refused(Refusal.UNKNOWN_HANDLE)
    office.upkeep.vouch_now()
    assert len(vault.of(Lease)) == 2


def test_a_vault_that_is_away_is_an_error_of_the_link(office: Office) -> None:
    with pytest.raises(LinkError):
        office.upkeep.vouch_now()


def test_an_erasure_is_forgotten_only_when_vault_has_done_it(office: Office) -> None:
    registry, upkeep = office.house.registry, office.upkeep
    person, handle = enrolled(registry, "Jan")
    withdraw_consent(registry, person)
    assert not upkeep.erase_now()
    with zone_at(office.vault_socket, ScriptedZone(refuse={Erase: Refused(Refusal.STORAGE)})) as refusing:
        assert not upkeep.erase_now()
        assert refusing.of(Erase) == [Erase(handle)]
    assert doomed_templates(registry) == [handle]
    with zone_at(office.vault_socket, ScriptedZone()) as back:
        assert upkeep.erase_now()
        assert upkeep.erase_now()
        assert back.of(Erase) == [Erase(handle)]
    assert doomed_templates(registry) == []


def test_the_upkeep_goes_on_through_every_trouble_of_the_other_zones(
    office: Office, capsys: pytest.CaptureFixture[str]
) -> None:
    """Vault away, then in trouble with its disk, then back: erasures, removals and leases are caught up."""
    registry, upkeep = office.house.registry, office.upkeep
    _, lawful = enrolled(registry, "Jan")
    person, doomed = enrolled(registry, "Piet")
    withdraw_consent(registry, person)
    badge = begin_badge(registry, person, "")[0].id
    complete_badge(registry, badge)
    doom_badge(registry, badge)
    upkeep.start()
    try:
        trouble = ScriptedZone(
            refuse={kind: Refused(Refusal.STORAGE) for kind in (AskVault, Erase, Lease)},
        )
        with zone_at(office.vault_socket, trouble):
            wait_for(lambda: bool(trouble.of(AskVault)))
        with (
            zone_at(office.vault_socket, ScriptedZone()) as vault,
            zone_at(office.door_socket, ScriptedZone()) as door,
        ):
            wait_for(lambda: Erase(doomed) in vault.heard and lawful in vault.vouched())
            wait_for(lambda: RemoveBadge(badge) in door.heard)
            wait_for(lambda: not doomed_badges(registry))
        assert doomed_templates(registry) == []
    finally:
        upkeep.stop()
    assert "Piet" not in capsys.readouterr().err


def test_a_registry_that_cannot_be_written_and_an_expired_account_do_not_stop_vouching(
    office: Office, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, lawful = enrolled(office.house.registry, "Jan")

    def full() -> None:
        raise RegistryError("registry.db cannot be used: database or disk is full")

    def fault() -> None:
        raise ValueError("Jan")

    monkeypatch.setattr(office.house.accounts, "drop_expired", full)
    monkeypatch.setattr(office.upkeep, "erase_now", fault)
    monkeypatch.setattr(upkeep_module, "ROUND", 0.05)
    with zone_at(office.vault_socket, ScriptedZone()) as vault:
        office.upkeep.start()
        try:
            wait_for(lambda: lawful in vault.vouched())
            wait_for(lambda: len(vault.of(AskVault)) > 3)
        finally:
            office.upkeep.stop()
    said = capsys.readouterr().err
    assert "disk is full" in said
    assert "the upkeep failed: ValueError" in said
    assert "Jan" not in said


def test_an_erasure_need_not_wait_until_a_whole_site_is_vouched_for(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep_module, "SLICE", 2)
    handles = [enrolled(office.house.registry, f"Jan {number}")[1] for number in range(7)]
    person, doomed = enrolled(office.house.registry, "Piet")
    with zone_at(office.vault_socket, ScriptedZone()) as vault:
        served = vault.serve

        def slow(connection: socket, expected: Collection[type[Message]]) -> None:
            time.sleep(0.05)
            served(connection, expected)

        monkeypatch.setattr(vault, "serve", slow)
        vouching = threading.Thread(target=office.upkeep.vouch_now)
        vouching.start()
        wait_for(lambda: bool(vault.of(Lease)))
        withdraw_consent(office.house.registry, person)
        assert office.upkeep.erase_now(person)
        vouching.join(timeout=10)
        erased_at = vault.heard.index(Erase(doomed))
        later = [message for message in vault.heard[erased_at:] if isinstance(message, Lease)]
        assert later, "it did not wait for the last lease"
        assert doomed not in {message.handle for message in later}
        assert vault.vouched() >= set(handles)
