"""Solvers that fit probes to counts: the same optimum as over all tokens, at a cost that does not grow with them.

With T[c, y] training tokens of code c and class y, and E_c the embedding of code c, logistic regression minimises

    −Σ_c Σ_y w_y T[c, y] · log softmax(E_c W + b)_y  +  ‖W‖² / (2C)

which is the objective of ``sklearn.linear_model.LogisticRegression(C, class_weight="balanced")`` over the tokens.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import scipy.optimize
import sklearn.linear_model
from sklearn.base import BaseEstimator
from sklearn.dummy import DummyClassifier

TOLERANCE = 1e-5
"""A probe has converged when no entry of the gradient of the mean objective, on whitened embeddings, exceeds this, and
none on the embeddings themselves ``SCIKIT_LEARNS``."""
SCIKIT_LEARNS = 1e-4
"""Default ``tol`` of scikit-learn's LogisticRegression: its bound on the gradient on the embeddings themselves."""
ROUNDING = float(np.finfo(np.float32).eps)
"""Directions that the embeddings vary in by less than this share of the largest are rounding: codebooks are float32."""
CUTOFF = 1e-3
"""Singular values below this share of the largest one count as zero in linear regression. Smaller ones belong to
directions that a few training tokens span, along which codes that training never saw are thrown by kilohertz: with 1024
codes in 1024 dimensions on an hour of speech, one such held-out token took R² from 0.04 to −8."""
SMOOTHINGS = (0.1, 1.0, 10.0, 100.0)
"""Tokens of the training prior that a lookup probe may add to each code."""


