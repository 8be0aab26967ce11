"""A finished pack takes the place of the former one: what a kill at any moment of it leaves."""

import subprocess
import sys
from pathlib import Path

import pytest

from appliance.packs import install as installing

# A replacement in a process of its own that dies at one of its steps, before or after it was done.
DIES = """
import os, sys
from pathlib import Path
from appliance.packs import install as installing

owner, name = {"rename": (Path, "rename"), "exchange": (installing, "_exchange"),
               "sync": (installing, "sync_folder")}[sys.argv[2]]
step = getattr(owner, name)

def die(*arguments):
    if sys.argv[3] == "after":
        step(*arguments)
    os._exit(9)

setattr(owner, name, die)
packs = Path(sys.argv[1])
installing._put(packs / ".building-edge-1", packs / "edge")
"""


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    for folder, content in (("edge", "former"), (".building-edge-1", "new")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "which").write_text(content)
    return tmp_path


def test_the_new_pack_is_in_place_and_the_former_left_to_be_removed(packs: Path) -> None:
    installing._put(packs / ".building-edge-1", packs / "edge")
    assert (packs / "edge" / "which").read_text() == "new"
    installing._clean(packs)
    assert [path.name for path in packs.iterdir()] == ["edge"]


@pytest.mark.parametrize("step", ["rename", "exchange", "sync"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_step_leaves_one_of_the_two_packs_in_place(packs: Path, step: str, when: str) -> None:
    died = subprocess.run([sys.executable, "-c", DIES, str(packs), step, when], check=False)
    assert died.returncode == (0 if step == "rename" else 9)  # no rename is needed where there is a pack
    assert (packs / "edge" / "which").read_text() in {"former", "new"}
    installing._clean(packs)
    assert [path.name for path in packs.iterdir()] == ["edge"]


def test_where_folders_cannot_be_exchanged_two_renames_serve(
    packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "_exchange", lambda *_: False)
    installing._put(packs / ".building-edge-1", packs / "edge")
    assert (packs / "edge" / "which").read_text() == "new"
    assert [path.name for path in packs.iterdir()] == ["edge"]


def test_an_exchange_that_is_not_possible_changes_nothing(packs: Path) -> None:
    assert not installing._exchange(packs / "edge", packs / "nothing")
    assert (packs / "edge" / "which").read_text() == "former"
