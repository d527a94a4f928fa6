"""Models: how an artifact's files become something that predicts, and which files are never opened."""

import importlib
import json
import pickle
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.pod import tensors
from services.pod.tensors import InvalidInput

PREDICT = "predict"
PREDICT_PROBA = "predict_proba"
EXAMPLE = "input_example.json"
WARM_UP_ROWS = (1, 8, 64)

# What scikit-learn's own estimators are made of beyond what skops trusts: plain holders of numbers, named one by one
# because a trusted prefix would let a file name any function that such a module happens to import.
TRUSTED = frozenset(
    {
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
        "sklearn.gaussian_process.kernels.ConstantKernel",
        "sklearn.gaussian_process.kernels.Product",
        "sklearn.gaussian_process.kernels.RBF",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)


# scikit-learn's modules import each other in circles: of two threads that import them at once Python fails one.
_opening = threading.Lock()


class ModelRefused(Exception):
    """The artifact holds no model that this pod may or can serve; the message says why."""


class PredictionBroken(Exception):
    """The model answered something that is no prediction for the rows it was given."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a pod accepts: types that a skops file may hold beyond the known ones, and whether pickles are opened."""

    trust: frozenset[str] = frozenset()
    allow_pickle: bool = False


class Model:
    """A fitted estimator with scikit-learn's interface.

    `features` are the names it was fitted with, if any; `width` the number of columns it takes, None when it does not
    say; `outputs` the datatype and shape of each output it can give.
    """

    platform = "sklearn"

    def __init__(self, estimator: Any) -> None:
        if not callable(getattr(estimator, PREDICT, None)):
            raise ModelRefused(f"{type(estimator).__name__} has no method `predict`")
        self._estimator = estimator
        self.features = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
        width = getattr(estimator, "n_features_in_", None)
        self.width = None if width is None else int(width)
        self.outputs = _outputs(estimator)

    def arrange(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the rows to predict: one tensor [N, F] of any name, or one [N] or [N, 1] for each feature by name.

        Raises InvalidInput when the inputs do not fit the model.
        """
        if len(inputs) == 1 and tuple(inputs) != self.features:
            rows = next(iter(inputs.values()))
        else:
            rows = self._from_columns(inputs)
        self._check_shape(rows)
        # Narrow floats are widened without loss; the copy is aligned and writable, which the wire's bytes are not.
        return rows.astype(np.float64) if rows.dtype.kind == "f" else rows.copy()

    def _from_columns(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if not self.features:
            raise InvalidInput("the model's features have no names. Send one tensor [rows, features]")
        if unknown := sorted(inputs.keys() - set(self.features)):
            raise InvalidInput(f"unknown features {unknown}")
        if missing := [name for name in self.features if name not in inputs]:
            raise InvalidInput(f"missing features {missing}")
        columns = [inputs[name] for name in self.features]
        if len({len(column) for column in columns}) != 1 or any(column.size != len(column) for column in columns):
            raise InvalidInput("invalid shapes: expected [rows] or [rows, 1] for every feature, with the same rows")
        if any(column.dtype == object for column in columns):
            columns = [column.astype(object) for column in columns]
        return np.column_stack([column.reshape(-1) for column in columns])

    def _check_shape(self, rows: NDArray[Any]) -> None:
        if self.width is not None and rows.shape[1:] != (self.width,):
            raise InvalidInput(f"invalid shape: expected [rows, {self.width}], got {list(rows.shape)}")
        if self.width is None and rows.ndim > 2:
            raise InvalidInput(f"invalid shape: expected [rows] or [rows, features], got {list(rows.shape)}")

    def predict(self, rows: NDArray[Any], outputs: tuple[str, ...]) -> dict[str, NDArray[Any]]:
        """Return the asked outputs, each with a row for each of `rows`.

        Raises InvalidInput when the estimator cannot take the values, PredictionBroken when its answer is not one.
        """
        answers: dict[str, NDArray[Any]] = {}
        for name in outputs:
            try:
                answer = getattr(self._estimator, name)(rows)
            except (AttributeError, TypeError, ValueError) as error:
                raise InvalidInput(f"the model rejects these values: {error}") from error
            answers[name] = _on_the_wire(np.asarray(answer))
            if answers[name].shape[:1] != rows.shape[:1]:
                raise PredictionBroken(f"{name} returned the shape {answers[name].shape} for {len(rows)} rows")
        return answers


def _outputs(estimator: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, np.ndarray):
        outputs: dict[str, tuple[str, tuple[int, ...]]] = {
            PREDICT: (tensors.datatype(_on_the_wire(classes).dtype), (-1,))
        }
        if hasattr(estimator, PREDICT_PROBA):
            outputs[PREDICT_PROBA] = ("FP64", (-1, len(classes)))
        return outputs
    # What clusters or finds outliers answers with labels; the rest with numbers.
    return {PREDICT: ("INT64" if hasattr(estimator, "fit_predict") else "FP64", (-1,))}


def _on_the_wire(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in one of the four types that are sent: INT64, FP64, BOOL, BYTES."""
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def load(path: Path, options: Options) -> Model:
    """Return the model in an artifact's directory: the first of the known files, by the order of `LANES`.

    Raises ModelRefused; a file that is not what its name says raises whatever its library raises.
    """
    for name, lane in LANES.items():
        if (path / name).is_file():
            with _opening:
                return Model(lane(path / name, options))
    files = sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())[:10]
    raise ModelRefused(f"no model file: expected one of {', '.join(LANES)}, got {', '.join(files)}")


def prepare() -> None:
    """Import what loading needs, the slowest part of a first load, before there is anything to load."""
    with _opening:
        _library("sklearn.ensemble")
        _library("skops.io")


def warm_up_batches(model: Model, path: Path) -> Iterator[NDArray[Any]]:
    """Yield rows to warm up a model: the artifact's input example, if any, repeated to several sizes.

    Raises ModelRefused when the example holds no rows, InvalidInput when they do not fit the model.
    """
    example = _read_example(path / EXAMPLE)
    if example is None:
        return
    for size in WARM_UP_ROWS:
        rows = np.concatenate([example] * (size // len(example) + 1))[:size]
        yield model.arrange({"input": rows})


def _read_example(file: Path) -> NDArray[Any] | None:
    if not file.is_file():
        return None
    try:
        rows = np.asarray(json.loads(file.read_bytes()))
    except ValueError as error:
        raise ModelRefused(f"invalid {file.name}: expected a list of rows: {error}") from error
    if rows.ndim == 0 or rows.size == 0:
        raise ModelRefused(f"invalid {file.name}: expected a list of rows")
    return rows.astype(object) if rows.dtype.kind == "U" else rows


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelRefused(f"{name} is not installed. Install rollforward-server[sklearn]") from error


def _skops(file: Path, options: Options) -> Any:
    skops = _library("skops.io")
    types = frozenset(skops.get_untrusted_types(file=file))
    if refused := sorted(types - TRUSTED - options.trust):
        raise ModelRefused(f"{file.name} has untrusted types: {', '.join(refused)}. To allow them, use --trust")
    return skops.load(file, trusted=sorted(types))


def _joblib(file: Path, options: Options) -> Any:
    _check_pickle(file, options)
    return _library("joblib").load(file)


def _pickle(file: Path, options: Options) -> Any:
    _check_pickle(file, options)
    with file.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - the operator asked for it


def _check_pickle(file: Path, options: Options) -> None:
    if not options.allow_pickle:
        raise ModelRefused(
            f"{file.name} is a pickle, which runs code when opened. To allow it, start the pod with --allow-pickle"
        )


LANES: Mapping[str, Callable[[Path, Options], Any]] = {
    "model.skops": _skops,
    "model.joblib": _joblib,
    "model.pkl": _pickle,
}