@dataclass(frozen=True)
class Logistic:
    """A fitted multinomial logistic regression over the codes of one layer."""

    coef: np.ndarray
    """(Y, D); (1, D) for two classes, as in scikit-learn; (0, D) for one."""
    intercept: np.ndarray
    """(Y,), (1,) or (0,)."""
    present: np.ndarray
    """(Y,) the classes, by number, that have training tokens; no other is ever predicted."""
    objective: float
    """The minimised sum over weighted tokens, penalty included."""
    gradient: float
    """Largest entry of the mean objective's gradient at the solution; scikit-learn's default rule stops at 1e-4."""
    iterations: int
    converged: bool

    def log_proba(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the log probability of each present class at each row of ``embeddings`` (N, D), in nats."""
        logits = _logits(embeddings.astype(np.float64) @ self.coef.T + self.intercept, len(self.present))
        return logits - _softmax(logits.copy())[:, None]

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the class number of each row of ``embeddings`` (N, D)."""
        return self.present[self.log_proba(embeddings).argmax(axis=1)]

    def to_sklearn(self, classes: list[str], C: float) -> BaseEstimator:
        """Return a fitted ``LogisticRegression`` that names ``classes``; for a single class a constant classifier."""
        names = np.array(classes)[self.present]
        if len(names) == 1:
            return DummyClassifier(strategy="most_frequent").fit(np.zeros((1, self.coef.shape[1])), names)
        model = sklearn.linear_model.LogisticRegression(C=C)
        order = names.argsort()  # scikit-learn's classes are sorted
        sign = -1 if len(names) == 2 and order[0] else 1
        rows = order if len(names) > 2 else slice(None)
        model.coef_, model.intercept_ = sign * self.coef[rows], sign * self.intercept[rows]
        model.classes_, model.n_iter_ = names[order], np.array([self.iterations], np.int32)
        model.n_features_in_ = self.coef.shape[1]
        return model


def _logits(scores: np.ndarray, classes: int) -> np.ndarray:
    """Return (N, Y) logits; two classes have one score, one class has none, and the first class's logit is 0."""
    return scores if classes > 2 else np.hstack([np.zeros((len(scores), 1)), scores])


def _softmax(logits: np.ndarray) -> np.ndarray:
    """Turn ``logits`` (N, Y) into probabilities, in place, and return the logarithm of each row's normaliser."""
    highest = logits.max(axis=1, keepdims=True)
    logits -= highest
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    logits /= total
    return (highest + np.log(total))[:, 0]


def class_weights(counts: np.ndarray, balanced: bool) -> np.ndarray:
    """Return scikit-learn's weight of each class for ``counts`` (Y,) > 0: N / (Y·N_y), or ones."""
    return counts.sum() / (len(counts) * counts) if balanced else np.ones(len(counts))


def fit_logistic(
    table: np.ndarray, codebook: np.ndarray, C: float = 1.0, max_iter: int = 1000, balanced: bool = True,
    tolerance: float = TOLERANCE,
) -> Logistic:  # fmt: skip
    """Fit by L-BFGS in float64 to ``table`` (K, Y) training tokens by code and class, ``codebook`` (K, D).

    Three classes and more: softmax; two: scikit-learn's binary form (one coefficient vector); one: a constant. The
    search runs on centred, whitened embeddings, where a tenth of the iterations does, and starts from the least-squares
    fit to the log counts; the objective stays the one above, and the gradient that is returned is the one in the
    embeddings' own coordinates. Raises ValueError where the table is empty.
    """
    present = np.flatnonzero(table.sum(axis=0))
    if not len(present):
        raise ValueError("no training token has a label")
    used = np.flatnonzero(table.sum(axis=1))
    counts = table[np.ix_(used, present)].astype(np.float64)
    weighted = counts * class_weights(counts.sum(axis=0), balanced)
    total = weighted.sum()
    target, of_code, prior = weighted / total, weighted.sum(axis=1) / total, weighted.sum(axis=0) / total
    embeddings = codebook[used].astype(np.float64)
    centre, basis = _whitening(embeddings, of_code, len(present) / (C * total))
    inputs, stretch = (embeddings - centre) @ basis, np.square(basis).sum(axis=0)[:, None] / (C * total)
    transposed = np.ascontiguousarray(inputs.T)  # a third faster to multiply than a view
    dropped = 0 if len(present) > 2 else 1

    def loss_and_residual(weights: np.ndarray, bias: np.ndarray, features: np.ndarray) -> tuple[float, np.ndarray]:
        logits = _logits(features @ weights + bias, len(present))
        gain = np.vdot(target, logits)
        normaliser = _softmax(logits)
        logits *= of_code[:, None]
        logits -= target
        return float(of_code @ normaliser - gain), logits[:, dropped:]

    def unpack(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return flat[: weights.size].reshape(weights.shape), flat[weights.size :]

    def mean_objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients, bias = unpack(flat)
        loss, residual = loss_and_residual(coefficients, bias, inputs)
        penalty = stretch * coefficients
        slope = np.concatenate([(transposed @ residual + penalty).ravel(), residual.sum(axis=0)])
        return loss + np.vdot(penalty, coefficients) / 2, slope

    def result(weights: np.ndarray, intercept: np.ndarray, iterations: int, steepest: float) -> Logistic:
        coef = basis @ weights
        bias = intercept - centre @ coef
        loss, residual = loss_and_residual(coef, bias, embeddings)
        slope = np.vstack([embeddings.T @ residual + coef / (C * total), residual.sum(axis=0)])
        gradient = float(np.abs(slope).max(initial=0))
        converged = bool(steepest <= tolerance and gradient <= SCIKIT_LEARNS)
        objective = float(total * loss + np.vdot(coef, coef) / (2 * C))
        return Logistic(coef.T, bias, present, objective, gradient, iterations, converged)

    start = np.log(target + prior / counts.sum())
    start -= start[:, :1] if dropped else start.mean(axis=1, keepdims=True)
    intercept = (of_code @ start)[dropped:]
    weights = inputs.T @ (of_code[:, None] * (start[:, dropped:] - intercept))
    fitted, goal, done = result(weights, intercept, 0, 0.0 if not len(intercept) else np.inf), tolerance, 0
    while not fitted.converged and done < max_iter:
        options = {"maxiter": max_iter - done, "maxfun": 2 * max_iter, "gtol": goal, "ftol": 0.0, "maxcor": 10}
        flat = np.concatenate([weights.ravel(), intercept])
        found = scipy.optimize.minimize(mean_objective, flat, jac=True, method="L-BFGS-B", options=options)
        weights, intercept = unpack(found.x)
        done, goal = done + int(found.nit), goal / 4
        fitted = result(weights, intercept, done, float(np.abs(found.jac).max()))
        if not found.nit:
            break
    return fitted


def _whitening(embeddings: np.ndarray, share: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Return centre (D,) and basis (D, R) in which loss and penalty together curve alike in all directions.

    Directions in which the embeddings, each with its ``share`` of the tokens, do not vary (there are some where codes
    are fewer than dimensions) are left out: their coefficients are zero at the optimum.
    """
    centre = share @ embeddings
    variance, directions = _axes(np.sqrt(share)[:, None] * (embeddings - centre))
    varies = variance > ROUNDING**2 * variance[0]
    return centre, directions[:, varies] / np.sqrt(variance[varies] + ridge)


def _axes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how much ``rows`` (K, D) vary along their principal axes, (R,), and these, (D, R), the largest first."""
    if len(rows) < rows.shape[1]:
        _, deviation, axes = np.linalg.svd(rows, full_matrices=False)
        return deviation**2, axes.T
    variance, axes = np.linalg.eigh(rows.T @ rows)  # twice as fast where codes are no fewer than dimensions
    return variance[::-1], axes[:, ::-1]


def choose_C(
    train: np.ndarray, validation: np.ndarray, codebook: np.ndarray, path: tuple[float, ...], max_iter: int
) -> float:
    """Return the C of ``path`` whose probe, fitted to ``train`` (K, Y), has the lowest balanced cross-entropy on ``validation``.

    Classes without a token in ``train`` do not count.
    """
    losses = []
    for C in path:
        fitted = fit_logistic(train, codebook, C, max_iter)
        held_out = validation[:, fitted.present].astype(np.float64)
        of_class = held_out.sum(axis=0)
        losses.append(-np.vdot(held_out / np.maximum(of_class, 1), fitted.log_proba(codebook)))
    return path[int(np.argmin(losses))]


@dataclass(frozen=True)
class Linear:
    """A fitted linear regression over the codes of one layer."""

    coef: np.ndarray
    """(D,) target units (Hz or semitones) a unit of the embedding."""
    intercept: float
    rank: int

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the target (N,) at ``embeddings`` (N, D)."""
        return embeddings.astype(np.float64) @ self.coef + self.intercept

    def to_sklearn(self) -> sklearn.linear_model.LinearRegression:
        """Return a fitted ``LinearRegression``."""
        model = sklearn.linear_model.LinearRegression()
        model.coef_, model.intercept_ = self.coef, self.intercept
        model.n_features_in_, model.rank_ = len(self.coef), self.rank
        return model


def fit_linear(n: np.ndarray, totals: np.ndarray, codebook: np.ndarray, cutoff: float = CUTOFF) -> list[Linear]:
    """Fit ordinary least squares to ``n`` (K,) tokens and ``totals`` (K, M), sums of M targets, ``codebook`` (K, D).

    The minimum-norm solution of the √n-weighted, centred problem in float64; singular values below ``cutoff`` times
    the largest one count as zero. Raises ValueError where there is no token.
    """
    used = np.flatnonzero(n)
    if not len(used):
        raise ValueError("no training token is voiced")
    count, inputs = n[used].astype(np.float64), codebook[used].astype(np.float64)
    centre, means = count @ inputs / count.sum(), totals[used].sum(axis=0) / count.sum()
    root = np.sqrt(count)[:, None]
    targets = root * (totals[used] / count[:, None] - means)
    coefs, _, rank, _ = np.linalg.lstsq(root * (inputs - centre), targets, rcond=cutoff)
    return [Linear(coef, float(mean - centre @ coef), int(rank)) for coef, mean in zip(coefs.T, means, strict=True)]


def principal(codebook: np.ndarray, use: np.ndarray, components: int) -> np.ndarray:
    """Return the projection (D, ``components`` or D if that is less) on the leading principal components of the
    ``codebook`` (K, D) when code c is used ``use[c]`` times."""
    share, embeddings = use / use.sum(), codebook.astype(np.float64)
    return _axes(np.sqrt(share)[:, None] * (embeddings - share @ embeddings))[1][:, :components]


Fitted = TypeVar("Fitted", Logistic, Linear)


def through(fitted: Fitted, projection: np.ndarray) -> Fitted:
    """Return a probe of projected embeddings as one of the embeddings themselves."""
    return replace(fitted, coef=fitted.coef @ projection.T)


def fit_lookup(folds: np.ndarray, balanced: bool = True) -> tuple[np.ndarray, float]:
    """Return the class (K,) that a lookup probe gives each code of ``folds`` (K, F, Y), and its smoothing.

    It is the most frequent class after so many tokens of the training prior were added, under the class weights of the
    linear probe; a code that was never seen gets the most frequent class. Of ``SMOOTHINGS`` the one is taken whose
    balanced cross-entropy is lowest when each fold is looked up in the others.
    """
    table = folds.sum(axis=1)
    losses = np.zeros(len(SMOOTHINGS))
    for fold in np.moveaxis(folds, 1, 0):
        rest = table - fold
        present = np.flatnonzero(rest.sum(axis=0))
        scored = fold[:, present] * class_weights(rest.sum(axis=0)[present], balanced)
        for number, smoothing in enumerate(SMOOTHINGS):
            scores = _smoothed(rest, present, smoothing, balanced)
            losses[number] -= np.vdot(scored, np.log(scores / scores.sum(axis=1, keepdims=True)))
    smoothing = SMOOTHINGS[int(losses.argmin())]
    present = np.flatnonzero(table.sum(axis=0))
    best = present[_smoothed(table, present, smoothing, balanced).argmax(axis=1)]
    return np.where(table.sum(axis=1) > 0, best, table.sum(axis=0).argmax()), smoothing


def _smoothed(table: np.ndarray, present: np.ndarray, smoothing: float, balanced: bool) -> np.ndarray:
    of_class = table.sum(axis=0)[present]
    return (table[:, present] + smoothing * of_class / of_class.sum()) * class_weights(of_class, balanced)


def fit_mean(n: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the value (K,) that a lookup probe gives each code of ``n`` and ``total`` (K, F), and its smoothing.

    It is the code's mean after so many tokens of the overall mean were added. Of ``SMOOTHINGS`` the one is taken whose
    squared error is lowest when each fold is looked up in the others.
    """
    rest, others = (part.sum(axis=1, keepdims=True) - part for part in (n, total))
    losses = []
    for smoothing in SMOOTHINGS:
        said = _shrunk(rest, others, smoothing)
        losses.append(np.sum(n * said**2 - 2 * said * total))
    smoothing = SMOOTHINGS[int(np.argmin(losses))]
    return _shrunk(n.sum(axis=1), total.sum(axis=1), smoothing), smoothing


def _shrunk(n: np.ndarray, total: np.ndarray, smoothing: float) -> np.ndarray:
    mean = total.sum(axis=0) / np.maximum(n.sum(axis=0), 1)
    return (total + smoothing * mean) / (n + smoothing)
