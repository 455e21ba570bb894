"""One linear probe: fitted on vectors, judged on vectors it has not seen, beside what chance and memory achieve.

Uses numpy and scikit-learn; nothing of ours. The probe is logistic regression on standardised features
(arXiv:1610.01644) whose penalty is chosen inside the training part. scikit-learn is imported when the first is fitted:
it takes a second, which who opens the page need not wait for.

Shapes: N examples, C numbers of a vector, K labels.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

HELD_OUT = 3  # one of so many parts is held out
VALIDATION = 4  # and one of so many parts of the rest chooses the penalty
# Inverse strengths of the penalty, strongest first. On standardised features 1 is scikit-learn's own weak default.
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
ITERATIONS = 300
Z = 1.959964  # standard errors either way that hold 95 % of a normal distribution


@dataclass(frozen=True)
class Split:
    """Which examples a probe is fitted on, chooses its penalty by, and is judged on; indices."""

    fit: np.ndarray
    validate: np.ndarray
    test: np.ndarray

    @property
    def train(self) -> np.ndarray:
        return np.concatenate([self.fit, self.validate])


@dataclass(frozen=True)
class Score:
    """Held-out accuracy with its 95 % interval; what always saying the commonest label achieves; the penalty chosen."""

    accuracy: float
    low: float
    high: float
    majority: float
    penalty: float


def split(labels: np.ndarray, texts: np.ndarray, seed: int) -> Split:
    """Examples into three parts with the same mixture of labels; all examples of a text fall into the same part.

    Args:
        labels: (N,) integers.
        texts: (N,) integers, which text each example is from.

    Raises ValueError where a label would be missing in a part.
    """
    everything = np.arange(len(labels))
    rest, test = _one_fold(labels, texts, everything, HELD_OUT, seed)
    fit, validate = _one_fold(labels, texts, rest, VALIDATION, seed)
    parts = Split(fit, validate, test)
    for part in (fit, validate, test):
        if len(np.unique(labels[part])) < len(np.unique(labels)):
            raise ValueError("the labels are in too few texts to be split: give more texts of the rarest label")
    return parts


@threadpool_limits.wrap(limits=1, user_api="blas")  # the matrices are small: threads would wait for each other
def fit(vectors: np.ndarray, labels: np.ndarray, texts: np.ndarray, parts: Split) -> Score:
    """Fit one probe and judge it.

    Args:
        vectors: (N, C).
        labels: (N,) integers; those that the training part lacks cannot be said.
    """
    x = standardised(vectors, parts.train)
    chosen = max(PENALTIES, key=Validation(x, labels, parts))
    model = logistic(x[parts.train], labels[parts.train], chosen)
    right = model.predict(x[parts.test]) == labels[parts.test]
    # examples of one text may stand or fall together: the interval counts texts, which is never too narrow for that
    low, high = wilson(float(right.mean()), len(np.unique(texts[parts.test])))
    commonest = np.bincount(labels[parts.train]).argmax()
    return Score(float(right.mean()), low, high, float((labels[parts.test] == commonest).mean()), chosen)


class Validation:
    """How well a penalty does on the validation part, as a mean log-probability of the labels."""

    def __init__(self, x: np.ndarray, labels: np.ndarray, parts: Split):
        self.x, self.labels, self.parts = x, labels, parts

    def __call__(self, penalty: float) -> float:
        fit, validate = self.parts.fit, self.parts.validate
        model = logistic(self.x[fit], self.labels[fit], penalty)
        place = {label: column for column, label in enumerate(model.classes_)}
        known = np.array([label in place for label in self.labels[validate]])
        columns = [place[label] for label in self.labels[validate][known]]
        return float(model.predict_log_proba(self.x[validate][known])[np.arange(len(columns)), columns].mean())


def logistic(x: np.ndarray, labels: np.ndarray, penalty: float):
    """scikit-learn's model that minimises ½‖w‖² + penalty · Σ cross-entropy, or comes near it in ITERATIONS."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=penalty, max_iter=ITERATIONS).fit(x, labels)


def standardised(vectors: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 over the training part, (N, min(C, |train|)): more numbers are turned onto what they span.

    The penalty is the same in all directions, so that a probe's weights lie in the span of its training vectors, and
    turning these onto fewer axes changes no prediction.
    """
    x = vectors.astype(np.float64)
    if not np.isfinite(x).all():
        raise ValueError("the model's activations are not numbers: its training diverged, or its weights are damaged")
    deviation = x[train].std(0)
    x = (x - x[train].mean(0)) / np.where(deviation > 1e-9 * np.abs(x[train]).max(initial=1e-30), deviation, 1.0)
    if x.shape[1] > len(train):
        x = x @ np.linalg.svd(x[train], full_matrices=False)[2].T
    return x


def control_labels(labels: np.ndarray, types: np.ndarray, seed: int) -> np.ndarray | None:
    """The control task (arXiv:1909.03368): each type has one label, drawn at random, in about the same proportions.

    Types are dealt in random order, each to a label with the chance of what that label still lacks. None where there
    are fewer types than labels, so that nothing can be dealt.
    """
    random = np.random.default_rng(seed)
    names, of, counts = np.unique(types, return_inverse=True, return_counts=True)
    lacking = np.bincount(labels).astype(float)
    if len(names) < len(lacking):
        return None
    dealt = np.empty(len(names), dtype=int)
    for kind in random.permutation(len(names)):
        weights = np.maximum(lacking, 1e-9)
        dealt[kind] = random.choice(len(lacking), p=weights / weights.sum())
        lacking[dealt[kind]] -= counts[kind]
    return dealt[of]


def shuffled_labels(labels: np.ndarray, seed: int) -> np.ndarray:
    """The same labels, dealt to the examples at random: nothing can be learnt about them."""
    return np.random.default_rng(seed).permutation(labels)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent trials (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""
    middle = share + Z**2 / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2))
    return (middle - half) / (1 + Z**2 / count), (middle + half) / (1 + Z**2 / count)


def _one_fold(
    labels: np.ndarray, texts: np.ndarray, these: np.ndarray, folds: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(the rest, one fold) of some examples."""
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a label rarer than the folds: told by `split`, in our words
        rest, fold = next(splitter.split(these, labels[these], texts[these]))
    return these[rest], these[fold]
