import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression

from rvqprobe import probes, solvers


def rows(table: np.ndarray, codebook: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every token of a count table, one by one: (N, D) embeddings and (N,) classes."""
    code, label = (index.ravel() for index in np.indices(table.shape))
    return np.repeat(codebook[code], table.ravel(), axis=0), np.repeat(label, table.ravel())


def sklearn_objective(model: LogisticRegression, X: np.ndarray, y: np.ndarray, C: float, balanced: bool) -> float:
    """The objective of scikit-learn's documentation, over the tokens."""
    classes, number = np.unique(y, return_inverse=True)
    weight = len(y) / (len(classes) * np.bincount(number))[number] if balanced else np.ones(len(y))
    return -np.sum(weight * model.predict_log_proba(X)[np.arange(len(y)), number]) + np.sum(model.coef_**2) / (2 * C)


def problem(seed: int, codes: int, dimension: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codebook = (
        rng.normal(size=(codes, dimension)) * rng.uniform(0.1, 3, dimension) + rng.normal(size=dimension)
    ).astype(np.float32)
    return rng.poisson(np.exp(rng.normal(size=(codes, classes)))), codebook


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(3, 30), st.integers(1, 40), st.integers(2, 6),
    st.sampled_from([0.01, 1.0, 10.0]), st.booleans(),
)  # fmt: skip
def test_logistic_is_scikit_learns(
    seed: int, codes: int, dimension: int, classes: int, C: float, balanced: bool
) -> None:
    table, codebook = problem(seed, codes, dimension, classes)
    X, y = rows(table, codebook.astype(np.float64))
    if len(np.unique(y)) < 2:
        return
    ours = solvers.fit_logistic(table, codebook, C, 10_000, balanced, tolerance=1e-10)
    weights = "balanced" if balanced else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # line searches at machine precision
        theirs = LogisticRegression(C=C, class_weight=weights, solver="newton-cg", tol=1e-10, max_iter=10_000).fit(X, y)
    expected = sklearn_objective(theirs, X, y, C, balanced)
    assert abs(ours.objective - expected) <= 1e-8 * expected
    used = table.sum(axis=1) > 0
    assert ours.coef.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=2e-3 * max(1, np.abs(theirs.coef_).max()))
    margin = np.diff(np.sort(theirs.predict_proba(codebook[used].astype(np.float64)), axis=1)[:, -2:])[:, 0]
    clear = margin > 1e-3
    assert np.array_equal(ours.predict(codebook[used])[clear], theirs.predict(codebook[used].astype(np.float64))[clear])


def test_certificate_is_the_gradient_over_the_tokens() -> None:
    table, codebook = problem(1, 20, 5, 4)
    loose = solvers.fit_logistic(table, codebook, max_iter=3)
    assert not loose.converged and loose.iterations == 3
    X, y = rows(table, codebook.astype(np.float64))
    weight = len(y) / (4 * np.bincount(y))[y]
    logits = X @ loose.coef.T + loose.intercept
    probability = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    residual = weight[:, None] * (probability - np.eye(4)[y])
    gradient = np.hstack([residual.T @ X + loose.coef, residual.sum(axis=0)[:, None]]) / weight.sum()
    assert loose.gradient == pytest.approx(np.abs(gradient).max(), rel=1e-6)
    tight = solvers.fit_logistic(table, codebook)
    assert tight.converged and tight.gradient < 1e-4 and tight.objective < loose.objective


def test_one_class_is_a_constant_and_none_an_error() -> None:
    table, codebook = np.zeros((5, 3), int), np.eye(5, dtype=np.float32)
    with pytest.raises(ValueError, match="no training token"):
        solvers.fit_logistic(table, codebook)
    table[:, 1] = 7
    only = solvers.fit_logistic(table, codebook)
    assert only.coef.shape == (0, 5) and (only.predict(codebook) == 1).all() and only.converged


def test_classes_without_training_tokens_are_never_predicted() -> None:
    table, codebook = problem(2, 20, 5, 5)
    table[:, 3] = 0
    fitted = solvers.fit_logistic(table, codebook)
    assert list(fitted.present) == [0, 1, 2, 4] and 3 not in fitted.predict(codebook)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 40), st.integers(1, 60))
