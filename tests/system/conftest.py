"""One simulated door a module, with one person enrolled; and what a forensic test reports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.forensics import Report
from tests.system.house import House, open_house


@pytest.fixture(scope="module")
def house(test_models: Path, portrait_paths: dict[str, Path]) -> Iterator[House]:
    with open_house(test_models, portrait_paths) as house:
        house.enrol()
        yield house


@pytest.fixture
def report() -> Iterator[Report]:
    report = Report([])
    yield report
    print("\n" + "\n".join(report.lines))
