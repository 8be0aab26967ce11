import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from appliance.evaluation import embeddings
from appliance.evaluation.dataset import Photograph, read_dataset
from appliance.evaluation.embeddings import (
    Outcome,
    Seen,
    Source,
    Store,
    WorkerDied,
    embed_all,
    look,
    store_path,
)
from appliance.lens.camera.pictures import read_picture_file
from appliance.lens.quality import Verdict
from tests.fixtures_models import installed_edge

pytestmark = pytest.mark.models


def nothing(_done: int, _total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(installed_edge(), "edge")


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(None)
    yield store
    store.close()


@pytest.fixture
def people(tmp_path: Path, portrait_paths: dict[str, Path]) -> list[Photograph]:
    """Two portraits, a wall, and a file that is no picture."""
    for number, path in enumerate(list(portrait_paths.values())[:2]):
        (tmp_path / f"person {number}").mkdir()
        (tmp_path / f"person {number}" / "1.jpg").write_bytes(path.read_bytes())
    cv2.imwrite(str(tmp_path / "person 0" / "2.png"), np.full((200, 300, 3), 90, np.uint8))
    (tmp_path / "person 1" / "2.jpg").write_bytes(b"\xff\xd8 no picture")
    return list(read_dataset(tmp_path).photographs)


def test_each_photograph_is_seen_once_and_the_second_time_comes_from_the_store(
    people: list[Photograph], source: Source, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    first = embed_all(people, source, store, workers=2, progress=lambda *done: told.append(done))
    assert first.outcomes.tolist() == [
        Outcome.EMBEDDED,
        Outcome.NO_FACE,
        Outcome.EMBEDDED,
        Outcome.NOT_A_PICTURE,
    ]
    assert first.index.tolist() == [0, 2]
    assert told[-1] == (4, 4)
    np.testing.assert_allclose(np.linalg.norm(first.vectors, axis=1), 1, atol=1e-5)

    def no_pool(*_: object) -> None:
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr(embeddings, "_pool", no_pool)
    second = embed_all(people, source, store, workers=2, progress=nothing)
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.verdicts, second.verdicts)


def test_workers_see_what_this_process_sees(people: list[Photograph], source: Source, store: Store) -> None:
    pack = source.load()
    found = embed_all(people, source, store, workers=2, progress=nothing)
    here = look(people[0].path, pack, source)
    assert here.embedding is not None
    np.testing.assert_allclose(found.vectors[0], np.frombuffer(here.embedding, "<f4"), atol=1e-5)


def test_a_photograph_that_cannot_be_read_is_a_failure_to_acquire(
    tmp_path: Path, source: Source, store: Store
) -> None:
    gone = [Photograph(tmp_path / "gone.jpg", "gone.jpg", 0)]
    found = embed_all(gone, source, store, workers=1, progress=nothing)
    assert found.outcomes.tolist() == [Outcome.CANNOT_BE_READ]
    assert found.vectors.shape[0] == 0


def test_a_file_that_was_away_for_a_moment_is_looked_at_again(
    people: list[Photograph], source: Source, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "_look", away)
    first = embed_all(people, source, store, workers=1, progress=nothing)
    assert set(first.outcomes.tolist()) == {Outcome.CANNOT_BE_READ}
    monkeypatch.undo()
    assert embed_all(people, source, store, workers=1, progress=nothing).index.tolist() == [0, 2]


def away(paths: list[Path]) -> list[Seen]:
    return [look(path.with_name("gone.jpg"), *embeddings._loaded) for path in paths if embeddings._loaded]


def test_an_embedding_that_was_damaged_on_disk_is_not_used(store: Store) -> None:
    whole = np.ones(4, "<f4") / 2
    store.put([(b"a" * 32, Seen(Outcome.EMBEDDED, Verdict.GOOD, whole.tobytes()))])
    store.put([(b"b" * 32, Seen(Outcome.EMBEDDED, Verdict.GOOD, (3 * whole).tobytes()))])
    store.put([(b"c" * 32, Seen(Outcome.EMBEDDED, Verdict.GOOD, b"torn"[:3]))])
    assert store.get(b"a" * 32) is not None
    assert store.get(b"b" * 32) is None
    assert store.get(b"c" * 32) is None


def test_a_worker_that_dies_is_said_and_what_was_done_is_kept(
    people: list[Photograph], source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept" / "x.db"
    monkeypatch.setattr(embeddings, "CHUNK", 1)
    monkeypatch.setattr(embeddings, "_look", dies_at_the_last)
    store = Store(kept)
    with pytest.raises(WorkerDied, match="start it again"):
        embed_all(people, source, store, workers=1, progress=nothing)
    store.close()
    assert 0 < rows(kept) < len(people)
    monkeypatch.undo()
    again = Store(kept)
    assert embed_all(people, source, again, workers=1, progress=nothing).index.tolist() == [0, 2]
    again.close()


def dies_at_the_last(paths: list[Path]) -> list[Seen]:
    if "person 1" in str(paths[0]) and paths[0].name == "2.jpg":
        os.kill(os.getpid(), signal.SIGKILL)
    return [look(path, *embeddings._loaded) for path in paths] if embeddings._loaded else []


def rows(path: Path) -> int:
    with sqlite3.connect(path) as db:
        return int(db.execute("SELECT count(*) FROM seen").fetchone()[0])


def test_the_store_is_the_users_alone_and_holds_no_name(
    people: list[Photograph], source: Source, tmp_path: Path
) -> None:
    path = store_path(tmp_path / "cache", source)
    store = Store(path)
    embed_all(people, source, store, workers=1, progress=nothing)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    store.close()
    assert b"person 0" not in path.read_bytes()


def test_what_was_not_used_for_a_week_is_removed(source: Source, tmp_path: Path) -> None:
    old, fresh = tmp_path / "edge-1.db", tmp_path / "edge-2.db"
    for path in (old, fresh):
        path.write_bytes(b"embeddings")
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    store_path(tmp_path, source)
    assert not old.exists()
    assert fresh.exists()


def test_another_pack_size_or_gate_is_another_store(source: Source) -> None:
    others = [
        Source(source.packs, "edge", (256, 192)),
        Source(source.packs, "edge", None, 61),
    ]
    assert len({source.fingerprint(), *(each.fingerprint() for each in others)}) == 3


def test_what_is_put_comes_back(store: Store) -> None:
    seen = Seen(Outcome.EMBEDDED, Verdict.TURNED_AWAY, np.array([1, 0], np.float32).tobytes())
    store.put([(b"a" * 32, seen), (b"b" * 32, Seen(Outcome.NO_FACE, Verdict.NO_FACE))])
    assert store.get(b"a" * 32) == seen
    assert store.get(b"c" * 32) is None


def test_an_evaluation_that_is_killed_goes_on_where_it_was(
    tmp_path: Path, people: list[Photograph], source: Source
) -> None:
    """SIGKILL in the middle; what was written down is whole, and the second run does the rest only."""
    many = tmp_path / "many"
    picture = read_picture_file(people[0].path)
    for number in range(120):
        (many / "someone").mkdir(parents=True, exist_ok=True)
        picture[0, 0] = number
        cv2.imwrite(str(many / "someone" / f"{number:03}.png"), picture)
    kept = tmp_path / "kept.db"
    code = (
        "import sys; from pathlib import Path\n"
        "from appliance.evaluation.dataset import read_dataset\n"
        "from appliance.evaluation.embeddings import Source, Store, embed_all\n"
        "def tell(done, total): print(done, flush=True)\n"
        "embed_all(read_dataset(Path(sys.argv[1])).photographs, Source(Path(sys.argv[2]), 'edge'),\n"
        "    Store(Path(sys.argv[3])), workers=2, progress=tell)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(many), str(source.packs), str(kept)],
        stdout=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    done = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = rows(kept)
    assert done <= before < 120
    store = Store(kept)
    told: list[int] = []
    found = embed_all(
        read_dataset(many).photographs, source, store, workers=2, progress=lambda done, _: told.append(done)
    )
    store.close()
    assert len(found.index) == 120
    assert told[0] > before
    assert rows(kept) == 120
