import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["tests.fixtures_models"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder with a path short enough for sockets, which may have 107 characters."""
    folder = Path(tempfile.mkdtemp(prefix="drempel-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def me() -> frozenset[int]:
    """The user ids of every zone in a simulation: the user who runs it."""
    return frozenset({os.geteuid()})