def test_linear_regression_is_least_squares_over_rows(seed: int, codes: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    codebook = rng.normal(size=(codes, dimension)).astype(np.float32)
    code = rng.integers(0, codes, 300)
    hz = rng.uniform(60, 400, 300)
    n, total = np.bincount(code, minlength=codes), np.bincount(code, hz, codes)
    fitted = solvers.fit_linear(n, total, codebook, cutoff=1e-9)
    X = codebook.astype(np.float64)[code]
    oracle = LinearRegression().fit(X, hz)
    np.testing.assert_allclose(fitted.predict(codebook)[code], oracle.predict(X), rtol=1e-6)
    assert np.linalg.norm(fitted.coef) <= np.linalg.norm(oracle.coef_) * (1 + 1e-6)  # no shorter solution
    minimum_norm, *_ = np.linalg.lstsq(X - X.mean(axis=0), hz - hz.mean(), rcond=1e-9)
    np.testing.assert_allclose(fitted.coef, minimum_norm, rtol=1e-5, atol=1e-6 * np.abs(minimum_norm).max())


def test_a_code_that_training_never_saw_is_not_thrown_far() -> None:
    """As many dimensions as codes, two of them nearly alike and far apart in F0: exact interpolation would explode."""
    rng = np.random.default_rng(0)
    codebook = rng.normal(size=(50, 64)).astype(np.float32)
    codebook[1] = codebook[0] + 1e-5 * rng.normal(size=64)
    n = np.full(50, 20)
    n[49] = 0
    hz = rng.uniform(150, 250, 50)
    exact, default = (solvers.fit_linear(n, n * hz, codebook, cutoff) for cutoff in (1e-9, solvers.CUTOFF))
    np.testing.assert_allclose(exact.predict(codebook)[:49], hz[:49], rtol=1e-3)
    assert exact.rank == 48 and default.rank == 47
    np.testing.assert_allclose(default.predict(codebook)[2:49], hz[2:49], rtol=1e-3)
    assert abs(exact.predict(codebook)[49] - 200) > 1000 > 200 > abs(default.predict(codebook)[49] - 200)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.booleans())
def test_lookup_is_the_naive_one(seed: int, balanced: bool) -> None:
    table, _ = problem(seed, 12, 2, 4)
    table[3] = 0
    prior = table.sum(axis=0) / table.sum()
    weight = solvers.class_weights(table.sum(axis=0), balanced)
    for code, said in enumerate(solvers.fit_lookup(table, balanced)):
        scores = [(table[code, label] + prior[label]) * weight[label] for label in range(4)]
        assert said == prior.argmax() if code == 3 else scores[said] == pytest.approx(max(scores), rel=1e-12)


def test_lookup_mean_shrinks_to_the_mean() -> None:
    said = solvers.fit_mean(np.array([0, 1, 3]), np.array([0.0, 100.0, 900.0]))
    np.testing.assert_allclose(said, [250, (100 + 250) / 2, (900 + 250) / 4])


def test_workers_change_no_digit_and_probes_load_without_pickle(tmp_path) -> None:
    from rvqprobe.counts import Counts, LabelCounts, PitchCounts
    from rvqprobe.store import Layout, read_arrays

    table, codebook = problem(3, 20, 5, 3)
    labels = LabelCounts(["a", "b", "c"], table[None], table[None])
    pitch = PitchCounts(table.sum(axis=1)[None], table.sum(axis=1)[None] * 100.0, np.zeros((1, 1), int), np.ones(1))
    counts = Counts(labels, labels, pitch)
    one, two = (probes.fit_all(counts, codebook[None], 1.0, 100, workers, 1) for workers in (1, 2))
    assert [p.task for p in one] == list(probes.TASKS)
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.linear.coef, b.linear.coef) and np.array_equal(a.predicted, b.predicted)
    layout = Layout(tmp_path, "s")
    for probe in one:
        probes.save(probe, "toy", layout, labels.classes if probe.task != "pitch" else [], 1.0)
    saved = read_arrays(tmp_path / "s" / "probes" / "toy" / "probe_toy_layer1_phoneme.npz")
    assert list(saved["classes"]) == ["a", "b", "c"] and np.array_equal(saved["coef"], one[0].linear.coef)
    assert read_arrays(layout.probe("toy", 1, "pitch"))["coef"].shape == (5,)
