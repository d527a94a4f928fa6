"""A training job: one configuration, one process, one run. `python -m services.demo.train NAME --experiment E`."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import skops.io
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import rollforward as rf
from services.demo.data import Split, split

Steps = Iterator[tuple[int, Any]]
"""Ever better models: how many epochs or trees, and the estimator so far."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a job trains, and with which parameters."""

    about: str
    fit: Callable[[Split, dict[str, Any]], Steps]
    params: dict[str, Any]


def _forest(data: Split, params: dict[str, Any]) -> Steps:
    model = RandomForestClassifier(
        n_estimators=0, max_depth=params["max_depth"], random_state=params["seed"], warm_start=True
    )
    for trees in range(params["trees_per_step"], params["trees"] + 1, params["trees_per_step"]):
        model.set_params(n_estimators=trees).fit(data.train_rows, data.train_labels)
        yield trees, model


def _linear(data: Split, params: dict[str, Any]) -> Steps:
    scale = StandardScaler() if params["scaled"] else FunctionTransformer()
    rows = scale.fit_transform(data.train_rows)
    model = SGDClassifier(loss="log_loss", alpha=params["alpha"], average=params["scaled"], random_state=params["seed"])
    for epoch in range(1, params["epochs"] + 1):
        model.partial_fit(rows, data.train_labels, classes=[0, 1])
        yield epoch, Pipeline([("scale", scale), ("classify", model)])


def _boosting(data: Split, params: dict[str, Any]) -> Steps:
    model = GradientBoostingClassifier(
        n_estimators=0, max_depth=params["max_depth"], random_state=params["seed"], warm_start=True
    )
    for trees in range(1, params["trees"] + 1):
        model.set_params(n_estimators=trees).fit(data.train_rows, data.train_labels)
        yield trees, model


CONFIGURATIONS: Final = {
    "forest": Configuration(
        "a random forest, grown five trees at a time",
        _forest,
        {"max_depth": 8, "trees": 60, "trees_per_step": 5, "seed": 2},
    ),
    "linear": Configuration(
        "logistic regression by gradient descent, on scaled columns",
        _linear,
        {"alpha": 0.001, "epochs": 30, "scaled": True, "seed": 2},
    ),
    "unscaled": Configuration(
        "the same, but somebody forgot to scale the columns",
        _linear,
        {"alpha": 0.001, "epochs": 30, "scaled": False, "seed": 2},
    ),
    "stumps": Configuration(
        "boosting, with far too few and too shallow trees",
        _boosting,
        {"max_depth": 1, "trees": 6, "seed": 2},
    ),
}


def train(name: str, experiment: str, run_id: str | None = None) -> None:
    """Train one configuration and log all there is to know: parameters, metrics of each step, the model's files."""
    configuration, data = CONFIGURATIONS[name], split()
    with rf.start_run(experiment, name=name, run_id=run_id, tags={"about": configuration.about}) as run:
        run.log_params(configuration.params)
        model = None
        for step, model in configuration.fit(data, configuration.params):
            run.log_metrics(_gate_evaluator(model, data), step)
        with tempfile.TemporaryDirectory() as directory:
            _save(model, data, Path(directory))
            run.log_artifacts(directory, "model")


def _gate_evaluator(model: Any, data: Split) -> dict[str, float]:
    return {
        "accuracy": accuracy_score(data.test_labels, model.predict(data.test_rows)),
        "log_loss": log_loss(data.test_labels, model.predict_proba(data.test_rows)),
    }


def _save(model: Any, data: Split, directory: Path) -> None:
    skops.io.dump(model, directory / "model.skops")
    # The pod warms a version up with these rows before it answers with it.
    (directory / "input_example.json").write_text(json.dumps(data.train_rows[:4].tolist()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=CONFIGURATIONS)
    parser.add_argument("--experiment", required=True)
    parser.add_argument("--run-id")
    parser.add_argument("--server", help="else ROLLFORWARD_URI")
    arguments = parser.parse_args()
    rf.connect(arguments.server)
    train(arguments.name, arguments.experiment, arguments.run_id)
