"""A tap on a Unix socket: takes the listener's place, passes all bytes on, and keeps what comes back."""

import contextlib
import select
import socket
import threading
from pathlib import Path

from appliance.link.sockets import listen


class Tap:
    """Between whoever connects to `path` and the zone that listened there.

    `heard` holds, for each connection in the order of their coming, every byte the listener sent.
    """

    def __init__(self, path: Path) -> None:
        self._real = path.with_suffix(".real")
        # A listening socket is reached by the name it has now: rename it, and take its old name.
        path.rename(self._real)
        self._listener = listen(path, backlog=64)
        self._path, self._inode = path, path.stat().st_ino
        self.heard: list[bytearray] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        # A zone that was started again has taken its name back by itself.
        if self._path.stat().st_ino == self._inode:
            self._real.rename(self._path)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            heard = bytearray()
            with self._lock:
                self.heard.append(heard)
            threading.Thread(target=self._pass, args=(caller, heard), daemon=True).start()

    def _pass(self, caller: socket.socket, heard: bytearray) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with caller, listener:
            try:
                listener.connect(str(self._real))
            except OSError:
                return
            open_ways = {caller: listener, listener: caller}
            poll = select.poll()
            for end in open_ways:
                poll.register(end, select.POLLIN)
            while listener in open_ways:
                for number, events in poll.poll(1000):
                    source = caller if number == caller.fileno() else listener
                    if events & select.POLLHUP and source is caller and caller not in open_ways:
                        return
                    if source not in open_ways:
                        continue
                    try:
                        data = source.recv(4096)
                        if source is listener:
                            heard += data
                        if data:
                            open_ways[source].sendall(data)
                            continue
                        open_ways[source].shutdown(socket.SHUT_WR)
                    except OSError:
                        return
                    del open_ways[source]
                    poll.modify(source, 0)
