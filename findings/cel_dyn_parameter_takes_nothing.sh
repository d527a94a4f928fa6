#!/usr/bin/env bash
# cel-expr-python 0.1.3.
#
# A function of one's own is declared with a parameter of type DYN. Calls with a number and with a map compile, as a DYN
# parameter takes any type by CEL's rules of checking; their evaluation fails with "No matching overloads found". With a
# parameter of type LIST of DYN, the same values pass inside a list.
#
# Seen: "show(1.0): UNKNOWN: No matching overloads found : show(double)", the same for a map, "show_list([m]): 1".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q --disable-pip-version-check install 'cel-expr-python==0.1.3'
"$folder/venv/bin/python" - <<'PY'
from cel_expr_python import cel

show = cel.FunctionDecl("show", [cel.Overload("show_dyn", cel.Type.INT, [cel.Type.DYN], impl=lambda value: 1)])
listed = cel.Overload("show_list_dyn", cel.Type.INT, [cel.Type.List(cel.Type.DYN)], impl=lambda values: 1)
environment = cel.NewEnv(
    variables={"m": cel.Type.Map(cel.Type.STRING, cel.Type.DOUBLE)},
    functions=[show, cel.FunctionDecl("show_list", [listed])],
)


def outcome(expression: str) -> str:
    try:
        return str(environment.compile(expression).eval(data={"m": {"a": 1.0}}).value())
    except Exception as error:
        return str(error)


for expression in ("show(1.0)", "show(m)"):
    environment.compile(expression)
    print(f"{expression}: {outcome(expression)}")
    assert "No matching overloads found" in outcome(expression)
for expression in ("show_list([1.0])", "show_list([m])"):
    print(f"{expression}: {outcome(expression)}")
    assert outcome(expression) == "1"
PY
echo "as described"
