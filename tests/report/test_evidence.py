"""The rule of every verdict: by hand, against a mixed model, and under the null, where it must not err."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from taylorir.report.evidence import (
    detectable_in_words,
    estimate,
    exclusions,
    exclusions_in_words,
    interval_in_words,
    judge,
    needed_in_words,
    result_in_words,
    seeds_needed,
)


def test_seeds_and_images_count_by_hand():
    # seeds' means 1, 2, 3 (standard error 1/sqrt(3)); images' means 2, 1.5, 2.5 (error 0.5/sqrt(3))
    differences = np.array([[1.0, 2, 3], [0.5, 1.5, 2.5], [1.5, 2.5, 3.5]])
    found = estimate(differences)
    error = math.sqrt(1 / 3 + 0.25 / 3)
    assert (found.difference, found.error, found.freedom) == (2.0, pytest.approx(error), 2)
    # Student's t with 2 degrees of freedom: 4.302653 at 97.5 %
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 * error, 2 + 4.302653 * error), abs=1e-6)
    # with 2 degrees of freedom P(T > t) = (1 - t / sqrt(2 + t^2)) / 2
    t = 2 / error
    assert found.p == pytest.approx(1 - t / math.sqrt(2 + t**2))


def test_the_detectable_difference_is_found_in_four_of_five_cases():
    random = np.random.default_rng(0)
    noise = random.normal(size=(4000, 1, 4)) + 1e-9 * random.normal(size=(4000, 5, 1))
    detectable = np.sqrt(np.mean(estimate(noise).detectable ** 2))
    power = np.mean(estimate(detectable + noise).p < 0.05)
    assert power == pytest.approx(0.8, abs=0.03)


def test_one_seed_or_one_image_has_no_interval():
    for shape in ((1, 4), (4, 1)):
        found = estimate(np.arange(4.0).reshape(shape))
        assert found.difference == 1.5 and all(map(math.isnan, (found.low, found.high, found.p)))
    with pytest.raises(ValueError, match=r"must be \[images, seeds\], got \[0, 3\]"):
        estimate(np.empty((0, 3)))
    assert estimate(np.full((5, 2), 0.5)).p == 0 and estimate(np.zeros((5, 2))).p == 1


def draw(seed: int, count: int, images: int, seeds: int, spread: tuple[float, float, float]) -> np.ndarray:
    """Differences [count, images, seeds] around zero, with a spread of the seed, of the image and of both."""
    random = np.random.default_rng(seed)
    shapes = (count, 1, seeds), (count, images, 1), (count, images, seeds)
    return sum(size * random.normal(size=shape) for size, shape in zip(spread, shapes, strict=True))


def test_the_error_is_that_of_a_mixed_model_and_the_residual_once_more():
    from statsmodels.regression.mixed_linear_model import MixedLM

    images, seeds = 12, 6
    (differences,) = 0.3 + draw(3, 1, images, seeds, (1.0, 1.0, 0.5))
    long = pd.DataFrame(differences).stack().rename("y").rename_axis(["image", "seed"]).reset_index()
    crossed = {"seed": "0 + C(seed)", "image": "0 + C(image)"}
    model = MixedLM.from_formula("y ~ 1", long, groups=np.ones(len(long)), vc_formula=crossed, re_formula="0")
    fitted = model.fit(reml=True)
    found = estimate(differences)
    assert fitted.params["Intercept"] == pytest.approx(found.difference)
    residual = fitted.scale / (images * seeds)
    assert found.error**2 - residual == pytest.approx(fitted.bse["Intercept"] ** 2, rel=1e-3)


@pytest.mark.parametrize("seeds", range(2, 9))
@pytest.mark.parametrize(
    "spread", [(1, 0.1, 0.5), (0.1, 1, 0.5), (1, 1, 1), (0, 0, 1)], ids=["seeds", "images", "all", "residual"]
)
def test_under_the_null_at_most_one_in_twenty_errs(seeds, spread):
    count = 4000
    errs = (estimate(draw(seeds, count, 20, seeds, spread)).p < 0.05).sum()
    assert errs <= stats.binom.ppf(0.9999, count, 0.05)
    if spread[0] > spread[1] and seeds > 2:  # seeds alone: the level is nearly exact, the rule not idle
        assert errs >= stats.binom.ppf(0.0001, count, 0.03)


@pytest.mark.parametrize("seeds", [2, 3, 8])
def test_under_the_null_at_most_one_table_in_twenty_holds_an_error(seeds, monkeypatch):
    monkeypatch.setattr("gc.collect", lambda: 0)  # statsmodels calls it each time, and it takes 0.1 s
    count, rows = 400, 6
    found = estimate(draw(seeds, count * rows, 5, seeds, (1, 0.1, 0.1)))
    table = pd.DataFrame({"difference": found.difference, "p": found.p, "images": 5, "seeds": seeds})
    tables = (judge(table[start : start + rows]) for start in range(0, len(table), rows))
    errs = sum(some.verdict.isin(["better", "worse"]).any() for some in tables)
    assert errs <= stats.binom.ppf(0.9999, count, 0.05)


def test_verdicts_by_hand():
    table = pd.DataFrame(
        [
            {"difference": 1.0, "p": 0.01},  # times 4, the number of rows that have a p: 0.04
            {"difference": -1.0, "p": 0.014},  # times 3: 0.042
            {"difference": 1.0, "p": 0.04},  # times 2: not sure
            {"difference": 1.0, "p": np.nan, "seeds": 1},
            {"difference": 1.0, "p": 0.9, "barred": "below the floor: not judged"},
        ]
    ).fillna({"seeds": 3, "barred": ""})
    table = judge(table.assign(images=5, planned=3).astype({"seeds": int}))
    assert table.p_holm.round(6).tolist()[:3] == [0.04, 0.042, 0.08] and np.isnan(table.p_holm[3])
    assert table.verdict.tolist() == [
        "better",
        "worse",
        "cannot say",
        "one seed: no verdict",
        "below the floor: not judged",
    ]
    sure = pd.DataFrame({"difference": [1.0], "p": [1e-9], "images": [5], "seeds": [2]})
    assert judge(sure.assign(planned=3)).verdict[0] == "2 of 3 seeds: no verdict"
    assert judge(sure.assign(images=3)).verdict[0] == "3 images: no verdict"
    assert judge(sure, more="more").verdict[0] == "more"


def test_the_seeds_that_a_difference_needs():
    # seeds' means 0 and 2 spread by sqrt(2); half of that needs the textbook's 34 pairs
    assert seeds_needed(np.array([[0.0, 2.0], [0.0, 2.0]]), math.sqrt(2) / 2) == 34


def test_what_is_excluded_by_hand():
    row = pd.Series({"difference": 0.0, "error": 1.0, "freedom": 2})
    found = exclusions(row, (1.0, 10.0))
    p = [1 - value / math.sqrt(2 + value**2) for value in (1.0, 10.0)]
    assert found.p.tolist() == pytest.approx([p[0], 2 * p[1]])
    assert found.excluded.tolist() == [False, True]
    assert exclusions(row.replace({1.0: np.nan}), (9.0,)).excluded.tolist() == [False]


def test_words_say_when_there_is_no_interval_and_when_seeds_are_missing():
    row = pd.Series({"difference": 0.1, "low": 0.05, "high": 0.15, "error": 0.0157, "freedom": 3, "seeds": 4})
    row = pd.concat([row, pd.Series({"planned": 4})])
    assert interval_in_words(row) == "+0.050 to +0.150 dB"
    words = exclusions_in_words(row, (0.31, 0.12))
    assert [word[:12] for word in words] == ["excluded (p ", "not excluded"]
    assert all(word.endswith(")") for word in words)
    row["planned"] = 6
    assert [word.endswith(", as far as 4 seeds go") for word in exclusions_in_words(row, (0.31,))] == [True]
    row["low"] = np.nan
    assert interval_in_words(row) == "no interval, there being one seed"
    assert exclusions_in_words(row, (0.31,)) == ["not excluded, there being one seed"]


def test_a_result_in_words_has_its_interval_and_verdict_or_was_not_measured():
    rows = pd.DataFrame(
        [("a", 0.1, 0.05, 0.15, "better"), ("b", -0.2, float("nan"), float("nan"), "one seed: no verdict")],
        columns=["label", "difference", "low", "high", "verdict"],
    )
    assert result_in_words(rows, "a") == "+0.100 dB (+0.050 to +0.150 dB): better"
    said = "-0.200 dB (no interval, there being one seed): one seed: no verdict"
    assert result_in_words(rows, "b") == said
    assert result_in_words(rows, "c") == "not measured"


def test_words_for_what_could_be_found_and_what_it_would_take():
    row = pd.Series({"detectable": 0.104})
    assert detectable_in_words(row) == "0.10 dB"
    assert detectable_in_words(row * np.nan) == "a size that one seed cannot tell"
    pairs = np.array([[0.1, 0.3], [0.2, 0.4]])  # means 0.15 and 0.35, of standard deviation 0.1 sqrt(2)
    needed = seeds_needed(pairs, 0.1)
    expected = f"about {needed} pairs of such trainings, {1.5 * needed:.0f} hours of one core"
    assert needed_in_words(pairs, 0.1, 1.5) == expected
    assert needed_in_words(pairs[:, :1], 0.1, 1.5) == "one seed cannot tell"
