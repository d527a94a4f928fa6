"""Models: which files are opened, which models are refused, and which inputs are valid."""

import json
import pickle
from pathlib import Path
from typing import Any

import joblib  # type: ignore[import-untyped]
import numpy as np
import pytest
import skops.io
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.datasets import load_iris
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC

from services.pod.models import Model, ModelRefused, Options, load, warm_up_batches
from services.pod.tensors import InvalidInput

FEATURES, LABELS = load_iris(return_X_y=True)
ONE_ROW = FEATURES[:1]


def model_with_feature_names(names: tuple[str, ...] = ("a", "b", "c", "d")) -> Model:
    """Return a model with named features."""
    estimator = RandomForestClassifier(3, random_state=0).fit(FEATURES, LABELS)
    estimator.feature_names_in_ = np.array(names, dtype=object)
    return Model(estimator)


def model_without_feature_names() -> Model:
    """Return a model of four unnamed columns."""
    return Model(RandomForestClassifier(3, random_state=0).fit(FEATURES, LABELS))


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(max_iter=500),
        make_pipeline(StandardScaler(), LogisticRegression()),
        RandomForestClassifier(3),
        RandomForestRegressor(3),
        HistGradientBoostingClassifier(max_iter=3),
        KNeighborsClassifier(),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learn_estimator_loads_from_skops(estimator: Any, tmp_path: Path) -> None:
    estimator.fit(FEATURES, LABELS)
    skops.io.dump(estimator, tmp_path / "model.skops")
    model = load(tmp_path, Options())
    np.testing.assert_array_equal(model.predict(FEATURES, ("predict",))["predict"], estimator.predict(FEATURES))


