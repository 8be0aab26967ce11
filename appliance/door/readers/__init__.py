"""What is read at the door: one module a kind of reader.

A reader gives bits and a number, and says whether it is up. Whether that number opens is not its affair.
"""

from collections.abc import Callable
from typing import Protocol

MAX_CARD_BITS = 128
"""Bits of the longest card that is taken in."""


class Reader(Protocol):
    """A badge reader. Its callbacks run on the event loop that was running when it was started."""

    @property
    def name(self) -> str:
        """What the configuration calls it."""

    @property
    def up(self) -> bool:
        """Whether a card held before it now would be read."""

    def start(self, on_card: Callable[[int, int], None], on_state: Callable[[bool], None]) -> None:
        """Begin, whether or not the device is there; it is tried again until it is.

        Args:
            on_card: called with the bits (1 to 128) and the number of each card.
            on_state: called with True when the reader comes up and with False when it goes down.
        """

    def stop(self) -> None:
        """End; no callback comes after this returns."""
