"""Generated runs, filters and orders, in the part of the grammar that MLflow and we share."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from hypothesis import strategies as st

from tests.model.both_stores import Model, Run

METRICS, PARAMS, TAGS = ("acc", "val/loss", "a b"), ("lr", "opt name", "x.y"), ("team", "a-b", "order")
NUMBERS = (-1.5, 0.0, 0.001, 0.5, 1.0, 2.5e10)
TEXTS = ("a", "A", "ab", "b%c", "b_c", "Ünï", "ü", "0.1", "[x]*?", "a and b")
PATTERNS = (*TEXTS, "%", "a%", "%B", "_", "__", "b_c", "%c", "Ü%", "%ï", "[%", "")
STATUSES = ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED")
NAMES = ("run", "Run", "other", "run 2")

texts = st.sampled_from(TEXTS)


def some(keys: Sequence[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, str]]:
    """Draw most of the keys with values."""
    return st.dictionaries(st.sampled_from(keys), values, min_size=len(keys) - 1, max_size=len(keys))


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Draw a run."""
    status = draw(st.sampled_from(STATUSES))
    used = st.tuples(st.sampled_from(["iris", "Iris", "x"]), st.sampled_from(["1", "2"]), st.sampled_from(["", "t"]))
    metrics = st.dictionaries(
        st.sampled_from(METRICS), st.sampled_from([*NUMBERS, math.nan, math.nan]), min_size=2, max_size=3
    )
    return Run(
        name=draw(st.sampled_from(NAMES)),
        status=status,
        start_time=draw(st.integers(0, 3)),
        end_time=draw(st.integers(3, 5)) if status in STATUSES[2:] else None,
        user_id=draw(st.sampled_from(["ann", "Bob"])),
        metrics=draw(metrics),
        params=draw(some(PARAMS, texts)),
        tags=draw(some(TAGS, texts)),
        datasets=tuple(draw(st.lists(used, max_size=2, unique_by=lambda one: one[:2]))),
    )


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Draw a logged model."""
    where = st.tuples(st.sampled_from(METRICS[:2]), st.sampled_from(["", "iris", "x"]), st.sampled_from(["", "1"]))
    return Model(
        name=draw(st.sampled_from(["m", "M", "n"])),
        model_type=draw(st.sampled_from(["", "tree", "net"])),
        metrics=draw(st.dictionaries(where, st.sampled_from(NUMBERS), max_size=3)),
        params=draw(some(PARAMS, texts)),
        tags=draw(some(TAGS, texts)),
    )


def spelled(draw: st.DrawFn, key: str) -> str:
    """Draw a spelling of a key, quoted if it must be."""
    quotes = ['"', "`"] + ([""] if re.fullmatch(r"[a-z]+(\.[a-z]+)?", key) else [])
    quote = draw(st.sampled_from(quotes))
    return f"{quote}{key}{quote}"


def number(draw: st.DrawFn, *, whole: bool = False) -> str:
    """Draw a number literal."""
    if whole:
        return str(draw(st.integers(-2, 6)))
    written = ["0", "1", "0.5", ".5", "1.", "-1.5", "1e-3", "5E-1", "2.5e10", "-0.0", "25000000000", "1e400", "-7"]
    return draw(st.sampled_from(written))


def text(draw: st.DrawFn, among: Sequence[str], quotes: str = "'\"") -> str:
    """Draw a quoted text."""
    quote = draw(st.sampled_from(quotes))
    return f"{quote}{draw(st.sampled_from(among))}{quote}"


def listed(draw: st.DrawFn, among: Sequence[str]) -> str:
    """Draw a list of texts."""
    many = draw(st.lists(st.sampled_from(among), min_size=1, max_size=3))
    return "(" + draw(st.sampled_from([", ", ",", " , "])).join(f"'{one}'" for one in many) + ")"


def compared(draw: st.DrawFn, left: str, among: Sequence[str], *, lists: bool, null: bool, quotes: str = "'\"") -> str:
    """Draw a comparison of texts."""
    kinds = ["equal", "like"] + ["list"] * lists + ["null"] * null
    match draw(st.sampled_from(kinds)):
        case "equal":
            sign = draw(st.sampled_from(["=", "!=", " = ", " != "]))
            return left + sign + text(draw, among, quotes)
        case "like":
            sign = draw(st.sampled_from(["LIKE", "ILIKE", "like", "ilike"]))
            return f"{left} {sign} {text(draw, [*PATTERNS, *among], quotes)}"
        case "list":
            return f"{left} {draw(st.sampled_from(['IN', 'NOT IN', 'in', 'not in']))} {listed(draw, among)}"
        case _:
            return f"{left} {draw(st.sampled_from(['IS NULL', 'IS NOT NULL', 'is null', 'is not null']))}"


def measured(draw: st.DrawFn, left: str, *, whole: bool = False) -> str:
    """Draw a comparison of numbers."""
    sign = draw(st.sampled_from(["=", "!=", "<", "<=", ">", ">="]))
    blank = draw(st.sampled_from(["", " "]))
    return f"{left}{blank}{sign} {number(draw, whole=whole)}"


@st.composite
def run_comparisons(draw: st.DrawFn) -> str:
    """Draw a comparison of runs that both understand."""
    return draw(st.one_of(_logged(), _attributes(), _datasets()))


@st.composite
def _logged(draw: st.DrawFn) -> str:
    match draw(st.sampled_from(["metric", "param", "tag"])):
        case "metric":
            kind = draw(st.sampled_from(["metric", "metrics"]))
            return measured(draw, f"{kind}.{spelled(draw, draw(st.sampled_from([*METRICS, 'none'])))}")
        case "param":
            kind = draw(st.sampled_from(["param", "params", "parameter", "parameters"]))
            left = f"{kind}.{spelled(draw, draw(st.sampled_from(PARAMS)))}"
        case _:
            left = f"{draw(st.sampled_from(['tag', 'tags']))}.{spelled(draw, draw(st.sampled_from(TAGS)))}"
    return compared(draw, left, TEXTS, lists=False, null=True)


@st.composite
def _attributes(draw: st.DrawFn) -> str:
    attribute = draw(st.sampled_from(["", "attribute.", "attributes.", "attr.", "run."]))
    match draw(st.sampled_from(["name", "status", "user_id", "time"])):
        case "name":
            names = ["run_name", "`run name`", '"Run name"', "`Run Name`"]
            left = draw(st.sampled_from([attribute + draw(st.sampled_from(names)), "tags.`mlflow.runName`"]))
            return compared(draw, left, NAMES, lists=False, null=left.startswith("tags"))
        case "time":
            names = ["start_time", "end_time", "created", "Created"]
            return measured(draw, attribute + draw(st.sampled_from(names)), whole=True)
        case field:
            among = STATUSES if field == "status" else ("ann", "Bob", "bob")
            return compared(draw, attribute + field, among, lists=False, null=False)


@st.composite
def _datasets(draw: st.DrawFn) -> str:
    part = draw(st.sampled_from(["name", "digest", "context"]))
    left = f"{draw(st.sampled_from(['dataset', 'datasets']))}.{part}"
    return compared(draw, left, ["iris", "Iris", "x", "1", "2", "t", "v"], lists=True, null=False)


@st.composite
def experiment_comparisons(draw: st.DrawFn) -> str:
    """Draw a comparison of experiments that both understand."""
    if draw(st.booleans()):
        left = f"{draw(st.sampled_from(['tag', 'tags']))}.{spelled(draw, draw(st.sampled_from(TAGS)))}"
        return _in_capitals(compared(draw, left, TEXTS, lists=False, null=True))
    left = draw(st.sampled_from(["name", "attribute.name", "`name`"]))
    return _in_capitals(compared(draw, left, ["run%", "Run%", "%1", "% 0", "other%_", "run"], lists=False, null=False))


def _in_capitals(comparison: str) -> str:
    # MLflow takes these operators of experiments in capitals only.
    return re.sub(r" (i?like|is null|is not null)(?= |$)", lambda found: found[0].upper(), comparison)


@st.composite
def model_comparisons(draw: st.DrawFn) -> str:
    """Draw a comparison of logged models that both understand."""
    match draw(st.sampled_from(["metrics", "params", "tags", "attribute"])):
        case "metrics":
            return measured(draw, f"metrics.{_in_ticks(draw, [*METRICS[:2], 'none'])}")
        case "params":
            return compared(draw, f"params.{_in_ticks(draw, PARAMS)}", TEXTS, lists=True, null=False, quotes="'")
        case "tags":
            return compared(draw, f"tags.{_in_ticks(draw, TAGS)}", TEXTS, lists=True, null=False, quotes="'")
        case _:
            left = draw(st.sampled_from(["name", "attributes.name", "model_type", "attributes.model_type"]))
            return compared(draw, left, ["m", "M", "n", "", "tree"], lists=True, null=False, quotes="'")


def _in_ticks(draw: st.DrawFn, keys: Sequence[str]) -> str:
    return f"`{draw(st.sampled_from(keys))}`"


def filters(comparisons: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Draw comparisons joined by AND."""
    return st.builds(
        lambda many, sign: sign.join(many),
        st.one_of(comparisons.map(lambda one: [one]), st.lists(comparisons, max_size=3)),
        st.sampled_from([" AND ", " and "]),
    )


@st.composite
def run_orders(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Draw orders of runs, each as its text, the kind of field and the key."""
    fields = st.one_of(
        st.tuples(st.sampled_from(["metric", "metrics"]), st.sampled_from(METRICS)),
        st.tuples(st.sampled_from(["param", "params", "parameter"]), st.sampled_from(PARAMS)),
        st.tuples(st.sampled_from(["tag", "tags"]), st.sampled_from(TAGS)),
        st.tuples(
            st.sampled_from(["", "attribute", "run"]),
            st.sampled_from(["start_time", "end_time", "status", "user_id", "run_name", "created"]),
        ),
    )
    found = []
    for kind, key in draw(st.lists(fields, max_size=2, unique_by=lambda one: (one[0][:1], one[1]))):
        where = {"m": "metrics", "p": "params", "t": "tags"}.get(kind[:1], "")
        left = f"{kind}.{spelled(draw, key)}" if where else f"{kind}.{key}" if kind else key
        found.append((left + draw(st.sampled_from(["", " ASC", " DESC", " desc"])), where, key))
    return found
