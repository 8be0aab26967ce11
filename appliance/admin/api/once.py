"""An answer with a token, of which nothing stays in this process once it is sent.

A text or `bytes` object of Python cannot be overwritten, and the framework copies bodies into such. So the
body is a buffer of ours, and goes out byte by byte: of each of the 256 objects of one byte CPython has one
alone, which tells nothing. A token makes some 60 calls of `send(2)` so, one that carries its template 450.

What the kernel holds of a socket, and what asyncio holds for a caller who does not read, is not ours.
"""

import binascii

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_BEFORE, _AFTER = b'{"token":"', b'"}'


class AnswerOnce(Response):
    """`{"token": ...}` in base64. The token becomes this answer's own, and is overwritten."""

    def __init__(self, token: bytearray) -> None:
        """See the class."""
        super().__init__(media_type="application/json", headers={"Cache-Control": "no-store"})
        self._text = _in_base64(token)
        self.headers["Content-Length"] = str(len(self._text))
        token[:] = bytes(len(token))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        """Send it, and overwrite it, whatever becomes of the caller."""
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        text = self._text
        try:
            await send(start)
            with memoryview(text) as view:
                for at in range(len(text)):
                    more = at + 1 < len(text)
                    body = view[at : at + 1].tobytes()
                    await send({"type": "http.response.body", "body": body, "more_body": more})
        finally:
            text[:] = bytes(len(text))


def _in_base64(token: bytearray) -> bytearray:
    """The whole body, written in place: three bytes make four characters."""
    first = len(_BEFORE)
    last = first + (len(token) + 2) // 3 * 4
    text = bytearray(last + len(_AFTER))
    text[:first] = _BEFORE
    text[last:] = _AFTER
    with memoryview(token) as view:
        for at in range(0, len(token), 3):
            into = first + at // 3 * 4
            text[into : into + 4] = binascii.b2a_base64(view[at : at + 3], newline=False)
    return text
