"""The peers' environments and processes: pinned by hash, on one thread, and one line where they fail."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ConfigurationError, DrempelError
from appliance.evaluation.bench.peers import environment
from appliance.evaluation.bench.peers.environment import (
    PEERS,
    Peer,
    PeerFailed,
    interpreter,
    known_peer,
    lock_file,
)
from appliance.evaluation.bench.peers.process import WORKER, PeerProcess
from appliance.lens.camera.replay import fit
from appliance.packs.published import lay_out_published
from appliance.packs.verify import PackDamaged
from tests.fixtures_models import Picture

READY = 'import sys; print(\'{"ready": true, "version": "1"}\', flush=True); line = sys.stdin.readline(); '


def worker(script: str, *, start: float = 20, answer: float = 20) -> PeerProcess:
    return PeerProcess("somebody", [sys.executable, "-c", script], start=start, answer=answer)


@pytest.mark.parametrize("peer", PEERS)
def test_a_lock_is_one_version_of_each_with_hashes_and_no_address(peer: Peer) -> None:
    text = lock_file(peer).read_text(encoding="utf-8")
    lines = [
        line
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(lines) >= 7
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[^\s*]+( ; [^\\]+?)?\s+--hash=sha256:[0-9a-f]{64}", line), line
        assert re.findall(r"--hash=(?!sha256:[0-9a-f]{64}\b)", line) == []
    assert "://" not in text
    assert " @ " not in text
    assert "index-url" not in text


def test_the_lock_of_insightface_has_the_versions_of_a_door() -> None:
    root = Path(__file__).parents[3]
    door = set(re.findall(r"(?m)^([a-z0-9-]+==\S+)", (root / "requirements.lock").read_text("utf-8")))
    peer = set(re.findall(r"(?m)^([a-z0-9-]+==\S+)", lock_file("insightface").read_text("utf-8")))
    assert peer <= door


def test_what_builds_source_packages_is_installed_first() -> None:
    first, rest = environment._in_order(lock_file("face_recognition").read_text("utf-8"))
    assert re.findall(r"(?m)^\S+==", first) == ["setuptools=="]
    assert "face-recognition-models==" in rest
    assert "setuptools==" not in rest


def test_the_worker_imports_nothing_of_ours() -> None:
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(WORKER.read_text("utf-8")))
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert "appliance" not in imported


def test_an_unknown_peer_is_a_wrong_call_that_names_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="face_recognition or insightface"):
        known_peer("deepface")


def test_an_environment_is_used_again_until_its_lock_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed: list[str] = []
    monkeypatch.setattr(environment, "_install", lambda _peer, _python, pins: installed.append(pins))
    said: list[str] = []
    python = interpreter("face_recognition", said.append, into=tmp_path)
    assert python == tmp_path / "face_recognition/bin/python"
    assert len(installed) == 2
    assert len(said) == 1
    interpreter("face_recognition", said.append, into=tmp_path)
    assert len(installed) == 2
    changed = tmp_path / "changed.lock"
    changed.write_text(lock_file("face_recognition").read_text("utf-8") + "\n", "utf-8")
    monkeypatch.setattr(environment, "lock_file", lambda _: changed)
    interpreter("face_recognition", said.append, into=tmp_path)
    assert len(installed) == 4


def test_a_half_made_environment_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PeerFailed("no network")

    monkeypatch.setattr(environment, "_install", fail)
    with pytest.raises(PeerFailed):
        interpreter("insightface", print, into=tmp_path)
    installed: list[str] = []
    monkeypatch.setattr(environment, "_install", lambda _peer, _python, pins: installed.append(pins))
    interpreter("insightface", print, into=tmp_path)
    assert len(installed) == 1


def test_what_pip_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "wrong.lock"
    wrong.write_text(f"click==0.0.0 --hash=sha256:{'0' * 64}\n", "utf-8")
    monkeypatch.setattr(environment, "lock_file", lambda _: wrong)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(PeerFailed, match="could not be installed") as refused:
        interpreter("insightface", print, into=tmp_path)
    assert "\n" not in str(refused.value)


def test_a_worker_answers_for_the_frame_that_it_is_asked() -> None:
    said = '{"wall_ns": 2000000, "cpu_ns": 1000000, "faces": 1, "score": %s}'
    with worker(READY + f"print({said!r} % line.strip(), flush=True)") as peer:
        assert peer.version == "1"
        seen = peer.attempt(7)
    assert (seen.wall, seen.cpu, seen.faces, seen.score) == (2, 1, 1, 7)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("raise SystemExit('there is no dlib')", "ended .there is no dlib"),
        ("import time; time.sleep(60)", "does not answer"),
        ("print('hello', flush=True); input()", "something else"),
        ("print('3', flush=True); input()", "something else"),
    ],
)
def test_a_worker_that_does_not_start_is_one_line(script: str, complaint: str) -> None:
    with pytest.raises(PeerFailed, match=complaint) as failed, worker(script, start=1.5):
        pytest.fail("it started")
    assert "\n" not in str(failed.value)
    assert "--against somebody" in str(failed.value)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("sys.exit('out of memory')", "ended .out of memory"),
        ("import time; time.sleep(60)", "does not answer"),
        ("print('{\"wall_ns\": 1}', flush=True)", "something else"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended .it said nothing"),
    ],
)
def test_a_worker_that_dies_or_hangs_over_a_frame_is_one_line(script: str, complaint: str) -> None:
    with worker(READY + script, answer=1) as peer:
        with pytest.raises(PeerFailed, match=complaint) as failed:
            peer.attempt(0)
        pid = peer._process.pid
    assert "\n" not in str(failed.value)
    assert not Path(f"/proc/{pid}").exists()


def test_a_program_that_is_not_there_is_one_line() -> None:
    with pytest.raises(PeerFailed, match="does not start"), PeerProcess("somebody", ["/nowhere/python"]):
        pytest.fail("it started")


def test_a_worker_runs_on_one_thread_and_sends_no_telemetry() -> None:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ORT_DISABLE_TELEMETRY")
    script = (
        f"import json, os; print(json.dumps({{'version': [os.environ[n] for n in {names}]}}), flush=True)"
    )
    with worker(script) as peer:
        assert peer.version == "['1', '1', '1', '1']"


@pytest.mark.models
def test_insightface_loads_the_networks_as_published_and_finds_the_face(
    test_models: Path, portrait_frames: dict[str, Picture], tmp_path: Path
) -> None:
    """The real worker, in this environment, which has the peer's very versions."""
    (tmp_path / "pack").mkdir()
    lay_out_published("edge", test_models, tmp_path / "pack", print)
    assert (tmp_path / "pack/embedder.onnx").read_bytes() != (test_models / "edge/embedder.onnx").read_bytes()
    pictures = [portrait_frames[name] for name in ("obama.jpg", "obama2.jpg", "biden.jpg")]
    np.save(tmp_path / "frames.npy", np.stack([fit(each, 640, 480) for each in pictures]))
    command: list[str | Path] = [
        sys.executable,
        "-I",
        WORKER,
        "insightface",
        tmp_path / "frames.npy",
        tmp_path / "pack",
    ]
    with PeerProcess("insightface", command) as peer:
        himself, again, another = (peer.attempt(index) for index in range(3))
    assert himself.faces == again.faces == another.faces == 1
    assert himself.score > 0.99
    assert again.score > 0.5 > another.score
    assert min(each.wall for each in (himself, again, another)) > 0


@pytest.mark.models
def test_a_pack_that_is_not_installed_is_laid_out_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(PackDamaged):
        lay_out_published("edge", tmp_path, tmp_path, print)


@pytest.mark.full
@pytest.mark.parametrize("peer", PEERS)
def test_an_environment_is_made_from_its_lock_and_imports_its_peer(peer: Peer, tmp_path: Path) -> None:
    python = interpreter(peer, print, into=tmp_path)
    script = f"import {peer}; from importlib.metadata import version; print(version('{peer}'))"
    done = subprocess.run(
        [python, "-I", "-c", script],
        env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    pin = f"{peer.replace('_', '-')}=={done.stdout.strip()} "
    assert pin in lock_file(peer).read_text("utf-8")


def test_errors_here_are_errors_of_ours() -> None:
    assert issubclass(PeerFailed, DrempelError)
    assert issubclass(PeerFailed, RuntimeError)
