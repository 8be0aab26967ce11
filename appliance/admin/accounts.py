"""Who may call the local API: accounts with a bearer token and a role.

A token is 256 random bits, shown once when its account is made; of it a SHA-256 is kept, which for a number
that nobody can guess is enough. On the Unix socket the kernel vouches for the administrators of the device,
who need no token: that is how the first account comes to be, and nobody can lock themselves out.
"""

import enum
import hashlib
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from appliance.admin.registry.database import Registry
from appliance.admin.registry.slices import Slice, cut
from appliance.errors import DrempelError

TOKEN = re.compile(r"drempel_[A-Za-z0-9_-]{43}")
"""What a token looks like: so that scanners of other people's repositories can find one that was lost."""


_FIELDS = "number, id, label, role, created_at, expires_at, ended_at"


class Role(enum.StrEnum):
    """What an account may do; each route says which roles may call it."""

    ADMINISTRATOR = "administrator"
    """Everything, accounts included."""
    ENROLLER = "enroller"
    """People, consents, enrolments and badges: the front desk."""
    AUDITOR = "auditor"
    """Look, and change nothing."""


class UnknownAccount(DrempelError, LookupError):
    """There is no such account."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account: number, id, a label to tell it by, its role, and from when to when (UTC) it counts.

    `ended_at` is when it was revoked or found expired. It stays on record, since the journal knows an account
    by its number alone.
    """

    number: int
    id: str
    label: str
    role: Role
    created_at: str
    expires_at: str
    ended_at: str | None = None

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return datetime.fromisoformat(self.expires_at) <= datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call: an account's number, 0 for an administrator whom the kernel vouches for."""

    account: int
    role: Role


VOUCHED = Caller(0, Role.ADMINISTRATOR)
"""An administrator of the device, on the Unix socket."""


class Accounts:
    """All accounts. Held in memory beside the registry, so that telling a caller never waits for the disk.

    `_by_token` is never changed, only replaced, by who holds the lock; so it is read without one.
    """

    def __init__(self, registry: Registry) -> None:
        """The accounts of a registry.

        Raises:
            RegistryError: they cannot be read.
        """
        self._registry = registry
        self._lock = threading.Lock()
        self._by_token: dict[bytes, Account] = {}
        with registry.transaction() as db:
            for token, *fields in db.execute(
                f"SELECT token, {_FIELDS} FROM account WHERE token IS NOT NULL"  # noqa: S608 - our own words
            ):
                self._by_token[token] = _account(*fields)

    def add(self, label: str, role: Role, days: int) -> tuple[Account, str]:
        """A new account that counts for `days` days, and its token, which is kept nowhere."""
        text = f"drempel_{secrets.token_urlsafe(32)}"
        token = _digest(text)
        now = datetime.now(UTC)
        made = (
            secrets.token_hex(8),
            label,
            role.value,
            now.isoformat(timespec="seconds"),
            (now + timedelta(days=days)).isoformat(timespec="seconds"),
        )
        with self._lock:
            with self._registry.transaction() as db:
                number = db.execute(
                    "INSERT INTO account (id, label, role, created_at, expires_at, token) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (*made, token),
                ).lastrowid
            account = _account(int(number or 0), *made)
            self._by_token = {**self._by_token, token: account}
        return account, text

    def page(self, after: int, limit: int) -> Slice[Account]:
        """At most `limit` accounts, ended ones too, from the one after number `after` on."""
        with self._registry.transaction() as db:
            rows = db.execute(
                f"SELECT {_FIELDS} FROM account WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608 - ours
                (after, limit + 1),
            ).fetchall()
        return cut([(row[0], _account(*row)) for row in rows], limit)

    def revoke(self, account: str) -> Account:
        """End an account; its token is no key to anything from here on, even where the disk is full.

        Raises:
            UnknownAccount: there is none with this id that counts.
            RegistryError: it would count again after a restart of admin: ask again.
        """
        with self._lock:
            self._forget({token for token, each in self._by_token.items() if each.id == account})
            return self._end(account)

    def drop_expired(self) -> None:
        """End the accounts whose time is over, so that a clock that is put back revives none."""
        with self._lock:
            expired = {token: each for token, each in self._by_token.items() if each.expired}
            self._forget(set(expired))
            for each in expired.values():
                self._end(each.id)

    def find(self, text: str) -> Caller | None:
        """Whose token this is; None where it is nobody's, or its time is over."""
        if not TOKEN.fullmatch(text):
            return None
        account = self._by_token.get(_digest(text))
        if account is None or account.expired:
            return None
        return Caller(account.number, account.role)

    def counts(self, caller: Caller) -> bool:
        """Whether a caller who was told before may still go on, in a call that lasts."""
        if caller == VOUCHED:
            return True
        with self._lock:
            return any(each.number == caller.account and not each.expired for each in self._by_token.values())

    def _forget(self, tokens: set[bytes]) -> None:
        self._by_token = {token: each for token, each in self._by_token.items() if token not in tokens}

    def _end(self, account: str) -> Account:
        with self._registry.transaction() as db:
            row = db.execute(
                "UPDATE account SET token = NULL, ended_at = ? "  # noqa: S608 - our own words
                f"WHERE id = ? AND token IS NOT NULL RETURNING {_FIELDS}",
                (datetime.now(UTC).isoformat(timespec="seconds"), account),
            ).fetchone()
        if row is None:
            raise UnknownAccount("no such account, or it ended: see `drempel accounts list`")
        return _account(*row)


def _account(
    number: int,
    account: str,
    label: str,
    role: str,
    created_at: str,
    expires_at: str,
    ended_at: str | None = None,
) -> Account:
    return Account(number, account, label, Role(role), created_at, expires_at, ended_at)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
