#!/usr/bin/env bash
# skops 0.16.0, scikit-learn 1.9.1.
#
# A pipeline of scikit-learn's own estimators is dumped and loaded with skops, whose defaults trust scikit-learn.
# LogisticRegression alone loads with nothing named as trusted. With a SimpleImputer in front it is refused: the
# imputer keeps a numpy.dtype, which skops does not trust by default. A server with a fixed list of trusted types must
# name that one too.
#
# Seen: "LogisticRegression: untrusted []", "SimpleImputer, LogisticRegression: untrusted ['numpy.dtype']".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'skops==0.16.0' 'scikit-learn==1.9.1'
"$folder/venv/bin/python" - <<'PY'
import skops.io
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

rows, labels = [[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]
for steps, expected in (([LogisticRegression()], []), ([SimpleImputer(), LogisticRegression()], ["numpy.dtype"])):
    data = skops.io.dumps(make_pipeline(*steps).fit(rows, labels))
    untrusted = skops.io.get_untrusted_types(data=data)
    print(f"{', '.join(type(step).__name__ for step in steps)}: untrusted {untrusted}")
    assert untrusted == expected
    try:
        skops.io.loads(data, trusted=[])
    except Exception as error:
        assert expected, error
    else:
        assert not expected
PY
echo "as described"
