from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from appliance.errors import ConfigurationError
from appliance.evaluation import trial_looks
from appliance.evaluation.comparisons import NobodyToCompare, compare, owners
from appliance.evaluation.dataset import Dataset, Photograph
from appliance.evaluation.embeddings import Source
from appliance.evaluation.trial_looks import PLAIN, WAYS, Look, Looks, load_tools, look_in_ways
from appliance.evaluation.trial_scores import SEEDS, Scorer, on_tune, through_token, whitening
from appliance.evaluation.trial_variants import (
    TRIALS,
    Trial,
    Variant,
    most_varied_five,
    sharpest_five,
)
from appliance.evaluation.trials import Tried, main, only, run, table
from tests.evaluation.people import Vectors, made_up, seen, units

BETTER, WORSE = "mirrored", "light"
TRIED = Trial(
    "made up",
    5,
    1,
    (1e-2,),
    Variant(PLAIN),
    (
        Variant("the same"),
        Variant("better", template=(BETTER,), probe=(BETTER,), family="noise"),
        Variant("worse", template=(WORSE,), probe=(WORSE,), family="noise"),
        Variant("whitened", whitened=True),
    ),
)


def quiet(_what: str) -> None:
    """Nobody watches."""


def many(*noises: float) -> tuple[Dataset, list[Vectors]]:
    """The same people by embeddings of several noises."""
    found = [made_up([12] * 60, noise=noise) for noise in noises]
    return found[0][0], [each.vectors for _, each in found]


def scorer_of(data: Dataset, looks: Looks) -> Scorer:
    return Scorer(looks, owners(data)[looks.index], on_tune(data.people))


@pytest.fixture(scope="module")
def tried() -> Tried:
    data, vectors = many(1.8, 1.0, 3.0)
    count = len(vectors[0])
    looks = Looks(
        (PLAIN, BETTER, WORSE),
        np.arange(count),
        np.stack(vectors),
        np.ones(count, np.float32),
        np.zeros(3, np.int64),
    )
    return run(TRIED, scorer_of(data, looks), 50, quiet)


def test_a_variant_differs_from_itself_by_exactly_nothing(tried: Tried) -> None:
    assert {each.part for each in tried.columns} == {"all", "TUNE", "STATE"}
    for found in tried.rows["the same"]:
        assert found is not None
        assert found.before == found.after > 0
        assert found.low == found.high == 0


def test_what_is_truly_better_is_found_better_and_what_is_worse_worse(tried: Tried) -> None:
    for better, worse in zip(tried.rows["better"], tried.rows["worse"], strict=True):
        assert better is not None
        assert worse is not None
        assert better.after < better.before < worse.after
        assert better.low <= better.high < 0 < worse.low <= worse.high
    assert "TUNE chooses better; STATE" in table(tried)


def test_what_was_learnt_on_tune_is_stated_on_the_others_only(tried: Tried) -> None:
    stated = {each.part for each, found in zip(tried.columns, tried.rows["whitened"], strict=True) if found}
    assert stated == {"STATE"}
    assert "learnt here" in table(tried)


def test_halves_are_disjoint_and_stable() -> None:
    people = [f"person {number:03}" for number in range(200)]
    tune = on_tune(people)
    assert 70 < tune.sum() < 130
    np.testing.assert_array_equal(on_tune(people[::-1])[::-1], tune)
    # Written down: another salt would turn what was chosen into what is stated.
    assert np.flatnonzero(tune[:8]).tolist() == [1, 5, 7]


def test_scores_are_those_of_an_evaluation() -> None:
    data, (vectors,) = many(1.8)
    looks = Looks(
        (PLAIN,),
        np.arange(len(vectors)),
        vectors[None],
        np.ones(len(vectors), np.float32),
        np.zeros(1, np.int64),
    )
    scorer = scorer_of(data, looks)
    found = scorer.scores(Variant(PLAIN, mean=False), scorer.draws(TRIED))[0]
    zero = np.zeros(vectors.shape[1], np.float32)
    expected = compare(data, seen(vectors), zero, template_size=5, frames=1, seed=SEEDS[0]).scores
    np.testing.assert_allclose(found.genuine, expected.genuine, atol=1e-5)
    np.testing.assert_allclose(found.tail[:1000], expected.tail[:1000], atol=1e-5)
    assert found.impostors == expected.impostors


def test_picks_are_five_different_photographs() -> None:
    vectors = units(9, 16, 1)
    vectors[1] = vectors[0]
    quality = np.linspace(0, 1, 9, dtype=np.float32)
    assert sorted(sharpest_five(vectors, quality).tolist()) == [4, 5, 6, 7, 8]
    varied = most_varied_five(vectors, quality).tolist()
    assert len(set(varied)) == 5
    assert not {0, 1} <= set(varied)


