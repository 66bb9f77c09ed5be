"""Solvers that fit probes to counts: the same optimum as over all tokens, at a cost that does not grow with them.

With T[c, y] training tokens of code c and class y, and E_c the embedding of code c, logistic regression minimises

    −Σ_c Σ_y w_y T[c, y] · log softmax(E_c W + b)_y  +  ‖W‖² / (2C)

which is the objective of ``sklearn.linear_model.LogisticRegression(C, class_weight="balanced")`` over the tokens.
"""

from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special

TOLERANCE = 1e-6
"""A probe has converged when no entry of the gradient of the mean loss, on whitened embeddings, exceeds this."""
ROUNDING = float(np.finfo(np.float32).eps)
"""Directions that the embeddings vary in by less than this share of the largest are rounding: codebooks are float32."""
CUTOFF = 1e-3
"""Singular values below this share of the largest one count as zero in linear regression. Smaller ones belong to
directions that a few training tokens span, along which codes that training never saw are thrown by kilohertz: with 1024
codes in 1024 dimensions on an hour of speech, one such held-out token took R² from 0.04 to −8."""
SMOOTHING = 1.0
"""Tokens of the training prior that a lookup probe adds to each code."""


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

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the class number of each row of ``embeddings`` (N, D)."""
        logits = _logits(embeddings.astype(np.float64) @ self.coef.T + self.intercept, len(self.present))
        return self.present[logits.argmax(axis=1)]


def _logits(scores: np.ndarray, classes: int) -> np.ndarray:
    """Return (N, Y) logits; two classes have one score, one class has none, and the first class's logit is 0."""
    return scores if classes > 2 else np.hstack([np.zeros((len(scores), 1)), scores])


def class_weights(counts: np.ndarray, balanced: bool) -> np.ndarray:
    """Return scikit-learn's weight of each class for ``counts`` (Y,) > 0: N / (Y·N_y), or ones."""
    return counts.sum() / (len(counts) * counts) if balanced else np.ones(len(counts))


def fit_logistic(
    table: np.ndarray, codebook: np.ndarray, C: float = 1.0, max_iter: int = 1000, balanced: bool = True,
    tolerance: float = TOLERANCE,
) -> Logistic:  # fmt: skip
    """Fit by L-BFGS in float64 to ``table`` (K, Y) training tokens by code and class, ``codebook`` (K, D).

    Three classes and more: softmax; two: scikit-learn's binary form (one coefficient vector); one: a constant. The
    search runs on centred, whitened embeddings, where a tenth of the iterations does; the objective stays the one
    above, and the gradient that is returned is the one in the embeddings' own coordinates. Raises ValueError where the
    table is empty.
    """
    present = np.flatnonzero(table.sum(axis=0))
    if not len(present):
        raise ValueError("no training token has a label")
    used = np.flatnonzero(table.sum(axis=1))
    counts = table[np.ix_(used, present)].astype(np.float64)
    weighted = counts * class_weights(counts.sum(axis=0), balanced)
    of_code, total = weighted.sum(axis=1), weighted.sum()
    embeddings = codebook[used].astype(np.float64)
    centre, basis = _whitening(embeddings, of_code, C, len(present))
    inputs, stretch = (embeddings - centre) @ basis, np.square(basis).sum(axis=0)
    dropped = 0 if len(present) > 2 else 1
    rows = len(present) - dropped

    def loss_and_residual(weights: np.ndarray, bias: np.ndarray, features: np.ndarray) -> tuple[float, np.ndarray]:
        logits = _logits(features @ weights.T + bias, len(present))
        normaliser = scipy.special.logsumexp(logits, axis=1, keepdims=True)
        loss = of_code @ normaliser[:, 0] - np.vdot(weighted, logits)
        return loss, (of_code[:, None] * np.exp(logits - normaliser) - weighted)[:, dropped:]

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = flat.reshape(rows, -1)[:, :-1], flat.reshape(rows, -1)[:, -1]
        loss, residual = loss_and_residual(weights, bias, inputs)
        slope = np.column_stack([residual.T @ inputs + weights * stretch / C, residual.sum(axis=0)])
        return (
            loss + np.vdot(weights**2, np.broadcast_to(stretch, weights.shape)) / (2 * C)
        ) / total, slope.ravel() / total

    prior = np.log(weighted.sum(axis=0))
    start = np.zeros((rows, inputs.shape[1] + 1))
    start[:, -1] = (prior - prior[0])[dropped:]
    options = {"maxiter": max_iter, "maxfun": 2 * max_iter + 10, "gtol": tolerance, "ftol": 0.0, "maxcor": 20}
    found = (
        scipy.optimize.minimize(objective, start.ravel(), jac=True, method="L-BFGS-B", options=options)
        if rows
        else None
    )
    solution = found.x.reshape(rows, -1) if found else start
    coef = solution[:, :-1] @ basis.T
    intercept = solution[:, -1] - coef @ centre
    loss, residual = loss_and_residual(coef, intercept, embeddings)
    slope = np.column_stack([residual.T @ embeddings + coef / C, residual.sum(axis=0)]) / total
    return Logistic(
        coef, intercept, present,
        objective=float(loss + np.vdot(coef, coef) / (2 * C)),
        gradient=float(np.abs(slope).max(initial=0)),
        iterations=int(found.nit) if found else 0,
        converged=bool(np.abs(found.jac).max() <= tolerance) if found else True,
    )  # fmt: skip


