"""Searches return the same as MLflow's for the same queries, or both reject them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from tests.model.both_stores import REFUSED, BothStores, Model, Run, place
from tests.model.searches import (
    TAGS,
    experiment_comparisons,
    filters,
    model_comparisons,
    models,
    run_comparisons,
    run_orders,
    runs,
    some,
    texts,
)

# Libraries that MLflow brings along warn of one another; to import them takes long.
pytestmark = [pytest.mark.filterwarnings("default"), pytest.mark.timeout(600), pytest.mark.xdist_group("mlflow")]

Orders = list[tuple[str, str, str]]

generated = settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothStores]:
    """Yield both stores, empty."""
    stores = BothStores(tmp_path_factory.mktemp("both"))
    yield stores
    stores.close()


def value_of(run: Run, where: str, key: str) -> Any:
    """Return the value that a run is sorted by."""
    if where:
        return getattr(run, where).get(key)
    return getattr(run, {"run_name": "name", "created": "start_time"}.get(key, key))


def places(run: Run, orders: Orders) -> list[tuple[int, Any]]:
    """Return the sort key of a run: equal for runs that may come in any order."""
    named = [(text.lower().endswith("desc"), where, key) for text, where, key in orders] or [(True, "", "start_time")]
    return [place(value_of(run, where, key), descending=descending) for descending, where, key in named]


@generated
@given(
    some_runs=st.lists(runs(), min_size=3, max_size=6),
    statements=st.lists(st.tuples(filters(run_comparisons()), run_orders()), min_size=20, max_size=30),
)
def test_random_run_searches_agree(
    both: BothStores, some_runs: list[Run], statements: list[tuple[str, Orders]]
) -> None:
    home = both.experiment()
    laid = {both.lay_run(home, run): run for run in some_runs}
    for asked, orders in statements:
        theirs, ours = both.runs(home, asked, [text for text, _, _ in orders])
        note(f"{asked!r} {orders!r}\n{[laid.get(one) for one in theirs]}\n{[laid.get(one) for one in ours]}")
        assert sorted(theirs) == sorted(ours)
        if theirs != REFUSED:
            assert [places(laid[one], orders) for one in theirs] == [places(laid[one], orders) for one in ours]


@pytest.fixture(scope="module")
def laid(both: BothStores) -> dict[str, str]:
    """Create runs that differ in every field; return their ids and their experiment's."""
    home = both.experiment()
    metrics = {"acc": 0.5, "val/loss": 1.0, "same": 1.0}
    a = Run("a", "FINISHED", 1, 5, "ann", metrics, {"lr": "a", "a-b": "x"}, {"team": "x"}, (("iris", "1", "t"),))
    b = Run("b", start_time=2, metrics={"acc": math.nan, "same": 1.0}, params={"lr": "it's", "part": "a%"})
    c = Run("c", "FAILED", 0, 9, metrics={"acc": math.inf})
    return {"home": home, **{both.lay_run(home, run): run.name for run in (a, b, c)}}


@pytest.fixture(scope="module")
def home(laid: dict[str, str]) -> str:
    """Return the experiment of the runs that differ in every field."""
    return laid["home"]


@pytest.mark.parametrize(
    "asked",
    [
        "metrics.acc LIKE 'x'",
        "metrics.acc = '1'",
        "metrics.acc = x",
        "metrics.acc IS NULL",
        "metrics.acc IN (1)",
        "metrics.acc > 0x10",
        "metrics.acc BETWEEN 0 AND 1",
        "metrics = 1",
        "metrics.acc",
        "metrics.acc >",
        "metrics.acc > 1 OR metrics.acc < 0",
        "Metrics.acc > 1",
        "acc > 1",
        "params.lr = 1",
        "params.lr > 'a'",
        "params.lr = a",
        "params.lr = `a`",
        "params.lr == 'a'",
        "params.lr <> 'a'",
        "params.lr ~ 'a'",
        "params.lr = 'a",
        "params.lr IS 'a'",
        "params.lr NOT NULL",
        "(params.lr = 'a')",
        "NOT params.lr = 'a'",
        "status IS NULL",
        "status > 'A'",
        "status = RUNNING",
        "start_time = '1'",
        "start_time LIKE '1'",
        "start_time IN (1)",
        "run_id IN ()",
        "run_id IN 'a'",
        "run_id IN ('a', 1)",
        "datasets.schema = 'x'",
        "datasets.name > 'x'",
        "datasets.name IS NULL",
        "nothing = 'x'",
        "nothing.at = 'x'",
        "'a' = params.lr",
        "params.lr = 'a'; params.lr = 'a'",
    ],
)
def test_both_reject_invalid_filters(both: BothStores, home: str, asked: str) -> None:
    assert both.runs(home, asked, []) == (REFUSED, REFUSED)