def test_whitening_makes_what_differs_within_people_alike_in_all_directions() -> None:
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(50), 10)
    vectors = rng.standard_normal((500, 4)) * [1, 1, 1, 9] + 5 * rng.standard_normal((50, 4))[owner]
    turned = vectors @ whitening(vectors.astype(np.float32), owner, np.ones(50, np.bool_), 1e-6)
    spread = np.concatenate(
        [turned[owner == each] - turned[owner == each].mean(axis=0) for each in range(50)]
    )
    assert spread.std(axis=0).max() / spread.std(axis=0).min() < 1.05


@pytest.mark.parametrize(("bits", "lost"), [(8, 1e-4), (4, 0.0115)])
def test_through_a_token_a_template_loses_what_its_quantiser_takes(bits: int, lost: float) -> None:
    templates = units(3, 512, 1)
    cosines = [float(each @ through_token(each, bits, n)) for n, each in enumerate(templates)]
    # The error takes as much from the square of the cosine.
    assert cosines == pytest.approx([np.sqrt(1 - lost)] * 3, abs=4e-3 if bits == 4 else 1e-4)
    assert not np.array_equal(through_token(templates[0], bits, 0), through_token(templates[0], bits, 1))


def test_a_name_that_is_no_variant_is_refused() -> None:
    assert [[each.name for each in trial.variants] for trial in only(["grey"])] == [["grey"]]
    with pytest.raises(ConfigurationError, match="no variant nonsense"):
        only(["grey", "nonsense"])


def test_people_with_too_few_photographs_are_said() -> None:
    data, found = made_up([3] * 10, noise=0.5)
    looks = Looks((PLAIN,), found.index, found.vectors[None], np.ones(30, np.float32), np.zeros(1, np.int64))
    with pytest.raises(NobodyToCompare):
        run(TRIED, scorer_of(data, looks), 10, quiet)


@pytest.mark.models
def test_each_variant_runs_on_two_portraits(test_models: Path, portrait_paths: dict[str, Path]) -> None:
    tools = load_tools(Source(test_models, "edge"))
    paths = list(portrait_paths.values())
    found = [look_in_ways(path, tools, tuple(WAYS)) for path in (paths[0], paths[-1])]
    looked = [each for each in found if isinstance(each, Look)]
    assert len(looked) == 2
    for each in looked:
        assert 0 < each.quality <= 1
        assert not each.missed
        # Whatever the way, it is the same face.
        assert (each.vectors @ each.vectors[0]).min() > 0.6
    # Each of them is somebody with thirteen photographs.
    vectors = np.stack([each.vectors for each in looked], axis=1).repeat(13, axis=1)
    photographs = [Photograph(Path("/nowhere"), "x", number // 13) for number in range(26)]
    data = Dataset("two", ["c", "a"], photographs)  # One on TUNE, one on STATE.
    looks = Looks(tuple(WAYS), np.arange(26), vectors, np.ones(26, np.float32), np.zeros(len(WAYS), np.int64))
    scorer = scorer_of(data, looks)
    for trial in TRIALS:
        done = run(replace(trial, rates=(0.5,)), scorer, 5, quiet)
        assert list(done.rows) == [each.name for each in trial.variants]
        assert table(done).count("\n| ") == len(trial.variants) + 1


@pytest.mark.models
def test_the_command_prints_tables_and_keeps_what_it_saw_where_told(
    test_models: Path,
    portrait_paths: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for person, path in zip("abcd", [*portrait_paths.values()] * 2, strict=False):
        (tmp_path / "people" / person).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "people" / person / f"{number}.jpg").write_bytes(path.read_bytes())
    pairs = tmp_path / "people" / "pairs.csv"
    pairs.write_text("one,other,same\na/0.jpg,a/1.jpg,yes\na/0.jpg,b/0.jpg,no\n", "utf-8")
    arguments = [str(tmp_path / "people"), "--packs", str(test_models), "--only", "grey"]
    arguments += ["--pairs", str(pairs), "--keep", str(tmp_path / "kept")]
    main(arguments)
    first = capsys.readouterr().out
    assert "### Templates of five, one frame" in first
    assert "### 2 of 2 labelled pairs" in first
    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "kept").iterdir()] == [0o600, 0o600]

    def no_pool(*_: object) -> None:
        raise AssertionError("nothing was left to do")

    monkeypatch.setattr(trial_looks, "ProcessPoolExecutor", no_pool)
    main(arguments)
    assert capsys.readouterr().out == first
