"""Parsing of references, addresses and points in the past."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from fnmatch import fnmatchcase

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from rollforward import v1
from rollforward._transport.address import is_loopback, parse_address
from rollforward.errors import InvalidRequest
from rollforward.references import (
    AliasReference,
    DigestReference,
    RunReference,
    VersionReference,
    as_of,
    just_after,
    parse_alias,
    parse_aliases,
    parse_artifact,
    parse_filter,
    parse_scope,
    revision,
    version_number,
)

RUN = "0123456789abcdef" * 2
DIGEST = f"sha256:{'a' * 64}"


def reason_of(call: Callable[[], object]) -> str:
    with pytest.raises(InvalidRequest) as refused:
        call()
    return refused.value.reason


def test_alias_references_are_parsed() -> None:
    assert parse_alias("fraud detector@champion") == AliasReference("fraud detector", "champion")
    assert parse_aliases("fraud-detector") == AliasReference("fraud-detector", "")


@pytest.mark.parametrize(
    "text",
    ["", "@", "m@", "@a", "m@a@b", "models:/", "models:m@a", "models:/models:/m@a", "m/1@a", "m@a/b"],
)
def test_invalid_alias_reference_is_rejected(text: str) -> None:
    assert reason_of(lambda: parse_alias(text)) == "INVALID_REFERENCE"
    assert reason_of(lambda: parse_aliases(text)) == "INVALID_REFERENCE"


def test_alias_filters_are_parsed() -> None:
    assert parse_filter("") == AliasReference("", "")
    assert parse_filter("m") == AliasReference("m", "")
    assert parse_filter("m@a") == AliasReference("m", "a")
    assert parse_filter("@a") == AliasReference("", "a")


@pytest.mark.parametrize("text", ["@", "m@", "m@a@b", "@a@b", "m/1"])
def test_invalid_alias_filter_is_rejected(text: str) -> None:
    assert reason_of(lambda: parse_filter(text)) == "INVALID_REFERENCE"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("m@a", ("m", "a")),
        ("m", ("m", "*")),
        ("*", ("*", "*")),
        ("fraud-*@champion", ("fraud-*", "champion")),
        ("m@prod-?", ("m", "prod-?")),
        ("m[1]@a*", ("m[[]1]", "a*")),
        ("m[12]*", ("m[12]*", "*")),
        ("m[*]@a", ("m[*]", "a")),
        ("m[?]", ("m[?]", "*")),
    ],
)
def test_scope_is_a_pattern_only_if_it_has_wildcards(text: str, expected: tuple[str, str]) -> None:
    assert parse_scope(text) == expected


@given(st.text(st.characters(blacklist_characters="/:@*?", blacklist_categories=["Cc", "Cs"]), min_size=1))
def test_name_without_wildcards_matches_only_itself(name: str) -> None:
    models, _ = parse_scope(f"{name}@a")
    assert fnmatchcase(name, models)
    assert not fnmatchcase(f"{name}x", models)


def test_just_after_adds_a_nanosecond() -> None:
    assert just_after(Timestamp(seconds=5, nanos=7)) == Timestamp(seconds=5, nanos=8)
    assert just_after(Timestamp(seconds=5, nanos=999_999_999)) == Timestamp(seconds=6)


def test_model_without_alias_is_rejected_where_one_alias_is_expected() -> None:
    assert reason_of(lambda: parse_alias("fraud-detector")) == "INVALID_REFERENCE"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models:/m@champion", AliasReference("m", "champion")),
        ("models:/m/3", VersionReference("m", 3)),
        (f"runs:/{RUN}/model/a", RunReference(RUN, "model/a")),
        (f"runs:/{RUN}", RunReference(RUN, "")),
        (DIGEST, DigestReference(DIGEST)),
    ],
)
def test_artifact_references_are_parsed(text: str, expected: object) -> None:
    assert parse_artifact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m@a",
        "models:m@a",
        "models:/m",
        "models:/m/0",
        "models:/m/v3",
        "models:/m/-1",
        "models:/m/99999999999",
        "models:/m/3/x",
        "models:/m/٣",
        "runs:/xyz/model",
        f"runs:/{RUN.upper()}/model",
        "sha256:abc",
        DIGEST.upper(),
        f"{DIGEST}\n",
    ],
)
def test_invalid_artifact_reference_is_rejected(text: str) -> None:
    assert reason_of(lambda: parse_artifact(text)) == "INVALID_REFERENCE"


def test_points_in_the_past_are_parsed() -> None:
    nine = datetime(2026, 11, 3, 14, 0, tzinfo=UTC)
    assert as_of(None) is None
    assert as_of(17) == as_of("17") == v1.AsOf(position=17)
    for past in ("2026-11-03T14:00Z", "2026-11-03t14:00:00z", "2026-11-03 15:00:00.0+01:00", nine):
        assert as_of(past) == v1.AsOf(time=Timestamp(seconds=int(nine.timestamp())))
    exact = as_of("2026-11-03T14:00:00.123456789Z")
    assert exact is not None
    assert exact.time.nanos == 123456789


@given(st.datetimes(timezones=st.timezones() | st.just(timezone(timedelta(hours=-3)))))
def test_datetime_keeps_its_instant(moment: datetime) -> None:
    if moment.year in {1, 9999}:
        return  # another zone moves the first and last days out of the calendar
    found = as_of(moment)
    assert found is not None
    assert found.time.ToDatetime(tzinfo=UTC) == moment.astimezone(UTC)


@pytest.mark.parametrize(
    "past",
    [
        datetime(2026, 11, 3),  # noqa: DTZ001 - that is the point
        "2026-11-03",
        "2026-11-03T14:00",
        "2026-13-03T14:00Z",
        "2026-11-03T14:00:60Z",
        "2026-11-03T14:00.5Z",
        "yesterday",
        "",
        "-1",
        "0001-01-01T00:00+14:00",
    ],
)
def test_invalid_time_or_time_without_zone_is_rejected(past: datetime | str) -> None:
    assert reason_of(lambda: as_of(past)) == "INVALID_TIME"


@pytest.mark.parametrize("number", [-1, 2**64, True, 1.5])
def test_revision_that_is_no_whole_number_is_rejected(number: int) -> None:
    assert reason_of(lambda: revision(number)) == "INVALID_REVISION"
    assert reason_of(lambda: as_of(number)) == "INVALID_REVISION"


def test_version_numbers_are_parsed() -> None:
    assert version_number("m", "3") == version_number("m", "v3") == version_number("m", "V3") == 3
    assert version_number("m", 3) == version_number("m", v1.Version(model="m", version=3)) == 3
    wrong: list[v1.Version | int] = [v1.Version(model="other", version=3), 0, True, 2**32]
    for version in wrong:
        assert reason_of(lambda given=version: version_number("m", given)) == "INVALID_VERSION"  # type: ignore[misc]


def test_addresses_are_parsed() -> None:
    assert set(parse_address("localhost:50051").values()) == {"localhost:50051"}
    assert parse_address("tracking=a:1, registry=[::1]:2") == {"tracking": "a:1", "registry": "[::1]:2"}


@pytest.mark.parametrize(
    "address",
    ["", "localhost", "host:0", "host:65536", "http://host:1", "registry=a:1,registry=b:1", "nats=a:1", "tracking="],
)
def test_invalid_address_is_rejected(address: str) -> None:
    assert reason_of(lambda: parse_address(address)) == "INVALID_ADDRESS"


HERE = [
    *("localhost:1", "LOCALHOST:1", "localhost.:1", "app.localhost:1", "localhost.localdomain:1", "ip6-localhost:1"),
    *(
        "127.0.0.1:1",
        "127.8.9.10:1",
        "127.1:1",
        "2130706433:1",
        "0x7f000001:1",
        "0x7f.1:1",
        "0177.0.0.1:1",
        "0.0.0.0:1",
    ),
    *("[::1]:1", "[0:0:0:0:0:0:0:1]:1", "[::ffff:127.0.0.1]:1", "[::ffff:7f00:1]:1", "[::1%lo]:1", "[::]:1"),
    *("localhost", "127.0.0.1", "[::1]", "::1", "user:word@localhost:1"),
]
ELSEWHERE = [
    *("example.com:1", "127.example.com:1", "localhost.example.com:1", "notlocalhost:1", "10.0.0.1:1", "128.0.0.1:1"),
    *(
        "[2001:db8::1]:1",
        "[::ffff:10.0.0.1]:1",
        "1270.0.0.1:1",
        "localhost@example.com:1",
        "",
        "face:1",
        "127.0.0.1.2:1",
    ),
]


@pytest.mark.parametrize("endpoint", HERE)
def test_loopback_endpoint_is_recognized_in_any_spelling(endpoint: str) -> None:
    assert is_loopback(endpoint)


@pytest.mark.parametrize("endpoint", ELSEWHERE)
def test_remote_endpoint_is_not_loopback(endpoint: str) -> None:
    assert not is_loopback(endpoint)
