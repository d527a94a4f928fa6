"""The data set: scikit-learn's records of breast tumours, with a fixed split into training and test rows."""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

TEST_SHARE = 0.3
SEED = 21


class Split(NamedTuple):
    """Measurements [rows, 30] and labels [rows], 1 for benign, to train with and to judge by."""

    train_rows: NDArray[Any]
    test_rows: NDArray[Any]
    train_labels: NDArray[Any]
    test_labels: NDArray[Any]


def split() -> Split:
    """Return the data, split in the same way in every process."""
    rows, labels = load_breast_cancer(return_X_y=True)
    return Split(*train_test_split(rows, labels, test_size=TEST_SHARE, stratify=labels, random_state=SEED))