def _whitening(embeddings: np.ndarray, of_code: np.ndarray, C: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return centre (D,) and basis (D, R) in which loss and penalty together curve alike in all directions.

    Directions in which the embeddings do not vary (there are some where codes are fewer than dimensions) are left out:
    their coefficients are zero at the optimum.
    """
    share = of_code / of_code.sum()
    centre = share @ embeddings
    _, deviation, directions = np.linalg.svd(np.sqrt(share)[:, None] * (embeddings - centre), full_matrices=False)
    varies = deviation > ROUNDING * deviation[0]
    return centre, directions[varies].T / np.sqrt(deviation[varies] ** 2 + classes / (C * of_code.sum()))


@dataclass(frozen=True)
class Linear:
    """A fitted linear regression over the codes of one layer."""

    coef: np.ndarray
    """(D,) Hz a unit of the embedding."""
    intercept: float
    """Hz."""
    rank: int

    def predict(self, embeddings: np.ndarray) -> np.ndarray:
        """Return the F0 (N,) of ``embeddings`` (N, D), Hz."""
        return embeddings.astype(np.float64) @ self.coef + self.intercept


def fit_linear(n: np.ndarray, total: np.ndarray, codebook: np.ndarray, cutoff: float = CUTOFF) -> Linear:
    """Fit ordinary least squares from ``n`` (K,) tokens and their summed value ``total`` (K,) a code, ``codebook`` (K, D).

    The minimum-norm solution of the √n-weighted, centred problem in float64; singular values below ``cutoff`` times
    the largest one count as zero. Raises ValueError where there is no token.
    """
    used = np.flatnonzero(n)
    if not len(used):
        raise ValueError("no training token is voiced")
    count, inputs = n[used].astype(np.float64), codebook[used].astype(np.float64)
    centre, mean = count @ inputs / count.sum(), total[used].sum() / count.sum()
    root = np.sqrt(count)
    coef, _, rank, _ = np.linalg.lstsq(
        root[:, None] * (inputs - centre), root * (total[used] / count - mean), rcond=cutoff
    )
    return Linear(coef, float(mean - centre @ coef), int(rank))


def fit_lookup(table: np.ndarray, balanced: bool = True, smoothing: float = SMOOTHING) -> np.ndarray:
    """Return the class (K,) that a lookup probe gives each code of ``table`` (K, Y).

    It is the most frequent class after ``smoothing`` tokens of the training prior were added, under the class weights
    of the linear probe; a code that was never seen gets the most frequent class.
    """
    of_class = table.sum(axis=0)
    present = np.flatnonzero(of_class)
    prior = of_class[present] / of_class.sum()
    scores = (table[:, present] + smoothing * prior) * class_weights(of_class[present], balanced)
    best = present[scores.argmax(axis=1)]
    return np.where(table.sum(axis=1) > 0, best, of_class.argmax())


def fit_mean(n: np.ndarray, total: np.ndarray, smoothing: float = SMOOTHING) -> np.ndarray:
    """Return the value (K,) that a lookup probe gives each code: its mean, after ``smoothing`` tokens of the overall mean."""
    return (total + smoothing * total.sum() / n.sum()) / (n + smoothing)
