"""Every message between zones, beside the decision channel: closed, fixed in size, and boring.

How they travel is in `framing`. Embeddings are little-endian float32, as both sides hold them in memory.
"""

import enum
from dataclasses import dataclass

from appliance.link.decision import DESTROY
from appliance.link.events import AskEvents, DoorEvent, EndOfEvents
from appliance.link.framing import Message, Payload
from appliance.link.sockets import Malformed
from appliance.rights import ALWAYS, RIGHTS

HANDLE = 16
"""Bytes of a record's handle, of a consent's id and of a badge's id: random, and no one's name."""
MAX_CODE = 400
"""Bytes of a QR code that lens passes on; a longer one is no token. A token that carries its template at
four bits a coordinate has about 330."""
TOKEN = 35
"""Bytes of a tier-2 token, see `appliance.vault.token`."""
MAX_EMBEDDING = 4 * 512
"""Bytes of the longest embedding of any pack: 512 float32."""
MAX_BADGE_BITS = 128
"""Bits of the longest badge number."""
MAX_LEASE = 3600
"""Seconds for which admin can vouch at a time that a legal ground is current (design §7)."""


class Guidance(enum.IntEnum):
    """All that a person at the door is ever told: what to do, never who they are, nor how well it went."""

    SHOW_TOKEN = 0x01
    LOOK_HERE = 0x02
    COME_CLOSER = 0x03
    STEP_BACK = 0x04
    HOLD_STILL = 0x05
    TOO_DARK = 0x06
    ONE_PERSON = 0x07
    CAPTURED = 0x08
    DONE = 0x09
    USE_BADGE = 0x0A


class LensTrouble(enum.IntEnum):
    """Why lens ends a look by itself."""

    CAMERA_ABSENT = 0x01
    CAMERA_BROKE = 0x02
    OUT_OF_TIME = 0x03
    INTERNAL = 0x04


class Refusal(enum.IntEnum):
    """Why vault or door did not do what admin asked."""

    UNKNOWN_HANDLE = 0x01
    HANDLE_TAKEN = 0x02
    NO_GROUND = 0x03
    WINDOW_BUSY = 0x04
    WINDOW_EXPIRED = 0x05
    RECOGNITION_OFF = 0x06
    BADGE_TAKEN = 0x07
    STORAGE = 0x08
    MALFORMED = 0x09
    CLAIM_TAKEN = 0x0A
    CLAIM_NOT_SERVED = 0x0B
    NOT_AUTHENTIC = 0x0C
    NOT_THE_TIME = 0x0D


class ClaimKind(enum.IntEnum):
    """With what a person claims the one template that a face is compared with."""

    TOKEN = 0x01
    """A QR code, which vault makes at the enrolment, held up to the camera."""
    CARD = 0x02
    """A card's credential of at least 96 secret random bits, read by a badge reader after the press."""
    NUMBER = 0x03
    """A number and a PIN, typed on a keypad: only where the site's configuration justifies tier 3."""


class DoorMode(enum.IntEnum):
    """What the door is doing."""

    LOCKED = 0x01
    ATTEMPT = 0x02
    UNLOCKED = 0x03


def _to_enum(message: Message, name: str, kind: type[enum.IntEnum]) -> None:
    """Turn a field's number into its enum; a number outside it raises ValueError."""
    object.__setattr__(message, name, kind(getattr(message, name)))


