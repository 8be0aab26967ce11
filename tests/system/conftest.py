"""One simulated door a module, with one person enrolled."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.house import House, open_house


@pytest.fixture(scope="module")
def house(test_models: Path, portrait_paths: dict[str, Path]) -> Iterator[House]:
    with open_house(test_models, portrait_paths) as house:
        house.enrol()
        yield house
