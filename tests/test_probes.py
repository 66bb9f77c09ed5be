import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression, LogisticRegression

from rvqprobe import counts, probes, solvers
from rvqprobe.store import Layout


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
    loose = solvers.fit_logistic(table, codebook, max_iter=2)
    assert not loose.converged and loose.iterations == 2
    X, y = rows(table, codebook.astype(np.float64))
    weight = len(y) / (4 * np.bincount(y))[y]
    logits = X @ loose.coef.T + loose.intercept
    probability = np.exp(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    residual = weight[:, None] * (probability - np.eye(4)[y])
    gradient = np.hstack([residual.T @ X + loose.coef, residual.sum(axis=0)[:, None]]) / weight.sum()
    assert loose.gradient == pytest.approx(np.abs(gradient).max(), rel=1e-6)
    tight = solvers.fit_logistic(table, codebook)
    assert tight.converged and tight.gradient <= 1e-4 and tight.objective < loose.objective


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
    [fitted] = solvers.fit_linear(n, total[:, None], codebook, cutoff=1e-9)
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
    exact, default = (
        solvers.fit_linear(n, (n * hz)[:, None], codebook, cutoff)[0] for cutoff in (1e-9, solvers.CUTOFF)
    )
    np.testing.assert_allclose(exact.predict(codebook)[:49], hz[:49], rtol=1e-3)
    assert exact.rank == 48 and default.rank == 47
    np.testing.assert_allclose(default.predict(codebook)[2:49], hz[2:49], rtol=1e-3)
    assert abs(exact.predict(codebook)[49] - 200) > 1000 > 200 > abs(default.predict(codebook)[49] - 200)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_lookup_is_the_naive_one(seed: int, balanced: bool) -> None:
    folds = np.random.default_rng(seed).poisson(1.5, size=(12, 3, 4))
    folds[3], folds[0, 0, 0] = 0, 5

    def posterior(table: np.ndarray, code: int, smoothing: float) -> np.ndarray:
        of_class = table.sum(axis=0)
        weight = np.array([table.sum() / (4 * n) if balanced else 1.0 for n in of_class])
        scores = [(table[code, y] + smoothing * of_class[y] / table.sum()) * weight[y] for y in range(4)]
        return np.array(scores) / sum(scores)

    whole = folds.sum(axis=1)
    if not all((whole - folds[:, f]).sum(axis=0).all() for f in range(3)):
        return
    losses = dict.fromkeys(solvers.SMOOTHINGS, 0.0)
    for smoothing in losses:
        for fold in range(3):
            rest = whole - folds[:, fold]
            weight = rest.sum() / (4 * rest.sum(axis=0)) if balanced else np.ones(4)
            for code in range(12):
                losses[smoothing] -= folds[code, fold] @ (weight * np.log(posterior(rest, code, smoothing)))
    said, chosen = solvers.fit_lookup(folds, balanced)
    assert losses[chosen] == pytest.approx(min(losses.values()), rel=1e-9)
    for code in range(12):
        scores = posterior(whole, code, chosen)
        assert (
            said[code] == whole.sum(axis=0).argmax() if code == 3 else scores[said[code]] == pytest.approx(max(scores))
        )


@given(st.integers(0, 10**6))
def test_lookup_mean_is_the_naive_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = rng.poisson(2, size=(8, 3)) + (np.arange(8) == 0)[:, None]
    total = n * rng.uniform(100, 200, (8, 3))
    said, chosen = solvers.fit_mean(n, total)

    def shrunk(n: np.ndarray, total: np.ndarray, smoothing: float) -> np.ndarray:
        return np.array(
            [(t + smoothing * total.sum() / n.sum()) / (m + smoothing) for m, t in zip(n, total, strict=True)]
        )

    def error(smoothing: float) -> float:  # up to what no smoothing changes
        guesses = [shrunk(n.sum(1) - n[:, f], total.sum(1) - total[:, f], smoothing) for f in range(3)]
        return sum(float(n[:, f] @ guess**2 - 2 * guess @ total[:, f]) for f, guess in enumerate(guesses))

    assert error(chosen) == pytest.approx(min(map(error, solvers.SMOOTHINGS)), rel=1e-9)
    np.testing.assert_allclose(said, shrunk(n.sum(axis=1), total.sum(axis=1), chosen))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_weighted_rows_are_the_same_problem(seed: int, balanced: bool) -> None:
    """A row a (code, class) cell with its count as ``sample_weight``; more dimensions than codes too."""
    dimension = 3 if seed % 2 else 25
    table, codebook = problem(seed, 12, dimension, 4)
    table[:, 0] += 1
    present = np.flatnonzero(table.sum(axis=0))
    if len(present) < 3:
        return
    weight = (
        table
        * solvers.class_weights(np.maximum(table.sum(axis=0), 1), balanced)
        * (4 / len(present) if balanced else 1)
    )
    code, label = np.nonzero(table)
    X = codebook.astype(np.float64)[code]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = LogisticRegression(solver="newton-cg", tol=1e-10, max_iter=10_000).fit(
            X, label, sample_weight=weight[code, label]
        )
    ours = solvers.fit_logistic(table, codebook, max_iter=10_000, balanced=balanced, tolerance=1e-10)
    np.testing.assert_allclose(ours.coef, theirs.coef_, atol=2e-3 * max(1, np.abs(theirs.coef_).max()))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_permuting_codes_or_classes_permutes_the_probe_and_nothing_else(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    table, codebook = problem(seed, 15, 6, classes)
    table += 1
    codes, labels = rng.permutation(15), rng.permutation(classes)
    one = solvers.fit_logistic(table, codebook, tolerance=1e-9)
    other = solvers.fit_logistic(table[codes][:, labels], codebook[codes], tolerance=1e-9)
    np.testing.assert_allclose(np.exp(other.log_proba(codebook)), np.exp(one.log_proba(codebook)[:, labels]), atol=1e-6)
    assert other.objective == pytest.approx(one.objective, rel=1e-9)
    folds = rng.multinomial(1, [0.5, 0.5], size=(15, classes)).transpose(0, 2, 1) * table[:, None]
    said, smoothing = solvers.fit_lookup(folds)
    permuted, again = solvers.fit_lookup(folds[codes])
    assert again == smoothing and np.array_equal(permuted, said[codes])
    n, total = table.sum(axis=1), table @ rng.uniform(100, 200, (classes, 1))
    np.testing.assert_allclose(
        solvers.fit_linear(n[codes], total[codes], codebook[codes])[0].predict(codebook),
        solvers.fit_linear(n, total, codebook)[0].predict(codebook),
    )


def test_ten_times_the_iterations_move_nothing() -> None:
    table, codebook = problem(5, 200, 40, 10)
    held_out = np.random.default_rng(6).poisson(table)
    first = solvers.fit_logistic(table, codebook)
    more = solvers.fit_logistic(table, codebook, max_iter=10 * first.iterations, tolerance=0.0)
    assert more.iterations > first.iterations and more.objective <= first.objective * (1 + 1e-12)
    said = [fitted.predict(codebook) for fitted in (first, more)]
    right = [held_out[np.arange(200), s].sum() / held_out.sum() for s in said]
    assert abs(right[0] - right[1]) <= 0.001


def test_C_is_chosen_on_the_validation_part() -> None:
    """Many dimensions, few tokens: a strong penalty wins; many tokens of the same codes: a weak one."""
    rng = np.random.default_rng(0)
    codebook = rng.normal(size=(60, 50)).astype(np.float32)
    chance = np.exp(codebook[:, :3] * 2)
    chance /= chance.sum(axis=1, keepdims=True)
    few, many = (np.stack([rng.multinomial(n, p) for p in chance]) for n in (1, 10_000))
    chosen = [solvers.choose_C(train, many, codebook, probes.C_PATH, 500) for train in (few, many)]
    assert chosen[0] < chosen[1]

    def loss(C: float) -> float:
        fitted = solvers.fit_logistic(few, codebook, C, 500)
        return -np.sum(many / many.sum(axis=0) * fitted.log_proba(codebook))

    assert loss(chosen[0]) == min(map(loss, probes.C_PATH))


def counted(table: np.ndarray, codebook: np.ndarray) -> counts.Counts:
    """Counts of two layers, both with the same tokens in all folds; held out are others."""
    folds = np.zeros((2, len(table), counts.FOLDS + 1, table.shape[1]), np.int64)
    folds[:] = np.random.default_rng(0).multinomial(4, [1 / 11] * 11, size=table.shape).transpose(0, 2, 1)
    folds += (table[:, None, :] > 0)[None] * (np.arange(11) < counts.FOLDS)[None, None, :, None]
    classes = [f"class {y}" for y in range(table.shape[1])]
    labels = counts.LabelCounts(classes, folds)
    bins = np.zeros((2, len(table), counts.FOLDS + 1, len(counts.PITCH_CLASSES)), np.int64)
    bins[..., 30 : 30 + table.shape[1]] = folds
    n = folds.sum(axis=-1)
    hz = folds @ np.linspace(150.0, 180, table.shape[1])
    pitch = counts.PitchSums(n, hz, folds @ np.linspace(29.0, 33, table.shape[1]), np.zeros(counts.FOLDS + 1))
    lag = counts.LagCounts(table, n[0].sum(axis=1), hz[0].sum(axis=1))
    return counts.Counts(
        {"phoneme": labels, "speaker": labels, "pitch": counts.LabelCounts(counts.PITCH_CLASSES, bins)}, pitch, {1: lag}
    )


def chosen(workers: int = 1, C: float | str = 1.0) -> probes.Settings:
    return probes.Settings(C, 1000, workers, 1, 0)


def test_workers_change_no_digit_and_probes_load_as_scikit_learns(tmp_path: Path) -> None:
    table, codebook = problem(3, 20, 5, 3)
    counts_, codebooks = counted(table, codebook), np.stack([codebook, codebook[::-1]])
    one, two = (probes.fit_all(counts_, codebooks, chosen(workers, "auto")) for workers in (1, 2))
    assert {p.task for p in one} == set(probes.TASKS) and {p.kind for p in one} == set(probes.KINDS)
    assert len(one) == len(two) == 2 * (2 * 5 + 5) + 2  # two layers; lags for phoneme and pitch of layer 1
    for a, b in zip(one, two, strict=True):
        assert (a.task, a.layer, a.kind, a.setting) == (b.task, b.layer, b.kind, b.setting)
        assert np.array_equal(a.said, b.said)
        if a.fitted:
            assert np.array_equal(a.fitted.coef, b.fitted.coef)
    layout = Layout(tmp_path, "s")
    classes = counts_.labels["phoneme"].classes
    probes.save(one, "toy", layout, {"phoneme": classes, "speaker": classes})
    for probe in (p for p in one if p.kind == probes.LINEAR):
        model = probes.to_sklearn(layout.probe("toy", probe.layer, probe.task))
        said = model.predict(codebooks[probe.layer - 1].astype(np.float64))
        if probe.task == "pitch":
            np.testing.assert_allclose(said, probe.said)
            assert isinstance(model, LinearRegression)
        else:
            assert list(said) == [classes[n] for n in probe.said] and isinstance(model, LogisticRegression)
            proba = model.predict_log_proba(codebooks[probe.layer - 1].astype(np.float64))
            np.testing.assert_allclose(proba, probe.fitted.log_proba(codebooks[probe.layer - 1]), atol=1e-9)
            assert model.C == probe.setting


@pytest.mark.parametrize("names", [["b"], ["b", "a"], ["c", "b", "a"]])
def test_to_sklearn_for_one_class_and_two_and_unsorted_names(names: list[str]) -> None:
    table, codebook = problem(4, 20, 5, len(names))
    fitted = solvers.fit_logistic(table + 1, codebook)
    model = fitted.to_sklearn(names, 1.0)
    assert list(model.predict(codebook.astype(np.float64))) == [names[n] for n in fitted.predict(codebook)]
    order = np.argsort(names)
    proba = model.predict_proba(codebook.astype(np.float64))
    np.testing.assert_allclose(proba, np.exp(fitted.log_proba(codebook))[:, order], atol=1e-9)


def test_held_out_tokens_change_no_probe() -> None:
    table, codebook = problem(3, 20, 5, 3)
    before, other = counted(table, codebook), counted(table, codebook)
    for labels in other.labels.values():
        labels.table[:, :, counts.FOLDS] = labels.table[:, ::-1, counts.FOLDS, ::-1] + 3
    for sums in (other.pitch.n, other.pitch.hz, other.pitch.semitones):
        sums[:, :, counts.FOLDS] += 7
    both = [probes.fit_all(c, codebook[None].repeat(2, 0), chosen(C="auto")) for c in (before, other)]
    assert all(np.array_equal(a.said, b.said) and a.setting == b.setting for a, b in zip(*both, strict=True))


def test_equal_dimension_repeats_the_row_of_a_small_codebook() -> None:
    """Up to 128 dimensions the leading components are a rotation of the codebook; beyond, they are fewer."""
    table, codebook = problem(3, 150, 128, 4)
    counts_ = counted(table, codebook)
    fitted = probes.fit_all(counts_, codebook[None].repeat(2, 0), chosen(), [probes.LINEAR, probes.COMPONENTS])
    own, leading = ([p for p in fitted if p.kind == kind] for kind in (probes.LINEAR, probes.COMPONENTS))
    for a, b in zip(own, leading, strict=True):
        if a.task == "pitch":
            np.testing.assert_allclose(a.said, b.said, rtol=1e-6)
        else:
            assert b.fitted.objective == pytest.approx(a.fitted.objective, rel=1e-4)
            assert np.mean(a.said == b.said) > 0.98
    wide = np.random.default_rng(0).normal(size=(150, 140)).astype(np.float32)
    projection = solvers.principal(wide, np.ones(150), probes.EQUAL_DIMENSION)
    assert projection.shape == (140, 128)
    kept = PCA(128).fit(wide.astype(np.float64))
    np.testing.assert_allclose(np.abs(np.sum(projection[:, :20] * kept.components_[:20].T, axis=0)), 1, atol=1e-6)


def test_a_task_without_labels_has_no_probes() -> None:
    table, codebook = problem(3, 20, 5, 3)
    counts_ = counted(table, codebook)
    for sums in (counts_.labels["pitch"].table, counts_.pitch.n, counts_.pitch.hz, counts_.pitch.semitones):
        sums[:] = 0
    fitted = probes.fit_all(counts_, codebook[None].repeat(2, 0), chosen())
    assert {p.task for p in fitted} == {"phoneme", "speaker"}


def test_a_probe_that_did_not_converge_is_named() -> None:
    table, codebook = problem(3, 20, 5, 3)
    settings = probes.Settings(1.0, 1, 1, 1, 0)
    fitted = probes.fit_all(counted(table, codebook), codebook[None].repeat(2, 0), settings, [probes.LINEAR])
    said = probes.warning(probes.certificates(fitted))
    assert said.startswith("WARNING") and "linear phoneme layer 2" in said
