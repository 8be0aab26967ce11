"""Words that people write and read again, in terminals and on pages, and words that programs read.

Nothing in a name or a label may move a cursor or turn the order of what stands around it: no control
characters, no line or paragraph separators, no marks of direction that reach beyond the word.
"""

import enum
import re
import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field

_FORBIDDEN = r"\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
_INSIDE = f"[^{_FORBIDDEN}]"
_EDGE = f"[^\\s{_FORBIDDEN}]"
_NAME = f"^{_EDGE}({_INSIDE}*{_EDGE})?$"
_LABEL = f"^{_INSIDE}*$"


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError("write a name without control characters, and without white space at its ends")
    # However a keyboard composed an accent, it is one name.
    return unicodedata.normalize("NFC", text)


def _label(text: str) -> str:
    if not re.fullmatch(_LABEL, text):
        raise ValueError("write a label without control characters")
    return text


Name = Annotated[
    str,
    Field(min_length=1, max_length=100, json_schema_extra={"pattern": _NAME}),
    AfterValidator(_name),
]
"""A person's name, without white space at its ends."""
Label = Annotated[str, Field(max_length=60, json_schema_extra={"pattern": _LABEL}), AfterValidator(_label)]
"""A word to tell things of one kind by; may be empty."""
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""When: ISO 8601, UTC, to the second."""


def words(kind: type[enum.Enum]) -> list[str]:
    """The words of an enumeration of the link, as the interface writes them."""
    return [member.name.lower() for member in kind]
