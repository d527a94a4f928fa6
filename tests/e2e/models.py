"""Small real models on disk, in the format of a pod."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import skops.io
from sklearn.dummy import DummyClassifier


def write_constant_model(folder: Path, answer: int) -> Path:
    """Write a model of two features that always predicts the same, with an example; return its folder."""
    folder.mkdir()
    estimator = DummyClassifier(strategy="constant", constant=answer).fit(np.zeros((1, 2)), [answer])
    estimator.n_features_in_ = 2
    skops.io.dump(estimator, folder / "model.skops")
    (folder / "input_example.json").write_text(json.dumps([[0.0, 0.0]]))
    return folder
