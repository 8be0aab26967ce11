"""`drempel check`: whether every record is whole, without anybody's secret, and without a name or handle."""

from dataclasses import dataclass

from appliance.vault.epoch import Epochs
from appliance.vault.protection import Binding, NotAuthentic, authenticates, terms_of
from appliance.vault.store import Record, Store


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found.

    tiers: records by tier, 1 to 3. unreadable: those among them that do not authenticate. epoch: the
    number of the epoch in force. database_sound: what SQLite's integrity check says of the whole file.
    """

    tiers: dict[int, int]
    unreadable: int
    epoch: int
    database_sound: bool

    @property
    def sound(self) -> bool:
        """Whether there is nothing to mend."""
        return self.database_sound and not self.unreadable


def check(store: Store, epochs: Epochs) -> Checked:
    """Look at every record: does its half open under the epoch's key, and is its body the one sealed with it.

    Attempts, enrolments and erasures go on meanwhile; they wait for one slice of the records at most.

    Raises:
        StoreError: the database cannot be read at all.
    """
    tiers = {1: 0, 2: 0, 3: 0}
    unreadable = 0
    slices = store.each()
    while True:
        # A slice and the key of its epoch, or the epoch could change in between.
        with epochs.lock:
            records = next(slices, None)
            if records is None:
                break
            for record in records:
                if record.tier in tiers:
                    tiers[record.tier] += 1
                unreadable += not _whole(record, epochs)
    return Checked(tiers, unreadable, epochs.current.epoch, store.integrity())


def _whole(record: Record, epochs: Epochs) -> bool:
    try:
        terms = terms_of(record.lookup, record.rights, record.expires_at)
        binding = Binding(record.handle, epochs.device, record.pack, record.tier, record.version, terms)
    except NotAuthentic:
        return False
    return authenticates(record.sealed, epochs.current, binding)
