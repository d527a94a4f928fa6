"""The tables of tracking.

A run, and a logged model, is known in them by the position of the event that it began with: a number that is the same
in every rebuild, and shorter than its id.
"""

from __future__ import annotations

import sqlalchemy as sa

from services.sql.columns import TEXT

tables = sa.MetaData()

HEAD_CHARACTERS = 64
"""How much of a value is indexed: a whole one could be longer than PostgreSQL takes in an index."""

CHUNK_POINTS = 1024
"""How many points a whole chunk of a series has. They stand as they arrived, however they were cut into events and
batches."""

PIECE_POINTS = 64
"""How many points a chunk has behind the last whole one, but for the very last: what a single point has to rewrite.
When there are CHUNK_POINTS of them they become one whole chunk."""

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""The number that rows are known by; SQLite finds rows by such a primary key without an index."""

experiments = sa.Table(
    "experiments",
    tables,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Index("experiments_by_name", "name"),
)

# Written out, so that both databases see that the index answers the question.
WATCHED_OVER = sa.text("heartbeat AND status = 1 AND NOT deleted")
"""What holds of the runs whose jobs are watched over: they are RUNNING, and promised to stay in touch."""

runs = sa.Table(
    "runs",
    tables,
    sa.Column("run", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("run_id", TEXT, nullable=False, unique=True),
    sa.Column("experiment", sa.Integer, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("start_time", sa.BigInteger, nullable=False),
    sa.Column("end_time", sa.BigInteger),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("parent_run_id", TEXT, nullable=False),
    sa.Column("heartbeat", sa.Boolean, nullable=False),
    sa.Column("last_heard", sa.BigInteger),
    sa.Column("deleted", sa.Boolean, nullable=False),
    # What may be long stands last: a search need not read past it.
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("source", sa.LargeBinary, nullable=False),  # a RunSource
    sa.Index("runs_by_experiment", "experiment", "run"),
    sa.Index("runs_by_start", "experiment", "start_time", "run"),
    sa.Index("runs_by_end", "experiment", "end_time", "run"),
    sa.Index("runs_by_name", "experiment", "name", "run"),
    sa.Index("runs_by_status", "experiment", "status", "run"),
    sa.Index("runs_by_parent", "parent_run_id"),
    sa.Index("runs_watched_over", "run_id", sqlite_where=WATCHED_OVER, postgresql_where=WATCHED_OVER),
)


def _labels(name: str, owner: str) -> sa.Table:
    return sa.Table(
        name,
        tables,
        sa.Column(owner, sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("value", TEXT, nullable=False),
        sa.Column("head", TEXT, nullable=False),  # the first HEAD_CHARACTERS of the value
        sa.Index(f"{name}_by_value", "key", "head", owner),
        sqlite_with_rowid=False,
    )


params = _labels("params", "run")
tags = _labels("tags", "run")
experiment_tags = _labels("experiment_tags", "number")
model_params = _labels("logged_model_params", "model")
model_tags = _labels("logged_model_tags", "model")

artifacts = sa.Table(
    "artifacts",
    tables,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("path", TEXT, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("file_count", sa.Integer, nullable=False),
)

inputs = sa.Table(
    "run_inputs",
    tables,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", TEXT, primary_key=True),
    sa.Column("digest", TEXT, primary_key=True),
    sa.Column("context", TEXT, nullable=False),  # the tag of this name; empty without
    sa.Column("input", sa.LargeBinary, nullable=False),  # a DatasetInput
    sa.Index("run_inputs_by_name", "name", "run"),
)

outputs = sa.Table(
    "run_outputs",
    tables,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("model_id", TEXT, primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
)

# The summary of a series; NULL is NaN, which SQLite cannot hold.
metrics = sa.Table(
    "metrics",
    tables,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", TEXT, primary_key=True),
    sa.Column("experiment", sa.Integer, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double),
    sa.Column("least", sa.Double),
    sa.Column("greatest", sa.Double),
    sa.Column("points", sa.BigInteger, nullable=False),
    sa.Index("metrics_by_value", "experiment", "key", "value", "run"),
    sqlite_with_rowid=False,
)

# What a chart needs to know of a chunk stands before its points, so that it can be read without them.
chunks = sa.Table(
    "metric_chunks",
    tables,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", TEXT, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),  # of its first point, from 0
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("first_step", sa.BigInteger, nullable=False),
    sa.Column("last_step", sa.BigInteger, nullable=False),
    sa.Column("first_time", sa.BigInteger, nullable=False),
    sa.Column("last_time", sa.BigInteger, nullable=False),
    sa.Column("numbers", sa.Integer, nullable=False),  # how many of its values are numbers
    sa.Column("least", sa.Double),
    sa.Column("greatest", sa.Double),
    sa.Column("total", sa.Double),  # of the values that are numbers
    sa.Column("steps", sa.LargeBinary, nullable=False),
    sa.Column("timestamps", sa.LargeBinary, nullable=False),
    sa.Column("values", sa.LargeBinary, nullable=False),
)

models = sa.Table(
    "logged_models",
    tables,
    sa.Column("model", NUMBER, primary_key=True, autoincrement=False),
    sa.Column("model_id", TEXT, nullable=False, unique=True),
    sa.Column("experiment", sa.Integer, nullable=False),
    sa.Column("name", TEXT, nullable=False),
    sa.Column("model_type", TEXT, nullable=False),
    sa.Column("source_run_id", TEXT, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("file_count", sa.Integer, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.BigInteger, nullable=False),
    sa.Column("actor", TEXT, nullable=False),
    sa.Column("deleted", sa.Boolean, nullable=False),
    sa.Index("logged_models_by_experiment", "experiment", "model"),
    sa.Index("logged_models_by_run", "source_run_id"),
)

# The latest point of a metric that is about a logged model, of each run and dataset.
model_metrics = sa.Table(
    "logged_model_metrics",
    tables,
    sa.Column("model", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", TEXT, primary_key=True),
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("dataset_name", TEXT, primary_key=True),
    sa.Column("dataset_digest", TEXT, primary_key=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Double),
    sa.Index("logged_model_metrics_by_value", "key", "value", "model"),
)
