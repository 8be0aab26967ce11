"""A process that is closed to others, and locked in memory; `pytest -s` shows what the lock costs."""

import os
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from appliance.hardening import ENVIRONMENT
from appliance.process import ZONES
from tests.looking import only_root_looks_in

BEGIN = """
    import resource, sys
    from pathlib import Path
    from appliance.process import begin
    from appliance.settings import Paths, Settings, Users

    root = Path({root!r})
    paths = Paths(state=root / "state", runtime=root / "run")
    begin(Settings(paths=paths, users=Users(door="", lens="", vault="", admin="")), {zone!r})
    print(open("/proc/self/status").read(), flush=True)
    input()
"""
LOOK = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb'); open(f'/proc/{sys.argv[1]}/environ', 'rb')"


def status(process: subprocess.Popen[str]) -> dict[str, str]:
    assert process.stdout is not None
    found = {}
    while line := process.stdout.readline().rstrip("\n"):
        name, _, value = line.partition(":")
        found[name] = value.strip()
    return found


def started(
    folder: Path, zone: str, *before: str, environment: dict[str, str] = ENVIRONMENT
) -> subprocess.Popen[str]:
    script = textwrap.dedent(BEGIN.format(root=str(folder), zone=zone))
    without = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    return subprocess.Popen(
        [*before, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env={**without, **environment, "PYTHONPATH": str(Path(__file__).parents[1])},
    )


@pytest.mark.parametrize("zone", ZONES)
def test_no_process_of_the_same_user_reads_the_memory_of_a_zone(tmp_path: Path, zone: str) -> None:
    with started(tmp_path, zone) as process:
        status(process)
        # The kernel gives what lies below /proc/PID of such a process to root; no other tracer may attach.
        assert Path(f"/proc/{process.pid}/environ").stat().st_uid == 0
        assert Path(f"/proc/{process.pid}/environ").stat().st_mode & 0o077 == 0
        if os.geteuid() != 0:
            assert subprocess.run([sys.executable, "-c", LOOK, str(process.pid)], check=False).returncode
        process.kill()


@pytest.mark.root
@only_root_looks_in
def test_another_process_of_the_same_user_is_refused_by_the_kernel(short_folder: Path) -> None:
    short_folder.chmod(0o777)
    become = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    # The zone may read this checkout wherever it lies; who looks into it may not.
    with started(short_folder, "vault", *become, *read) as process:
        assert status(process)["Uid"].split()[0] == "65534"
        look = [*become, "/usr/bin/python3", "-c", LOOK]
        refused = subprocess.run(
            [*look, str(process.pid)], capture_output=True, text=True, check=False, cwd="/"
        )
        assert "PermissionError" in refused.stderr
        allowed = subprocess.run([*look, "self"], capture_output=True, check=False, cwd="/")
        assert allowed.returncode == 0, "this test can see memory where the kernel allows it"
        process.kill()


@pytest.mark.root
@only_root_looks_in
def test_vault_alone_is_locked_in_memory_and_what_it_costs_is_printed(tmp_path: Path) -> None:
    costs = {}
    for zone in ("lens", "vault"):
        with started(tmp_path / zone, zone) as process:
            found = status(process)
            costs[zone] = {name: int(found[name].split()[0]) for name in ("VmSize", "VmLck", "VmRSS")}
            process.kill()
    print(
        {zone: {name: f"{kib / 1024:.1f} MiB" for name, kib in cost.items()} for zone, cost in costs.items()}
    )
    assert costs["lens"]["VmLck"] == 0
    assert costs["vault"]["VmLck"] > 0.9 * costs["vault"]["VmSize"] - 1024, "all that it has, touched or not"
    assert costs["vault"]["VmRSS"] < costs["lens"]["VmRSS"] + 8 * 1024, "what nobody touches takes no memory"


def test_a_vault_that_may_not_lock_its_memory_says_so_in_one_line_and_goes_on(tmp_path: Path) -> None:
    limit = ["prlimit", "--memlock=8388608:8388608"]
    without = ["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"] if os.geteuid() == 0 else []
    with started(tmp_path, "vault", *limit, *without) as process:
        assert status(process)["VmLck"].split()[0] == "0"
        process.kill()
        assert process.stderr is not None
        said = process.stderr.read()
    assert said == (
        "drempel vault: memory is not locked: its limit is 8192 KiB; set LimitMEMLOCK=infinity in the unit\n"
    )


def test_a_vault_that_is_not_bound_at_its_start_says_so(tmp_path: Path) -> None:
    with started(tmp_path, "vault", environment={}) as process:
        status(process)
        process.kill()
        assert process.stderr is not None
        assert "set Environment=LD_BIND_NOW=1 in the unit\n" in process.stderr.read()


@pytest.mark.parametrize("zone", ZONES)
def test_a_zone_that_dies_leaves_no_core(tmp_path: Path, zone: str) -> None:
    with started(tmp_path, zone) as process:
        status(process)
        limits = Path(f"/proc/{process.pid}/limits")
        if os.geteuid() == 0:
            assert re.search(r"Max core file size +0 +0", limits.read_text())
            assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == (0, 0)
        process.kill()
