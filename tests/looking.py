"""Who may look into the process of a zone: root alone, see `appliance.hardening`."""

import os

import pytest

only_root_looks_in = pytest.mark.skipif(
    os.geteuid() != 0, reason="a zone is closed to every other process: only root sees what it holds"
)
