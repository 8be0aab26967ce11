"""`drempel bench`: what it prints, and what it counts; times are printed and never asserted."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from appliance.commands.bench import bench
from appliance.errors import ConfigurationError
from appliance.evaluation.bench import machine, speed
from appliance.evaluation.bench.enrolled import enrolled
from appliance.evaluation.bench.peers.process import Answer
from appliance.evaluation.bench.speed import (
    STEPS,
    Attempt,
    NotMeasurable,
    Race,
    frames_of,
    load_door,
    measure_enrolled,
    race_as_json,
)
from appliance.packs.manifest import load_manifest
from appliance.vault.claims import read_token
from appliance.vault.store import Store

NUMBERS = {"median", "p5", "p95", "n"}


@pytest.fixture(scope="module")
def door(test_models: Path) -> speed.Door:
    return load_door(test_models)


@pytest.fixture(scope="module")
def frames(portrait_paths: dict[str, Path]) -> list[Any]:
    return frames_of(list(portrait_paths.values()))


def attempt(whole: float) -> Attempt:
    return Attempt(dict.fromkeys(STEPS, whole / len(STEPS)), whole, whole)


def test_a_race_is_told_in_the_agreed_shape_and_the_second_times_count() -> None:
    rounds = 20
    slow, quick = attempt(50.0), attempt(10.0)
    race = Race(
        ours=[slow, quick] * rounds,
        peers={
            "face_recognition": [Answer(900.0, 900.0, 1, 0.0), Answer(160.0, 150.0, 1, 0.0)] * rounds,
            "insightface": [Answer(90.0, 90.0, 1, 0.0), Answer(19.0, 19.0, 1, 0.0)] * rounds,
        },
        versions={"face_recognition": "1.3.0", "insightface": "2.1"},
    )
    told = race_as_json(race)
    assert told["steps"] == dict.fromkeys(STEPS, 2.0)
    assert told["whole"] == 10
    assert set(told["spread"]["whole"]) == NUMBERS
    assert told["spread"]["whole"]["n"] == rounds
    dlib, onnx = told["peers"]["face_recognition"], told["peers"]["insightface"]
    assert (dlib["whole"], dlib["ratio"], dlib["met"]) == (160, 16, True)
    assert (onnx["whole"], onnx["ratio"], onnx["met"]) == (19, 1.9, False)
    assert dlib["ratio_of_processor_time"]["median"] == 15
    assert dlib["ratio_of_first_times"]["median"] == 18
    assert onnx["share_of_its_time"]["median"] == pytest.approx(0.5263, abs=1e-4)


def test_each_round_gives_everyone_the_same_frame_in_some_order() -> None:
    seen: list[tuple[str, int]] = []
    rng = np.random.default_rng(1)
    contestants = [lambda index, name=name: seen.append((name, index)) for name in "abc"]
    speed._go_round(contestants, 4, 10, rng, print, times=2)
    assert len(seen) == (10 + speed.WARM_UP) * 3 * 2
    orders = set()
    for number in range(10 + speed.WARM_UP):
        turn = seen[number * 6 : number * 6 + 6]
        assert {index for _, index in turn} == {number % 4}
        assert [name for name, _ in turn[::2]] == [name for name, _ in turn[1::2]], "twice in a row"
        orders.add("".join(name for name, _ in turn[::2]))
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)
    assert len(orders) > 1


def test_one_core_is_kept_and_given_back() -> None:
    before = os.sched_getaffinity(0)
    with machine.one_core() as core:
        assert os.sched_getaffinity(0) == {core}
    assert os.sched_getaffinity(0) == before


def test_an_attempt_reads_one_record_by_its_key(tmp_path: Path) -> None:
    """Counted by SQLite itself: what is executed, and how."""
    with enrolled(300, load_manifest("edge"), tmp_path / "vault", print) as vault:
        assert vault.vaulted.store.count() == 300
        executed: list[str] = []
        vault.vaulted.store._db.set_trace_callback(executed.append)
        for number, code in enumerate(vault.codes[:50], 1):
            token = read_token(bytearray(code))
            assert token is not None
            claimed = vault.vaulted.open(token)
            assert claimed is not None
            assert vault.vaulted.store.records_read == number
        vault.vaulted.store._db.set_trace_callback(None)
        executed = [each for each in executed if " FROM record " in each]
        assert len(executed) == 50
        db = sqlite3.connect(f"file:{tmp_path}/vault/vault.db?mode=ro", uri=True)
        plan = {row[3] for each in executed for row in db.execute(f"EXPLAIN QUERY PLAN {each}")}
        db.close()
    # Its two sealed parts stand in tables of their own.
    assert plan == {
        "SEARCH record USING PRIMARY KEY (handle=?)",
        "SEARCH half USING PRIMARY KEY (handle=?) LEFT-JOIN",
        "SEARCH body USING PRIMARY KEY (handle=?) LEFT-JOIN",
    }


def test_all_records_of_a_vault_of_the_bench_open_and_are_sealed(tmp_path: Path) -> None:
    with enrolled(20, load_manifest("edge"), tmp_path / "vault", print) as vault:
        assert len(set(vault.codes)) == 20
        seen = [vault.vaulted.open(token) for code in vault.codes if (token := read_token(bytearray(code)))]
        assert len([claimed for claimed in seen if claimed]) == 20
        handles = {claimed.handle for claimed in seen if claimed}
        assert len(handles) == 20
        raw = (tmp_path / "vault/vault.db-wal").read_bytes() + (tmp_path / "vault/vault.db").read_bytes()
        assert all(handle in raw for handle in handles)
        assert all(claimed.record._template.astype("<f4").tobytes() not in raw for claimed in seen if claimed)


def test_a_picture_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "none.jpg").write_text("no picture")
    with pytest.raises(NotMeasurable, match=r"none\.jpg"):
        frames_of([tmp_path / "none.jpg"])


@pytest.mark.parametrize(
    "arguments", [{"idle": True, "against": ["insightface"]}, {"config": Path("/c.toml")}]
)
def test_what_cannot_go_together_is_a_wrong_call(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        bench(**arguments)


def test_a_peer_that_nobody_knows_is_a_wrong_call() -> None:
    with pytest.raises(ConfigurationError, match="choose face_recognition or insightface"):
        bench(against=["dlib"])


@pytest.mark.models
def test_a_frame_without_a_face_is_no_measurement(door: speed.Door, tmp_path: Path) -> None:
    nobody = np.full((480, 640, 3), 90, np.uint8)
    with (
        enrolled(1, door.manifest, tmp_path / "vault", print) as vault,
        pytest.raises(NotMeasurable, match="0 faces"),
    ):
        door.attempt(nobody, vault, vault.codes[0])


@pytest.mark.models
def test_an_attempt_is_the_sum_of_its_steps(door: speed.Door, frames: list[Any], tmp_path: Path) -> None:
    with enrolled(3, door.manifest, tmp_path / "vault", print) as vault:
        for frame in frames:
            measured = door.attempt(frame, vault, vault.codes[0])
            assert tuple(measured.steps) == STEPS
            assert min(measured.steps.values()) > 0
            assert sum(measured.steps.values()) == pytest.approx(measured.whole)
            print(measured)


@pytest.mark.models
def test_the_command_prints_the_agreed_shape(
    test_models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "COUNTS", (5, 20))
    monkeypatch.setattr(speed, "ENROLLED_ROUNDS", 6)
    monkeypatch.setattr(speed, "VAULT_ROUNDS", 6)
    bench(rounds=6, packs=test_models, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert tuple(told["steps"]) == STEPS
    assert all(value > 0 for value in told["steps"].values())
    assert told["whole"] > max(told["steps"].values())
    assert told["peers"] == {}
    assert set(told["enrolled"]) == {"5", "20"}
    assert all(value > 0 for value in told["enrolled"].values())
    assert told["records_read_per_attempt"] == {"5": 1, "20": 1}
    assert set(told["vault_part_ratio"]) == {"median", "low", "high", "n"}
    assert {"processor", "cores", "versions"} <= set(told["machine"])
    assert told["rounds"] == 6
    bench(rounds=6, packs=test_models)
    table = capsys.readouterr().out
    assert all(name in table for name in (*STEPS, "whole", "enrolled"))


@pytest.mark.full
@pytest.mark.models
def test_the_peers_run_the_same_frames_and_find_the_same_faces(
    test_models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    against = ["face_recognition", "insightface"]
    bench(against=against, rounds=12, enrolled=False, packs=test_models, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert set(told["peers"]) == set(against)
    for peer in told["peers"].values():
        assert peer["spread"]["n"] == told["spread"]["whole"]["n"] == 12
        assert peer["ratio"] > 1
        print(peer)


@pytest.mark.full
@pytest.mark.models
def test_with_a_hundred_thousand_enrolled_an_attempt_reads_one_record(
    door: speed.Door, frames: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Store] = []
    real = Store.__init__

    def remember(self: Store, path: Path) -> None:
        real(self, path)
        read.append(self)

    monkeypatch.setattr(Store, "__init__", remember)
    told = measure_enrolled(door, frames, speed.COUNTS, rounds=300, vault_rounds=300, progress=print)
    assert set(told["enrolled"]) == {"10", "1000", "100000"}
    assert {store.records_read for store in read} == {600 + 2 * speed.WARM_UP}
    assert told["enrolled_ratio"]["n"] == 300
    print(told)