@pytest.mark.parametrize(
    "order",
    ["metrics.acc UP", "nothing", "metrics", "datasets.name", "metrics.acc DESC ASC", "DESC", "acc", "Metrics.acc"],
)
def test_both_reject_invalid_orders(both: BothStores, home: str, order: str) -> None:
    assert both.runs(home, "", [order]) == (REFUSED, REFUSED)


def test_both_reject_duplicate_order_fields(both: BothStores, home: str) -> None:
    assert both.runs(home, "", ["created", "start_time DESC"]) == (REFUSED, REFUSED)
    assert both.runs(home, "", ["metric.acc", "metrics.`acc`"]) == (REFUSED, REFUSED)


REFUSES = "refused"
DIFFERENCES = {
    "a number may have a plus sign": ("metrics.acc < +1", REFUSES, "a"),
    "an exponent may have a plus sign": ("metrics.acc < 1e+2", REFUSES, "a"),
    "a quote within a text is doubled": ("params.lr = 'it''s'", "", "b"),
    "a sign of a pattern stands for itself behind a backslash": (r"params.part LIKE 'a\%'", "", "b"),
    "every text can be compared with a list": ("params.lr IN ('a') AND run_name NOT IN ('b')", REFUSES, "a"),
    "a bare key may have slashes and dashes": ("metrics.val/loss = 1 AND params.a-b = 'x'", REFUSES, "a"),
    "a kind may stand in double quotes": ("\"params\".lr = 'a'", REFUSES, "a"),
    "infinity is not the greatest number": ("metrics.acc > 1.7976931348623157e308", "", "c"),
    "the actor is a field": ("actor = 'ann'", REFUSES, "a"),
    "the parent is a field": ("parent_run_id != ''", REFUSES, ""),
    "AND must not stand first": ("AND params.lr = 'a'", "a", REFUSES),
    "AND must not stand last": ("params.lr = 'a' AND", "a", REFUSES),
    "AND must not stand twice": ("params.lr = 'a' AND AND params.lr = 'a'", "a", REFUSES),
    "AND must not be missing": ("params.lr = 'a' params.lr = 'a'", "a", REFUSES),
    "artifact_uri is an address": ("artifact_uri LIKE 'runs:/%'", "", "abc"),
}
"""The intended differences, as in docs/search.md: a filter, MLflow's result, and ours."""


@pytest.mark.parametrize("name", DIFFERENCES)
def test_known_differences_of_run_searches(both: BothStores, laid: dict[str, str], name: str) -> None:
    asked, *expected = DIFFERENCES[name]
    found = [
        REFUSES if answer == REFUSED else "".join(sorted(laid[one] for one in answer))
        for answer in both.runs(laid["home"], asked, [])
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("orders", "theirs", "ours"),
    [
        (["metrics.same"], "bac", "abc"),  # equal ones: MLflow's newest first, ours in the direction of the order
        (["metrics.same DESC"], "bac", "bac"),
        (["metrics.val/loss"], REFUSES, "abc"),
    ],
)
def test_known_differences_of_orders(
    both: BothStores, laid: dict[str, str], orders: list[str], theirs: str, ours: str
) -> None:
    answers = both.runs(laid["home"], "", orders)
    assert ["".join(laid.get(one, one) for one in answer) for answer in answers] == [theirs, ours]


@pytest.mark.parametrize(
    ("asked", "theirs", "ours"),
    [
        ("experiment_id = 'x'", REFUSES, ""),  # an id is a text like any other
        ("name ilike 'ODD ONE'", REFUSES, "odd one"),
        ("name IN ('odd one')", REFUSES, "odd one"),
        ("name = 'odd one' AND created > 0.5", REFUSES, "odd one"),
    ],
)
def test_known_differences_of_experiment_searches(
    both: BothStores, odd_one: str, asked: str, theirs: str, ours: str
) -> None:
    answers = both.experiments(asked, ["name"])
    assert ["".join(answer) for answer in answers] == [theirs, ours]


