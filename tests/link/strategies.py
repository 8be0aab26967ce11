"""Hypothesis strategies for every message between zones, built from its layout and its fields."""

import enum
import re
import struct
from dataclasses import fields
from typing import get_type_hints

from hypothesis import strategies as st

from appliance.link import events, messages
from appliance.link.framing import Message
from appliance.link.messages import (
    CodeRead,
    Probe,
)
from appliance.link.sockets import Malformed

ALL = tuple(
    {
        *messages.TO_LENS,
        *messages.FROM_LENS,
        *messages.TO_DOOR_GUIDANCE,
        *messages.ADMIN_TO_VAULT,
        *messages.VAULT_TO_ADMIN,
        *messages.ADMIN_TO_DOOR,
        *messages.DOOR_TO_ADMIN,
    }
)
"""Every kind of message that any channel has."""


def _type_byte(kind: type[Message]) -> int:
    return kind.TYPE


BY_TYPE: list[type[Message]] = sorted(ALL, key=_type_byte)

_FLAGS = {"hints", "window", "recognition", "missed", "sound"}
_WIDTHS = {"B": 1, "H": 2, "I": 4}


def defined() -> set[type[Message]]:
    """Every kind of message that the modules define."""
    modules = (messages, events)
    kinds = (value for module in modules for value in vars(module).values() if isinstance(value, type))
    names = {module.__name__ for module in modules}
    return {kind for kind in kinds if issubclass(kind, Message) and kind.__module__ in names}


def _values(kind: type[Message]) -> list[st.SearchStrategy[object]]:
    """One strategy a field, from the letters of the layout and the field's type."""
    found: list[st.SearchStrategy[object]] = []
    hints = get_type_hints(kind)
    for field, (count, letter) in zip(fields(kind), re.findall(r"(\d*)([sBHI])", kind.LAYOUT), strict=True):
        word = hints[field.name]
        if issubclass(word, enum.IntEnum):
            found.append(st.sampled_from(list(word)))
        elif letter == "s":
            found.append(st.binary(min_size=int(count), max_size=int(count)))
        elif field.name in _FLAGS:
            found.append(st.integers(0, 1))
        else:
            found.append(st.integers(0, 20) | st.integers(0, 256 ** _WIDTHS[letter] - 1))
    return found


def _made(kind: type[Message], values: list[object]) -> Message | None:
    try:
        return kind(*values)
    except (Malformed, ValueError):
        return None


def of(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Messages of this kind that may be sent."""
    if kind is CodeRead:
        return st.binary(min_size=1, max_size=messages.MAX_CODE).map(CodeRead)
    if kind is messages.Decommission:
        return st.just(messages.Decommission())
    if kind is messages.Enrolled:
        return st.binary(min_size=1, max_size=messages.MAX_CODE).map(messages.Enrolled)
    if kind is Probe:
        return st.integers(1, 512).map(lambda count: Probe(struct.pack(f"<{count}f", *range(count))))
    made = st.tuples(*_values(kind)).map(lambda values: _made(kind, list(values)))
    if kind is messages.AddBadge:
        made = st.integers(1, 128).flatmap(
            lambda bits: st.builds(
                lambda badge, number: messages.AddBadge(badge, bits, number.to_bytes(16)),
                st.binary(min_size=16, max_size=16),
                st.integers(0, (1 << bits) - 1),
            )
        )
    return made.filter(lambda message: message is not None).map(lambda message: message or messages.Done())


every_message: st.SearchStrategy[Message] = st.sampled_from(BY_TYPE).flatmap(of)
