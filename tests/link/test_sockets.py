import errno
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.errors import ConfigurationError
from appliance.link.sockets import (
    Deadline,
    Late,
    LinkError,
    Malformed,
    Torn,
    WrongPeer,
    accept,
    check_peer,
    connect,
    listen,
    peer_uid,
    read_exact,
    read_to_end,
    send,
    user_ids,
)

STRANGER = frozenset({54321})


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_the_kernel_says_who_is_at_the_other_end(
    pair: tuple[socket.socket, socket.socket], me: frozenset[int]
) -> None:
    assert peer_uid(pair[0]) == os.geteuid()
    check_peer(pair[0], me)


@pytest.mark.parametrize("allowed", [STRANGER, frozenset[int]()])
def test_a_peer_of_another_user_is_refused(
    pair: tuple[socket.socket, socket.socket], allowed: frozenset[int]
) -> None:
    with pytest.raises(WrongPeer, match=r"see \[users\]"):
        check_peer(pair[0], allowed)


def test_a_refused_caller_is_hung_up_on_without_a_byte(short_folder: Path, me: frozenset[int]) -> None:
    path = short_folder / "x.sock"
    with listen(path) as listener, connect(path, me, Deadline(1)) as caller:
        with pytest.raises(WrongPeer):
            accept(listener, STRANGER)
        caller.settimeout(1)
        assert caller.recv(1) == b""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to call as another user")
def test_a_caller_who_really_is_another_user_is_refused_and_leaves_the_next_one_served(
    short_folder: Path, me: frozenset[int]
) -> None:
    path = short_folder / "x.sock"
    short_folder.chmod(0o755)
    with listen(path) as listener:
        script = f"""
            import os, socket
            os.setuid(54321)
            with socket.socket(socket.AF_UNIX) as caller:
                caller.connect({str(path)!r})
                caller.settimeout(5)
                raise SystemExit(0 if caller.recv(1) == b"" else 1)
        """
        stranger = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)])
        listener.settimeout(10)
        with pytest.raises(WrongPeer, match="54321"):
            accept(listener, me)
        assert stranger.wait(10) == 0
        with connect(path, me, Deadline(1)), accept(listener, me) as served:
            assert peer_uid(served) == os.geteuid()


def test_a_zone_does_not_speak_to_a_listener_of_another_user(short_folder: Path) -> None:
    path = short_folder / "x.sock"
    with listen(path) as listener:
        with pytest.raises(WrongPeer):
            connect(path, STRANGER, Deadline(1))
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(1)
            assert connection.recv(1) == b""


def test_a_stale_socket_of_a_dead_process_is_replaced(short_folder: Path, me: frozenset[int]) -> None:
    path = short_folder / "x.sock"
    listen(path).close()
    assert path.is_socket()
    with listen(path) as again, connect(path, me, Deadline(1)), accept(again, me):
        pass


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_what_is_no_socket_is_never_deleted(short_folder: Path, kind: str) -> None:
    path = short_folder / "x.sock"
    precious = short_folder / "precious"
    precious.write_text("precious")
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(precious)
    with pytest.raises(LinkError, match="is no socket: remove it"):
        listen(path)
    assert path.exists()
    assert precious.read_text() == "precious"


def test_a_path_too_long_for_a_socket_is_said(short_folder: Path) -> None:
    with pytest.raises(LinkError, match=r"check \[paths\] runtime"):
        listen(short_folder / ("x" * 120))


def test_a_folder_that_is_not_there_is_said(short_folder: Path) -> None:
    with pytest.raises(LinkError, match=r"check \[paths\] runtime"):
        listen(short_folder / "nowhere" / "x.sock")


def test_nobody_there_is_said_with_what_to_look_at(short_folder: Path, me: frozenset[int]) -> None:
    with pytest.raises(LinkError, match="is that zone running"):
        connect(short_folder / "x.sock", me, Deadline(1))
    listen(short_folder / "y.sock").close()
    with pytest.raises(LinkError, match="is that zone running"):
        connect(short_folder / "y.sock", me, Deadline(1))


def test_a_listener_whose_queue_is_full_is_waited_for_until_the_deadline(
    short_folder: Path, me: frozenset[int]
) -> None:
    path = short_folder / "x.sock"
    with listen(path, backlog=0):
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                if each.connect_ex(str(path)) == errno.EAGAIN:
                    break
            began = time.monotonic()
            with pytest.raises(Late):
                connect(path, me, Deadline(0.3))
            assert 0.25 < time.monotonic() - began < 2
        finally:
            for each in waiting:
                each.close()


def test_a_process_out_of_file_descriptors_gets_an_error_of_the_link(
    short_folder: Path, me: frozenset[int]
) -> None:
    path = short_folder / "x.sock"
    script = f"""
        import os, resource
        from pathlib import Path
        from appliance.link.sockets import Deadline, LinkError, connect
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, most))
        try:
            connect(Path({str(path)!r}), {{os.geteuid()}}, Deadline(1))
        except LinkError:
            os._exit(7)
        except OSError:
            os._exit(8)
    """
    assert me
    with listen(path):
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == 7


def test_reading_exactly_gives_all_bytes_however_they_are_cut(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair

    def write() -> None:
        for byte in b"abcdef":
            theirs.send(bytes([byte]))
            time.sleep(0.005)

    peer = threading.Thread(target=write)
    peer.start()
    assert read_exact(ours, 4, Deadline(2)) == b"abcd"
    assert read_exact(ours, 2, Deadline(2)) == b"ef"
    peer.join()


def test_a_stream_that_ends_early_is_torn(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abc")
    theirs.close()
    with pytest.raises(Torn):
        read_exact(ours, 4, Deadline(1))


def test_reading_to_the_end_waits_for_it_and_takes_in_no_more_than_the_limit(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b"abcd")
    with pytest.raises(Late):
        read_to_end(ours, 8, Deadline(0.1))
    theirs.sendall(b"efgh")
    theirs.shutdown(socket.SHUT_WR)
    assert read_to_end(ours, 4, Deadline(1)) == b"efgh"


def test_one_byte_more_than_the_limit_is_refused_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"abcde")
    with pytest.raises(Malformed, match="more than 4 bytes"):
        read_to_end(ours, 4, Deadline(5))


def test_a_drip_without_end_is_bounded_by_the_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            theirs.send(b"x")

    peer = threading.Thread(target=drip)
    peer.start()
    began = time.monotonic()
    with pytest.raises(Late):
        read_to_end(ours, 1000, Deadline(0.3))
    took = time.monotonic() - began
    stop.set()
    peer.join()
    assert 0.25 < took < 1.0


def test_a_deadline_only_ever_comes_nearer() -> None:
    deadline = Deadline(10)
    assert 9 < deadline.remaining <= 10
    assert not deadline.passed
    assert deadline.earlier(60) is deadline
    assert deadline.earlier(1).remaining <= 1
    passed = Deadline(-1)
    assert passed.passed
    assert passed.remaining == 0
    assert passed.earlier(5).passed


def test_sending_after_the_deadline_sends_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    with pytest.raises(Late):
        send(ours, b"\x01", Deadline(0))
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_an_empty_user_is_the_one_who_runs_this_and_an_unknown_one_is_said() -> None:
    assert user_ids("") == {os.geteuid()}
    assert user_ids("root", "") == {0, os.geteuid()}
    with pytest.raises(ConfigurationError, match=r"no user 'nobody-of-ours': create it, or mend \[users\]"):
        user_ids("nobody-of-ours")