def _check(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise Malformed(what)


# --- vault to lens ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look(Message):
    """Open the camera, and read tokens from its frames; embed nothing."""

    TYPE = 0x01


@dataclass(frozen=True, slots=True)
class Embed(Message):
    """A claim has opened (or an enrolment window is): send up to `probes` embeddings.

    `hints` is 1 in an enrolment window, where the person is told what to do better, and 0 in a
    verification, where advice about a face would tell a claim that opened from one that did not.
    """

    probes: int
    hints: int
    TYPE = 0x02
    LAYOUT = "!BB"

    def __post_init__(self) -> None:
        _check(1 <= self.probes <= 20, "1 to 20 probes")
        _check(self.hints in {0, 1}, "hints is 0 or 1")


@dataclass(frozen=True, slots=True)
class Finish(Message):
    """Close the camera, overwrite what is held, and say `CameraClosed`."""

    TYPE = 0x03


# --- lens to vault ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CameraOpen(Message):
    """The camera is open and gives frames."""

    TYPE = 0x11


@dataclass(frozen=True, slots=True, repr=False)
class CodeRead(Payload):
    """The bytes of one QR code before the lens; lens does not know what they mean."""

    code: bytes | bytearray
    TYPE = 0x12
    LENGTHS = range(1, MAX_CODE + 1)


@dataclass(frozen=True, slots=True, repr=False)
class Probe(Payload):
    """The embedding of one good frame: little-endian float32, as many as the pack has dimensions.

    Vault checks their number, and that they are finite.
    """

    embedding: bytes | bytearray | memoryview
    TYPE = 0x13
    LENGTHS = range(4, MAX_EMBEDDING + 1, 4)


@dataclass(frozen=True, slots=True)
class Hint(Message):
    """What the person in an enrolment window could do better."""

    guidance: Guidance
    TYPE = 0x14
    LAYOUT = "!B"

    def __post_init__(self) -> None:
        _to_enum(self, "guidance", Guidance)


@dataclass(frozen=True, slots=True)
class CameraClosed(Message):
    """The camera is closed and the buffers are overwritten; the last message of a look."""

    TYPE = 0x15


@dataclass(frozen=True, slots=True)
class LensFailed(Message):
    """Lens ends the look by itself; the camera is closed."""

    trouble: LensTrouble
    TYPE = 0x16
    LAYOUT = "!B"

    def __post_init__(self) -> None:
        _to_enum(self, "trouble", LensTrouble)


# --- vault to door, on the guidance channel -----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Guide(Message):
    """Guidance for the lamp and the screen."""

    guidance: Guidance
    TYPE = 0x1A
    LAYOUT = "!B"

    def __post_init__(self) -> None:
        _to_enum(self, "guidance", Guidance)


# --- admin to vault -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenEnrolment(Message):
    """Let the person who presses next be captured for a new record.

    `handle` is chosen by admin and written down there first, so that no record can be left without
    an owner. `consent` is the id of the consent on record, all zero for none, which vault refuses. `rights`
    say when the person may enter, as `appliance.rights` encodes it. `replaces` is the person's record so far,
    whose card or number the new one may take over; all zero for none.
    The window closes with the connection. With a token as `claim` the answer is `Enrolled`; with a card, or
    a number and PIN, the person presents it with the press, and the answer is `Done`.
    """

    handle: bytes
    consent: bytes
    lease: int
    captures: int
    seconds: int
    claim: ClaimKind = ClaimKind.TOKEN
    rights: bytes = ALWAYS
    replaces: bytes = bytes(HANDLE)
    TYPE = 0x21
    LAYOUT = f"!{HANDLE}s{HANDLE}sHBHB{RIGHTS}s{HANDLE}s"

    def __post_init__(self) -> None:
        _to_enum(self, "claim", ClaimKind)
        _check(len(self.handle) == HANDLE and len(self.consent) == HANDLE, "16 bytes each")
        _check(0 <= self.lease <= MAX_LEASE, "a lease of at most an hour")
        _check(1 <= self.captures <= 20, "1 to 20 captures")
        _check(1 <= self.seconds <= 3600, "a window of at most an hour")


@dataclass(frozen=True, slots=True)
class Erase(Message):
    """Erase a record; erasing one that does not exist is done already."""

    handle: bytes
    TYPE = 0x22
    LAYOUT = f"!{HANDLE}s"


@dataclass(frozen=True, slots=True)
class Lease(Message):
    """Vouch for `seconds` more (0 ends it now) that the record has a current legal ground."""

    handle: bytes
    seconds: int
    TYPE = 0x23
    LAYOUT = f"!{HANDLE}sH"

    def __post_init__(self) -> None:
        _check(0 <= self.seconds <= MAX_LEASE, "a lease of at most an hour")


@dataclass(frozen=True, slots=True)
class AskVault(Message):
    """How is vault?"""

    TYPE = 0x24


@dataclass(frozen=True, slots=True)
class SetRights(Message):
    """The validity and weekly hours of a record's person, as `appliance.rights` encodes them."""

    handle: bytes
    rights: bytes
    TYPE = 0x25
    LAYOUT = f"!{HANDLE}s{RIGHTS}s"


@dataclass(frozen=True, slots=True)
class AskCheck(Message):
    """Does every record authenticate?"""

    TYPE = 0x26


@dataclass(frozen=True, slots=True)
class Decommission(Message):
    """Destroy the keys: no template on this device can ever be opened again. Badges go on.

    `meant` is `DESTROY`, as in the verb `TAMPER`: three bytes that went wrong on their way destroy nothing.
    """

    meant: bytes = DESTROY
    TYPE = 0x27
    LAYOUT = f"!{len(DESTROY)}s"

    def __post_init__(self) -> None:
        _check(self.meant == DESTROY, "a command that destroys says that it is meant")


@dataclass(frozen=True, slots=True)
class RotateEpoch(Message):
    """Begin a new epoch: every device half is sealed under a new key, and the old key destroyed."""

    TYPE = 0x28


@dataclass(frozen=True, slots=True)
class TrustClock(Message):
    """An administrator looked at the clock: it is right."""

    TYPE = 0x29


# --- vault or door to admin ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Done(Message):
    """It is done, and durable."""

    TYPE = 0x30


@dataclass(frozen=True, slots=True)
class Progress(Message):
    """In an enrolment window: how many captures remain, and the last guidance given."""

    remaining: int
    guidance: Guidance
    TYPE = 0x31
    LAYOUT = "!BB"

    def __post_init__(self) -> None:
        _to_enum(self, "guidance", Guidance)


@dataclass(frozen=True, slots=True, repr=False)
class Enrolled(Payload):
    """The record is durable; here is the token, this once; vault overwrites its secret when this is sent."""

    token: bytes | bytearray
    TYPE = 0x32
    LENGTHS = range(1, MAX_CODE + 1)


@dataclass(frozen=True, slots=True)
class VaultState(Message):
    """How vault is; `instance` is random per start, so that admin notices a restart and renews leases."""

    instance: bytes
    records: int
    leases: int
    window: int
    recognition: int
    TYPE = 0x33
    LAYOUT = f"!{HANDLE}sIIBB"

    def __post_init__(self) -> None:
        _check(self.window in {0, 1} and self.recognition in {0, 1}, "flags are 0 or 1")


@dataclass(frozen=True, slots=True)
class Checked(Message):
    """What stands in vault: records by tier, how many of them do not authenticate, the epoch of the keys,
    and whether the database as such is sound (1) or not (0).
    """

    tier1: int
    tier2: int
    tier3: int
    unreadable: int
    epoch: int
    sound: int
    TYPE = 0x34
    LAYOUT = "!IIIIIB"

    def __post_init__(self) -> None:
        _check(self.sound in {0, 1}, "sound is 0 or 1")


@dataclass(frozen=True, slots=True)
class Refused(Message):
    """Not done; ask again where the reason may pass. Nothing changed, unless an erasure ended halfway."""

    reason: Refusal
    TYPE = 0x3F
    LAYOUT = "!B"

    def __post_init__(self) -> None:
        _to_enum(self, "reason", Refusal)


# --- admin to door ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, repr=False)
class AddBadge(Message):
    """Let a badge open: its id, and its number as `bits` bits, right-aligned in 16 bytes."""

    badge: bytes
    bits: int
    number: bytes
    TYPE = 0x41
    LAYOUT = f"!{HANDLE}sB16s"

    def __post_init__(self) -> None:
        _check(1 <= self.bits <= MAX_BADGE_BITS, "1 to 128 bits")
        _check(int.from_bytes(self.number) < 1 << self.bits, "a number of that many bits")


@dataclass(frozen=True, slots=True)
class RemoveBadge(Message):
    """A badge opens no more; removing one that does not exist is done already."""

    badge: bytes
    TYPE = 0x42
    LAYOUT = f"!{HANDLE}s"


@dataclass(frozen=True, slots=True)
class AskDoor(Message):
    """How is door?"""

    TYPE = 0x43


@dataclass(frozen=True, slots=True)
class DoorState(Message):
    """How door is. Entries are counted since its start, without identity."""

    mode: DoorMode
    readers: int
    readers_up: int
    recognition: int
    badges: int
    badge_entries: int
    face_entries: int
    TYPE = 0x53
    LAYOUT = "!BBBBIII"

    def __post_init__(self) -> None:
        _to_enum(self, "mode", DoorMode)
        _check(self.readers_up <= self.readers, "no more readers up than there are")
        _check(self.recognition in {0, 1}, "recognition is 0 or 1")


TO_LENS: tuple[type[Message], ...] = (Look, Embed, Finish)
FROM_LENS: tuple[type[Message], ...] = (CameraOpen, CodeRead, Probe, Hint, CameraClosed, LensFailed)
TO_DOOR_GUIDANCE: tuple[type[Message], ...] = (Guide,)
ADMIN_TO_VAULT: tuple[type[Message], ...] = (
    OpenEnrolment,
    Erase,
    Lease,
    AskVault,
    SetRights,
    AskCheck,
    Decommission,
    RotateEpoch,
    TrustClock,
)
VAULT_TO_ADMIN: tuple[type[Message], ...] = (Done, Progress, Enrolled, VaultState, Checked, Refused)
ADMIN_TO_DOOR: tuple[type[Message], ...] = (AddBadge, RemoveBadge, AskDoor, AskEvents)
DOOR_TO_ADMIN: tuple[type[Message], ...] = (Done, DoorState, DoorEvent, EndOfEvents, Refused)
