"""Files through the proxy, and lists of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.mlflow_rest.steps.step import ARTIFACTS, NO_RUN, Step, get


def artifacts() -> Iterator[Step]:
    root = "/api/2.0/mlflow-artifacts/artifacts/$e0/$r0/artifacts"
    for path, text in (("a.txt", "hello"), ("dir/b.txt", "bee"), ("dir/deep/c.json", '{"c": 3}'), ("a.txt", "changed")):
        yield Step("PUT", f"{root}/{path}", text)
        yield Step("GET", f"{root}/{path}")
    yield Step("GET", f"{root}/nothing.txt")
    for path in ("", "dir", "dir/deep", "a.txt", "nothing"):
        below: dict[str, Any] = {"path": path} if path else {}
        yield get(f"{ARTIFACTS}/list", run_id="$r0", **below)
        yield get("/api/2.0/mlflow-artifacts/artifacts", path=f"$e0/$r0/artifacts/{path}".rstrip("/"))
    yield get(f"{ARTIFACTS}/list", run_id=NO_RUN)
    yield get(f"{ARTIFACTS}/list")
    yield get(f"{ARTIFACTS}/list", run_id="$r0", path="../..")
    yield get("/get-artifact", run_id="$r0", path="dir/b.txt")