@pytest.fixture(scope="module")
def odd_one(both: BothStores) -> str:
    """Create an experiment with a logged model in it; return its name."""
    home = both.experiment("odd one")
    run_id = both.lay_run(home, Run("source"))
    points = {("acc", "", ""): 1.0, ("acc", "iris", "1"): 2.0}
    both.lay_model(home, run_id, Model("m", "tree", points, {"p": "1"}))
    return home


@pytest.mark.parametrize(
    ("asked", "theirs", "ours"),
    [
        ('name = "m"', 0, 1),  # MLflow keeps double quotes as part of the text
        ("status = 'PENDING'", 0, 1),  # MLflow compares its number with the text
        ("params.q IS NULL", None, 1),
        ("metric.acc = 2", None, 1),
        ("source_run_id != ''", 1, 1),
    ],
)
def test_known_differences_of_logged_model_searches(
    both: BothStores, odd_one: str, asked: str, theirs: int | None, ours: int
) -> None:
    answers = both.models(odd_one, asked, [], [])
    assert [None if answer == REFUSED else len(answer) for answer in answers] == [theirs, ours]


@generated
@given(
    lots=st.lists(some(TAGS, texts), min_size=1, max_size=3),
    names=st.lists(st.sampled_from(["run", "Run", "other"]), min_size=3, max_size=3),
    statements=st.lists(
        st.tuples(filters(experiment_comparisons()), st.sampled_from(["name", "name DESC", "experiment_id DESC"])),
        min_size=10,
        max_size=15,
    ),
)
def test_random_experiment_searches_agree(
    both: BothStores, lots: list[dict[str, str]], names: list[str], statements: list[tuple[str, str]]
) -> None:
    lot = both.experiment()
    for number, (tags, name) in enumerate(zip(lots, names, strict=False)):
        both.experiment(f"{name} {lot} {number}", {**tags, "lot": lot})
    for asked, order in statements:
        within = f"tags.lot = '{lot}'" + (f" AND {asked}" if asked else "")
        theirs, ours = both.experiments(within, [order])
        note(f"{within!r} {order!r}")
        assert theirs == ours


@generated
@given(
    some_models=st.lists(models(), min_size=1, max_size=4),
    statements=st.lists(
        st.tuples(
            filters(model_comparisons()),
            st.lists(
                st.tuples(st.sampled_from(["name", "model_type", "metrics.acc", "metrics.none"]), st.booleans()),
                max_size=2,
                unique_by=lambda one: one[0],
            ),
            st.lists(st.tuples(st.sampled_from(["iris", "x"]), st.sampled_from(["", "1"])), max_size=2),
        ),
        min_size=10,
        max_size=15,
    ),
)
def test_random_logged_model_searches_agree(both: BothStores, some_models: list[Model], statements: list[Any]) -> None:
    home = both.experiment()
    run_id = both.lay_run(home, Run("source"))
    laid = {both.lay_model(home, run_id, model): model for model in some_models}
    for asked, orders, datasets in statements:
        on = [] if any(name.startswith("metrics") for name, _ in orders) else datasets
        theirs, ours = both.models(home, asked, orders, on)
        note(f"{asked!r} {orders!r} {on!r}\n{[laid.get(one) for one in theirs]}\n{[laid.get(one) for one in ours]}")
        assert sorted(theirs) == sorted(ours)
        if theirs != REFUSED:
            assert [stands(laid[one], orders) for one in theirs] == [stands(laid[one], orders) for one in ours]


def stands(model: Model, orders: list[tuple[str, bool]]) -> list[tuple[int, Any]]:
    """Return the sort key of a logged model; for a metric, the last logged point counts."""
    found = []
    for name, descending in orders:
        field, _, key = name.partition(".")
        points = [value for (of, _, _), value in model.metrics.items() if of == key]
        value = (points[-1] if points else None) if key else getattr(model, field)
        found.append(place(value, descending=descending))
    return found
