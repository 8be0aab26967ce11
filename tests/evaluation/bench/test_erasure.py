"""The bench of erasing, on a small vault; and on a large one, what it writes."""

import json

import pytest

from appliance.commands.bench import bench
from appliance.evaluation.bench import erasure
from appliance.evaluation.bench.erasure import measure_erasing


def test_opening_and_erasing_are_measured() -> None:
    figures = measure_erasing(50, opened=10, erased=3, progress=print)
    told = figures["erase"]
    assert told["count"] == 50
    assert told["open_ms"]["n"] == 10
    assert told["erase_s"]["n"] == 3
    assert told["sound"] is True
    assert told["handed_over_mb"] < 1
    json.dumps(figures)


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasure, "COUNT", 20)
    monkeypatch.setattr(erasure, "OPENED", 5)
    bench(erase=True)
    said = capsys.readouterr().out
    assert "One record among 20" in said
    assert "written" in said
    bench(erase=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["erase"]["count"] == 20


@pytest.mark.full
def test_erasing_one_among_a_hundred_thousand_rewrites_no_template() -> None:
    told = measure_erasing(100_000, opened=100, erased=2, progress=print)["erase"]
    assert told["handed_over_mb"] < 30
    assert told["database_mb"] > 200
