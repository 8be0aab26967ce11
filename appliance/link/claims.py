"""What door sends to vault of a card, or of a number and a PIN (design §2, §4): 64 bytes at most.

A kind, and then

- card `0xC1`: the number of bits (one byte, 96 to 255), and the bits, right-aligned in as few bytes as hold
  them. At least 96 of them must be random and secret, as in a sector or file that is read with a key: then
  they are `S`, and open a record of tier 2. A UID or a Wiegand number is short, printed or broadcast, and is
  never `S`: door does not send it here.
- number and PIN `0xC2`: the number of digits and the digits in ASCII, of the number (1 to 10) and of the PIN
  (4 to 12). Tier 3 alone.

A QR claim never passes through door.
"""

from appliance.errors import DrempelError

CARD = 0xC1
NUMBER = 0xC2
CARD_BITS = range(96, 256)
"""Bits of a card's credential: fewer can be guessed by who holds the device."""
NUMBER_DIGITS = range(1, 11)
PIN_DIGITS = range(4, 13)
DIGITS = frozenset(b"0123456789")


class NotACredential(DrempelError, ValueError):
    """Bytes that are no claim of a known kind."""


def of_card(bits: int, value: int) -> bytearray:
    """The claim that door sends of a card whose credential has `bits` bits.

    Raises:
        NotACredential: too few bits to be a secret, or more than a card has.
    """
    if bits not in CARD_BITS or value.bit_length() > bits:
        raise NotACredential(f"a card's credential has {CARD_BITS.start} to {CARD_BITS.stop - 1} bits")
    return bytearray([CARD, bits]) + value.to_bytes((bits + 7) // 8)


def of_number(number: str, pin: str) -> bytearray:
    """The claim that door sends of a number and a PIN.

    Raises:
        NotACredential: not of digits, or not as many as they may have.
    """
    claim = bytearray([NUMBER])
    for text, lengths in ((number, NUMBER_DIGITS), (pin, PIN_DIGITS)):
        digits = text.encode("ascii", "replace")
        if len(digits) not in lengths or not DIGITS.issuperset(digits):
            raise NotACredential("a number of 1 to 10 digits and a PIN of 4 to 12")
        claim.append(len(digits))
        claim += digits
    return claim
