"""The walls between the zones: what a module may import, and what a running zone has loaded.

The contracts stand in `pyproject.toml`. A wall that cannot be broken in a copy of the tree is no wall, so
each contract is shown to fail as well.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "importlinter"
    ]["contracts"]
}
Breach = Callable[[Path], None]


def importing(file: str, statement: str) -> Breach:
    """A change to a copy of the tree: one more import in a module."""

    def change(tree: Path) -> None:
        path = tree / "appliance" / file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")

    return change


BREACHES: tuple[tuple[str, Breach], ...] = (
    ("zones", importing("door/controller.py", "import appliance.vault.store")),
    ("zones", importing("lens/capture.py", "from appliance.vault import keys")),
    ("zones", importing("admin/upkeep.py", "def late():\n    import appliance.door.badges")),
    ("common", importing("link/messages.py", "import appliance.vault.token")),
    ("common", importing("journal.py", "import appliance.admin.registry.people")),
    ("common", importing("rights.py", "from appliance.vault import limits")),
    ("door", importing("door/guidance.py", "import numpy")),
    ("door", importing("door/service.py", "import httpx")),
    ("lens", importing("lens/quality.py", "import sqlite3")),
    ("lens", importing("lens/service.py", "from cryptography.hazmat.primitives import hashes")),
    ("vault", importing("vault/comparison.py", "import cv2")),
    ("vault", importing("vault/service.py", "import appliance.packs.fetch")),
    ("backup", importing("backup/contents.py", "from appliance.vault import store")),
    ("admin", importing("admin/enrolments.py", "import numpy")),
    ("admin", importing("admin/zones.py", "import appliance.packs.manifest")),
)


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=tree,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the code and its contracts."""
    shutil.copytree(ROOT / "appliance", tmp_path / "appliance", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_no_zone_imports_what_is_not_its_own() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout
    for name in CONTRACTS.values():
        assert f"{name} KEPT" in done.stdout


def test_every_contract_is_shown_to_hold_something_back() -> None:
    assert {contract for contract, _ in BREACHES} == CONTRACTS.keys()


@pytest.mark.parametrize(("contract", "breach"), BREACHES)
def test_a_breach_of_a_wall_is_found(tree: Path, contract: str, breach: Breach) -> None:
    breach(tree)
    done = lint(tree)
    assert done.returncode == 1, done.stdout
    assert f"{CONTRACTS[contract]} BROKEN" in done.stdout


IMAGES = {"cv2", "PIL", "skimage", "zxingcpp"}
MODELS = {"onnx", "onnxruntime", "insightface"}
PINS = {"gpiozero", "lgpio", "osdp"}
NETWORK = {"httpx", "requests", "urllib3", "httpcore", "aiohttp"}
SERVER = {"fastapi", "uvicorn", "starlette", "http"}
NEVER = {
    "door": IMAGES | MODELS | NETWORK | SERVER | {"numpy", "cryptography", "segno"},
    "lens": PINS | NETWORK | SERVER | {"sqlite3", "cryptography"},
    "vault": IMAGES | MODELS | PINS | NETWORK | SERVER | {"segno"},
    "admin": IMAGES | MODELS | PINS | NETWORK | {"numpy", "cryptography"},
}
"""What the process of a zone never loads.

`ssl` is in every one, because asyncio loads it; that a zone uses it is for the contracts to find.
"""


@pytest.mark.parametrize("zone", NEVER)
def test_a_running_zone_has_not_loaded_what_it_may_never_touch(zone: str) -> None:
    script = f"import sys, appliance.{zone}.service; print(*sys.modules, sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert f"appliance.{zone}.service" in loaded
    assert loaded & NEVER[zone] == set()
    others = {f"appliance.{other}" for other in (*NEVER, "simulation", "commands", "cli") if other != zone}
    assert loaded & others == set()
    packs = {module for module in loaded if module.startswith("appliance.packs.")}
    # Of the packs, vault knows the manifest alone, and nothing of how they are fetched.
    assert packs <= ({"appliance.packs.manifest"} if zone in {"vault", "lens"} else set())


def test_asking_for_a_zone_loads_no_telemetry_before_it_is_switched_off() -> None:
    script = "import os, appliance; print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
