"""The risk of guessing, and the honest year, through vault's own limits; on what was counted for `edge`."""

import json
import random
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from appliance.evaluation import guessing
from appliance.evaluation.guessing import (
    SUMMARY,
    Measured,
    Summary,
    attack_table,
    entries_that_count,
    genuine_table,
    lock_out_probability,
    main,
    read_summary,
)
from appliance.evaluation.guessing_simulation import attack, genuine_years
from appliance.evaluation.intervals import clopper_pearson
from appliance.packs.manifest import load_manifest
from appliance.settings import Recognition
from appliance.vault.limits import LONGEST_WAIT, budget_of

RISK, FMR = Recognition().guessing_risk, Recognition().fmr
BUDGET = budget_of(RISK, load_manifest("edge").attempt_fmr(FMR, 3))


@pytest.fixture(scope="module")
def edge() -> Summary:
    return read_summary()


def test_what_was_counted_is_the_evidence_of_the_shipped_manifest(edge: Summary) -> None:
    manifest = load_manifest("edge")
    assert manifest.calibration is not None
    (row,) = [each for each in manifest.calibration.thresholds if (each.fmr, each.frames) == (FMR, 3)]
    single = edge.measured[0]
    assert edge.threshold == row.threshold == manifest.threshold(FMR, 3)
    assert single.frames == 1
    assert sum(single.passed) == row.impostors_above
    assert sum(single.attempts) == manifest.calibration.impostor
    assert len(single.attempts) == manifest.calibration.template_people


def test_the_risk_of_a_claim_in_a_year_stays_under_the_configured_one(edge: Summary) -> None:
    single, attempts = edge.measured
    assert single.risk(3, BUDGET) < RISK
    # Counted on whole attempts, of a sixth of the people: what the budget rests on.
    assert attempts.rate == pytest.approx(load_manifest("edge").attempt_fmr(FMR, 3), rel=0.01)
    assert attempts.risk(3, BUDGET) < RISK


def test_a_year_of_attack_with_restarts_gets_no_more_than_the_budget(edge: Summary) -> None:
    claims = 400
    single = edge.measured[0]
    share = np.array(single.attempts) / sum(single.attempts)
    rates = np.random.default_rng(7).choice(single.attempt_rates(3), claims, p=share)
    done = attack(rates.tolist(), BUDGET, 7)
    assert done.most == BUDGET
    assert done.restarts > 20
    assert done.refused > claims * 20, "they went on trying, all the year"
    low, _ = clopper_pearson(done.guessed, claims)
    assert low < single.risk(3, BUDGET) < RISK


def test_an_attack_on_claims_that_are_easily_guessed_is_seen_to_succeed() -> None:
    done = attack([0.05] * 60, BUDGET, 7)
    assert done.guessed >= 57


def test_an_honest_year_at_two_per_cent_locks_nobody_out() -> None:
    assert lock_out_probability(0.02, entries_that_count(), BUDGET) < 1e-6
    done = genuine_years(12, 0.02, BUDGET, 7)
    assert done.locked_out == 0
    assert done.most < BUDGET
    assert 25 < done.failures / done.people < 50
    assert done.longest <= LONGEST_WAIT


def test_the_closed_form_of_a_lock_out_is_that_of_chance() -> None:
    rng = random.Random(7)

    def locked_out(fnmr: float, entries: int, budget: int) -> bool:
        failures = recognised = 0
        while failures < budget and recognised < entries:
            failures, recognised = (
                (failures + 1, recognised) if rng.random() < fnmr else (failures, recognised + 1)
            )
        return failures == budget

    for fnmr, entries, budget in ((0.3, 20, 10), (0.1, 50, 5), (0.5, 4, 4)):
        times = sum(locked_out(fnmr, entries, budget) for _ in range(20_000))
        low, high = clopper_pearson(times, 20_000, 1e-4)
        assert low < lock_out_probability(fnmr, entries, budget) < high


def test_three_frames_are_at_most_three_times_one() -> None:
    single = Measured(1, (1000, 1000), (10, 0), 0.005, 0.0, 0.02)
    assert single.attempt_rates(1).tolist() == pytest.approx([0.01, 0])
    assert single.attempt_rates(3).tolist() == pytest.approx([1 - 0.99**3, 0])
    assert single.risk(1, 100) == pytest.approx((1 - 0.99**100) / 2), "one claim of two can be guessed"
    assert single.risk(1, 100) < 100 * 0.005


def test_what_is_written_down_names_nobody(tmp_path: Path, edge: Summary) -> None:
    assert set(json.loads(SUMMARY.read_text(encoding="utf-8"))) == {
        "pack",
        "data",
        "fmr",
        "frames",
        "threshold",
        "measured",
    }
    path = tmp_path / "again.json"
    path.write_text(json.dumps(asdict(edge)), encoding="utf-8")
    assert read_summary(path) == edge


def test_the_tables_hold_what_is_to_be_shown(edge: Summary) -> None:
    table = attack_table(edge, RISK, 30, 7)
    assert f"{BUDGET} failures" in table
    assert "0.93% (0.08% to 2.87%)" in table
    assert "single frames, 3 times" in table
    assert f"|{BUDGET}|" in table
    genuine = genuine_table(BUDGET, 2, 7)
    assert "1,800" not in genuine
    assert "|2%|4.7e-07|0 of 2|" in genuine


def test_the_command_prints_both(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "FNMRS", (0.02,))
    main(["--claims", "10", "--people", "1"])
    printed = capsys.readouterr().out
    assert "risk 1.00% a year allowed" in printed
    assert "longest wait met" in printed


def test_a_risk_that_allows_no_attempt_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="choose a lower fmr"):
        main(["--risk", "1e-5"])
    assert capsys.readouterr().out == ""
