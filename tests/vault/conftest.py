from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.vault.claims import Vaulted
from tests.vault.faces import vault_in


@pytest.fixture
def vaulted(tmp_path: Path) -> Iterator[Vaulted]:
    with vault_in(tmp_path) as vaulted:
        yield vaulted
