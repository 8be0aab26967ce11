import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def lines_of(lock: str) -> list[str]:
    """The logical lines of a lock file: continuation lines joined, comments left out."""
    text = (ROOT / lock).read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins_of(lock: str) -> dict[str, list[Requirement]]:
    """The pinned requirements of a lock file by canonical name: several where they differ by marker."""
    pins: dict[str, list[Requirement]] = {}
    for line in lines_of(lock):
        requirement = Requirement(line.split(" --hash", 1)[0].strip())
        pins.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    return pins


def version_of(requirement: Requirement) -> str:
    """The one version that a pin allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    assert "*" not in specifier.version
    return specifier.version


def group(name: str) -> list[str]:
    """The requirements of a dependency group, with the groups that it includes."""
    found: list[str] = []
    for entry in PROJECT["dependency-groups"][name]:
        found += [entry] if isinstance(entry, str) else group(entry["include-group"])
    return found


RUNTIME = PROJECT["project"]["dependencies"]
"""Without `gpio`: on a board, Debian's own lgpio may serve, see pyproject."""


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_one_version_with_its_hashes(lock: str) -> None:
    lines = lines_of(lock)
    assert len(lines) > 30
    for line in lines:
        requirement, *hashes = re.split(r"\s+--hash=", line)
        version_of(Requirement(requirement))
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", each) for each in hashes), line


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_file_says_what_and_never_where_from(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    options = [line for line in lines_of(lock) if line.lstrip().startswith("-")]
    assert options == []
    assert "://" not in text
    assert " @ " not in text
    hosts = re.findall(
        r"\b[\w-]+(?:\.[\w-]+)*\.(?:org|com|io|net|dev|cloud|local|internal)\b",
        re.sub(r"(?m)^\s+#.*$", "", text),
    )
    assert hosts == []
    assert "index-url" not in text
    assert not re.search(r"\b\d{1,3}(\.\d{1,3}){3}:\d", text)


@pytest.mark.parametrize("requirement", RUNTIME)
def test_every_direct_dependency_is_locked_within_its_range(requirement: str) -> None:
    wanted = Requirement(requirement)
    pins = pins_of("requirements.lock")[canonicalize_name(wanted.name)]
    assert all(wanted.specifier.contains(version_of(pin)) for pin in pins)


@pytest.mark.parametrize("requirement", [*RUNTIME, *group("dev")])
def test_every_tool_of_a_developer_is_locked_within_its_range(requirement: str) -> None:
    wanted = Requirement(requirement)
    pins = pins_of("requirements-dev.lock")[canonicalize_name(wanted.name)]
    assert all(wanted.specifier.contains(version_of(pin)) for pin in pins)


@pytest.mark.parametrize("requirement", group("build"))
def test_what_installs_the_checkout_is_locked_too(requirement: str) -> None:
    wanted = Requirement(requirement)
    (pin,) = pins_of("requirements.lock")[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version_of(pin))


def test_developers_run_the_very_versions_that_a_door_runs() -> None:
    door, developer = pins_of("requirements.lock"), pins_of("requirements-dev.lock")
    assert door.keys() <= developer.keys()
    for name, pins in door.items():
        assert {version_of(pin) for pin in pins} == {version_of(pin) for pin in developer[name]}, name


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", LOCKS)
def test_a_device_gets_one_version_of_everything(lock: str, machine: str, python: str) -> None:
    device = {
        "python_version": python,
        "python_full_version": f"{python}.2",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    pins = pins_of(lock)
    for name, choices in pins.items():
        fitting = [pin for pin in choices if pin.marker is None or Marker(str(pin.marker)).evaluate(device)]
        assert len(fitting) <= 1, name
    for requirement in RUNTIME:
        choices = pins[canonicalize_name(Requirement(requirement).name)]
        assert any(pin.marker is None or Marker(str(pin.marker)).evaluate(device) for pin in choices), (
            requirement
        )


@pytest.mark.full
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_pin_of_a_door_has_a_wheel_for_each_device(tmp_path: Path, machine: str, python: str) -> None:
    """Asks the registry, and downloads nothing: a door needs no compiler."""
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (28, 27, 17)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--target", str(tmp_path)),
            *(*platforms, f"--platform=manylinux2014_{machine}", f"--python-version={python}"),
            *("--implementation=cp", "--only-binary=:all:", "--no-deps", "--require-hashes"),
            *("--requirement", str(ROOT / "requirements.lock")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
