"""A peer's worker process, asked for one frame at a time; one that dies or hangs is an error of one line."""

import contextlib
import json
import os
import select
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appliance.evaluation.bench.peers.environment import PeerFailed
from appliance.link.sockets import Deadline

WORKER = Path(__file__).with_name("worker.py")
START = 120.0
"""Seconds in which a peer loads its models and looks at its first frame."""
ANSWER = 60.0
"""Seconds for one frame: hundreds of times what any peer needs."""
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_QUIET = {"ORT_DISABLE_TELEMETRY": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer did with one frame: wall-clock and processor time (ms), faces found, its own score."""

    wall: float
    cpu: float
    faces: int
    score: float


class PeerProcess:
    """A worker, as a context manager: started and ready on entry, gone on exit.

    It runs on the processor that the caller is bound to, and on one thread.
    """

    def __init__(
        self, name: str, command: Sequence[str | Path], *, start: float = START, answer: float = ANSWER
    ) -> None:
        """A worker that was not started.

        Args:
            name: for messages.
            command: the program and its arguments.
            start: seconds until it must be ready.
            answer: seconds until it must have answered.
        """
        self.name = name
        self.version = ""
        self._command = [str(each) for each in command]
        self._start, self._answer = start, answer
        self._said = b""
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start it, and wait until it is ready.

        Raises:
            PeerFailed: it does not start; its last words are in the message.
        """
        with contextlib.ExitStack() as undo:
            self._log = undo.enter_context(tempfile.TemporaryFile())
            try:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._log,
                    env=os.environ | _ONE_THREAD | _QUIET,
                )
            except OSError as error:
                raise PeerFailed(f"{self.name} does not start: {error.strerror or error}") from error
            undo.callback(self._end)
            self.version = str(self._hear(self._start, "version"))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def attempt(self, frame: int) -> Answer:
        """Steps 2 to 5 on the frame of this index.

        Raises:
            PeerFailed: it died, hung or spoke nonsense.
        """
        pipe = self._process.stdin
        try:
            if pipe is not None:
                pipe.write(f"{frame}\n".encode())
                pipe.flush()
        except OSError as error:
            raise self._failed("ended") from error
        wall, cpu, faces, score = self._hear(self._answer, "wall_ns", "cpu_ns", "faces", "score")
        return Answer(wall / 1e6, cpu / 1e6, int(faces), float(score))

    def _hear(self, seconds: float, *words: str) -> Any:
        """These words of its next line; of one word, that one alone."""
        line = self._line(Deadline(seconds))
        try:
            said = json.loads(line)
            found = [said[word] for word in words]
        except (ValueError, TypeError, KeyError) as error:
            raise self._failed("answered something else than a measurement") from error
        return found if len(found) > 1 else found[0]

    def _line(self, deadline: Deadline) -> bytes:
        pipe = self._process.stdout
        while b"\n" not in self._said:
            if pipe is None or not select.select([pipe], [], [], deadline.remaining)[0]:
                raise self._failed("does not answer")
            part = os.read(pipe.fileno(), 1 << 16)
            if not part:
                raise self._failed("ended")
            self._said += part
        line, _, self._said = self._said.partition(b"\n")
        return line

    def _failed(self, what: str) -> PeerFailed:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "it said nothing")
        return PeerFailed(f"the peer {self.name} {what} ({last[:200]}): leave out --against {self.name}")

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # a last line that it never read
                    pipe.close()
        # It holds nothing that an orderly end would save.
        self._process.kill()
        self._process.wait()
