"""Record what MLflow's own server answers: `python -m tests.mlflow_rest.record URL > tests/mlflow_rest/recorded.json`.

URL is that of a fresh `mlflow server --backend-store-uri sqlite:///FILE --artifacts-destination DIR`.
"""

from __future__ import annotations

import json
import sys
from urllib.request import urlopen

from tests.mlflow_rest.play import play
from tests.mlflow_rest.steps.all_steps import all_steps


def main() -> None:
    """Play all requests, and print the answers."""
    (url,) = sys.argv[1:]
    with urlopen(f"{url}/version") as answer:  # noqa: S310 - the URL is the caller's own
        version = answer.read().decode()
    answers = [json.dumps(answer, ensure_ascii=False, sort_keys=True) for answer in play(url, all_steps())]
    print(json.dumps({"mlflow": version})[:-1] + ', "answers": [')
    print(",\n".join(answers))
    print("]}")


if __name__ == "__main__":
    main()
