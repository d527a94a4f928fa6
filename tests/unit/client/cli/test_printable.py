"""Escaping of foreign text for terminals and spreadsheets, and of file names for Windows."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward._artifacts.portable_names import check_writable, windows_fault
from rollforward._printable import csv_cell, printable, printable_json
from rollforward.cli.operations.event_export import write_csv, write_jsonl
from rollforward.cli.output.documents import dumps
from rollforward.cli.output.failures import print_error
from rollforward.errors import InvalidRequest

WILD = "a\rb\x1b[31m\u202e\u2066\u200bc\x7f\x9b\ue000\U000e0001"


@given(st.text())
def test_output_is_printable_and_plain_text_is_unchanged(text: str) -> None:
    assert printable(text).isprintable()
    assert (printable(text) == text) == text.isprintable()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_escaped_json_is_equivalent_and_printable(value: object) -> None:
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert shown.isprintable()
    assert json.loads(shown) == value
    assert json.loads(dumps(value, indent=2)) == value


def test_csv_export_has_no_control_characters() -> None:
    out = io.StringIO()
    event = v1.RecordedEvent(log="registry", actor=WILD, reason=f"{WILD}\nnext\tcolumn", stream="model/m")
    event.data.Pack(v1.ModelDescribed(model="m", to_description=WILD))
    write_csv([event], out)
    assert all(char.isprintable() or char in "\n\t" for char in out.getvalue().replace("\r\n", "\n"))
    (row,) = csv.DictReader(io.StringIO(out.getvalue(), newline=""))
    assert row["actor"] == r"a\rb\x1b[31m\u202e\u2066\u200bc\x7f\x9b\ue000\U000e0001"
    assert row["reason"].endswith("\nnext\tcolumn")
    assert json.loads(row["data"])["to_description"] == WILD
    lines = io.StringIO()
    write_jsonl([event], lines)
    assert json.loads(lines.getvalue())["reason"].startswith(WILD)


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "  =1", "\N{FULLWIDTH EQUALS SIGN}1", "=cmd|'/c calc'!A0"]
)
def test_csv_cell_is_never_a_formula(text: str) -> None:
    assert csv_cell(text).startswith("'")


@pytest.mark.parametrize("text", ["", "plain", "a=b", "1-1", "it's", 'Zoë, "x"', "two\nlines"])
def test_plain_csv_cell_is_unchanged(text: str) -> None:
    assert csv_cell(text) == text


def test_error_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(f"WRONG_REVISION: moved by {WILD}")
    written = capsys.readouterr().err
    assert written.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    "path",
    [
        *("CON", "con", "Con.txt", "dir/NUL", "aux.tar.gz", "COM1", "com9.log", "LPT0", "COM\N{SUPERSCRIPT ONE}"),
        *("PRN .txt", "CONIN$", "conout$", "C:/x", "a/b:stream", "what?", "a*b", "<x>", 'q"', "p|q", "end.", "end "),
        *("dir./file", "dir /file", "a\\b"),
    ],
)
def test_unsafe_path_is_rejected_on_windows(path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_writable(["fine", path], windows=True)
    assert (refused.value.reason, refused.value.metadata["path"]) == ("INVALID_PATH", path)
    check_writable([path], windows=False)


@pytest.mark.parametrize(
    "name", ["console", "con1", "nulls.txt", "COM", "COM10", "-rf", ".ssh", "a.b", "com-1", "lpt", "auxiliary", "ünï"]
)
def test_plain_name_is_accepted_on_windows(name: str) -> None:
    assert windows_fault(name) == ""