def untrusted_function(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the rows: a function that pods do not trust."""
    return rows


def test_untrusted_type_is_refused_until_operator_trusts_it(tmp_path: Path) -> None:
    estimator = make_pipeline(FunctionTransformer(untrusted_function), LogisticRegression(max_iter=500)).fit(
        FEATURES, LABELS
    )
    skops.io.dump(estimator, tmp_path / "model.skops")
    (name,) = skops.io.get_untrusted_types(file=tmp_path / "model.skops")
    with pytest.raises(ModelRefused, match=name):
        load(tmp_path, Options())
    with pytest.raises(ModelRefused, match=name):
        load(tmp_path, Options(trust=frozenset({"builtins.eval"})))
    assert load(tmp_path, Options(trust=frozenset({name}))).width == 4


class Exploit:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib"])
def test_pickle_is_not_opened_by_default(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Exploit(tmp_path / "ran")))
    with pytest.raises(ModelRefused):
        load(tmp_path, Options())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.pkl", "model.joblib"])
def test_allowed_pickle_is_loaded(name: str, tmp_path: Path) -> None:
    estimator = LinearRegression().fit(FEATURES, LABELS)
    joblib.dump(estimator, tmp_path / name)
    if name == "model.pkl":
        (tmp_path / name).write_bytes(pickle.dumps(estimator))
    model = load(tmp_path, Options(allow_pickle=True))
    np.testing.assert_array_equal(model.predict(ONE_ROW, ("predict",))["predict"], estimator.predict(ONE_ROW))


def test_skops_is_preferred_to_pickle(tmp_path: Path) -> None:
    skops.io.dump(LinearRegression().fit(FEATURES, LABELS), tmp_path / "model.skops")
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Exploit(tmp_path / "ran")))
    load(tmp_path, Options(allow_pickle=True))
    assert not (tmp_path / "ran").exists()


def test_artifact_without_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no model")
    with pytest.raises(ModelRefused):
        load(tmp_path, Options())


def test_estimator_without_predict_is_refused() -> None:
    with pytest.raises(ModelRefused):
        Model(StandardScaler().fit(FEATURES))


@pytest.mark.parametrize(
    ("estimator", "outputs"),
    [
        (RandomForestClassifier(2), {"predict": ("INT64", (-1,)), "predict_proba": ("FP64", (-1, 3))}),
        (LinearSVC(), {"predict": ("INT64", (-1,))}),
        (LinearRegression(), {"predict": ("FP64", (-1,))}),
        (KMeans(2), {"predict": ("INT64", (-1,))}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_outputs_match_estimator(estimator: Any, outputs: dict[str, Any]) -> None:
    model = Model(estimator.fit(FEATURES, LABELS))
    assert model.outputs == outputs
    for name, answer in model.predict(FEATURES, tuple(outputs)).items():
        datatype, shape = outputs[name]
        assert answer.dtype == {"INT64": np.int64, "FP64": np.float64}[datatype]
        assert answer.shape[1:] == shape[1:]


def test_text_labels_are_predicted_as_text() -> None:
    labels = np.array(["setosa", "versicolor", "virginica"])[LABELS]
    model = Model(RandomForestClassifier(3, random_state=0).fit(FEATURES, labels))
    assert model.outputs["predict"] == ("BYTES", (-1,))
    assert model.predict(ONE_ROW, ("predict",))["predict"].tolist() == ["setosa"]


def test_matrix_and_named_columns_give_same_rows() -> None:
    model = model_with_feature_names()
    matrix = model.arrange({"anything": FEATURES})
    columns = {name: FEATURES[:, index] for index, name in enumerate("abcd")}
    columns["c"] = columns["c"].reshape(-1, 1).astype(np.float64)
    shuffled = dict(sorted(columns.items(), reverse=True))
    np.testing.assert_array_equal(model.arrange(shuffled), matrix)


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.zeros((2, 3))},
        {"x": np.zeros(4)},
        {"x": np.zeros((1, 2, 2))},
        {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(2)},
        {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(2), "e": np.zeros(2)},
        {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(2), "d": np.zeros(3)},
        {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(2), "d": np.zeros((2, 2))},
    ],
)
def test_input_of_wrong_shape_is_invalid(inputs: dict[str, NDArray[Any]]) -> None:
    for model in (model_with_feature_names(), model_without_feature_names()):
        with pytest.raises(InvalidInput):
            model.arrange(inputs)


def test_half_floats_are_widened_and_integers_kept() -> None:
    assert model_without_feature_names().arrange({"x": FEATURES.astype(np.float16)}).dtype == np.float64
    assert model_without_feature_names().arrange({"x": FEATURES.astype(np.int32)}).dtype == np.int32


def test_values_that_model_rejects_are_invalid_input() -> None:
    model = Model(LogisticRegression(max_iter=500).fit(FEATURES, LABELS))
    for rows in (np.full((1, 4), np.nan), np.full((1, 4), "text", dtype=object)):
        with pytest.raises(InvalidInput):
            model.predict(model.arrange({"x": rows}), ("predict",))


def test_text_model_accepts_text_tensor() -> None:
    texts = np.array(["buy now", "see you", "buy cheap", "you and me"], dtype=object)
    estimator = make_pipeline(CountVectorizer(), MultinomialNB()).fit(texts, [1, 0, 1, 0])
    model = Model(estimator)
    assert model.predict(model.arrange({"text": texts}), ("predict",))["predict"].tolist() == [1, 0, 1, 0]
    with pytest.raises(InvalidInput):
        model.predict(model.arrange({"text": np.zeros(3)}), ("predict",))


def test_input_example_gives_warm_up_batches(tmp_path: Path) -> None:
    model = model_without_feature_names()
    assert list(warm_up_batches(model, tmp_path)) == []
    (tmp_path / "input_example.json").write_text(json.dumps(FEATURES[:3].tolist()))
    batches = list(warm_up_batches(model, tmp_path))
    assert [len(batch) for batch in batches] == [1, 8, 64]
    np.testing.assert_array_equal(batches[1][:3], FEATURES[:3])


@pytest.mark.parametrize("text", ["{}", "[]", "3", "not json", "[[1, 2], [3]]", "[[1, 2, 3]]"])
def test_invalid_input_example_refuses_model(text: str, tmp_path: Path) -> None:
    (tmp_path / "input_example.json").write_text(text)
    with pytest.raises((ModelRefused, InvalidInput)):
        list(warm_up_batches(model_without_feature_names(), tmp_path))
