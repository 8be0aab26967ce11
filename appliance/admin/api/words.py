"""Words that people write and read again, in terminals and on pages: names and labels.

Nothing in them may move a cursor or turn the order of what stands around them: no control characters, no
line or paragraph separators, no marks of direction that reach beyond the word.
"""

from typing import Annotated

from pydantic import Field

_FORBIDDEN = r"\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_INSIDE = f"[^{_FORBIDDEN}]"
_EDGE = f"[^\\s{_FORBIDDEN}]"

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=f"^{_EDGE}({_INSIDE}*{_EDGE})?$")]
"""A person's name, without white space at its ends."""
Label = Annotated[str, Field(max_length=60, pattern=f"^{_INSIDE}*$")]
"""A word to tell things of one kind by; may be empty."""
