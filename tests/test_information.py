import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics

from rvqprobe import information


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_mutual_information_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    folds = rng.poisson(1.0, size=(7, 4, 5))
    folds[0, :, 0] += 1
    whole = folds.sum(axis=1)
    code, label = (np.repeat(index.ravel(), whole.ravel()) for index in np.indices(whole.shape))
    expected = sklearn_metrics.mutual_info_score(code, label) / np.log(2)
    found = information.estimates(folds)
    assert found["mi"][0] == pytest.approx(expected, abs=1e-12)
    share = np.bincount(label) / len(label)
    entropy = -sum(p * np.log2(p) for p in share if p)
    if entropy:
        assert found["pnmi"][0] == pytest.approx(expected / entropy, abs=1e-12)
    cells = [np.count_nonzero(part) - 1 for part in (whole.sum(axis=1), whole.sum(axis=0), whole)]
    bias = (cells[0] + cells[1] - cells[2]) / (2 * len(code) * np.log(2))
    assert found["mi_corrected"][0] == pytest.approx(expected + bias, abs=1e-12)
    left = [information.mutual(whole - folds[:, f]) for f in range(4) if folds[:, f].any()]
    variance = sum((v - np.mean(left)) ** 2 for v in left) * (len(left) - 1) / len(left)
    assert found["mi"][2] - found["mi"][0] == pytest.approx(3.182446305 * np.sqrt(variance), abs=1e-9)  # t, 3 d.f.


def test_the_correction_takes_most_of_the_bias_away() -> None:
    rng = np.random.default_rng(0)
    tables = [np.bincount(rng.integers(0, 30 * 20, 3000), minlength=600).reshape(30, 20) for _ in range(50)]
    plain, corrected = (np.mean([information.mutual(t, c) for t in tables]) for c in (False, True))
    assert plain > 0.1 and abs(corrected) < 0.1 * plain  # code and label are independent


def test_code_use_of_a_case_worked_by_hand() -> None:
    codebooks = np.zeros((2, 4, 3), np.float32)
    codebooks[0, 0, 0], codebooks[1, :3] = 1, np.eye(3)
    found = information.code_use(np.array([[8, 8, 0, 0], [1, 1, 1, 1]]), codebooks)
    assert found["dead codes"].to_list() == [2, 0] and found["rank"].to_list() == [1, 3]
    assert found["perplexity"].to_list() == pytest.approx([2, 4])
