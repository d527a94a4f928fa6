"""Searching models and versions: SQLite and PostgreSQL agree, and pages miss nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from eventstore.errors import Rejected
from rollforward import v1
from services.registry.queries import models as queries
from tests.integration.databases import BOTH, place
from tests.integration.registry.registry_rows import BEGAN, RegistryRows, all_pages, digest, registry_rows

FIRST_MS = BEGAN // 1_000_000


@pytest.fixture(params=BOTH)
def rows(request: pytest.FixtureRequest) -> Iterator[RegistryRows]:
    """Yield empty rows."""
    with place(request) as location, registry_rows(location) as empty:
        yield empty


@pytest.fixture(scope="module", params=BOTH)
def models(request: pytest.FixtureRequest) -> Iterator[RegistryRows]:
    """Yield models that tests only read."""
    with place(request) as location, registry_rows(location) as empty:
        yield with_models(empty)


@pytest.fixture
def own_models(rows: RegistryRows) -> RegistryRows:
    """Return the same models, for a test that writes."""
    return with_models(rows)


def with_models(rows: RegistryRows) -> RegistryRows:
    """Create five models, a second apart."""
    rows.create("fraud-eu", team="risk", tier="1")
    rows.create("fraud_us", team="risk", note="it's [new]*")
    rows.create("Fraud", team="Risk")
    rows.create("iris", note="100%")
    rows.create("Ärger", team="plants")
    return rows


def list_models(
    rows: RegistryRows, filter_text: str = "", order_by: str = "", *, show_deleted: bool = False
) -> list[str]:
    """List models in pages of two and return their names."""

    def page(token: str) -> tuple[list[str], str]:
        request = v1.ListModelsRequest(
            filter=filter_text, order_by=order_by, show_deleted=show_deleted, page_size=2, page_token=token
        )
        found = rows.query(lambda connection: queries.list_models(connection, request))
        return [model.name for model in found.models], found.next_page_token

    return all_pages(page)


def list_versions(
    rows: RegistryRows, filter_text: str = "", order_by: str = "", model: str = ""
) -> list[tuple[str, int]]:
    """List versions in pages of two and return their models and numbers."""

    def page(token: str) -> tuple[list[tuple[str, int]], str]:
        request = v1.ListVersionsRequest(
            model=model, filter=filter_text, order_by=order_by, page_size=2, page_token=token
        )
        found = rows.query(lambda connection: queries.list_versions(connection, request))
        return [(version.model, version.version) for version in found.versions], found.next_page_token

    return all_pages(page)


@pytest.mark.parametrize(
    ("filter_text", "expected"),
    [
        ("", {"fraud-eu", "fraud_us", "Fraud", "iris", "Ärger"}),
        ("name = 'iris'", {"iris"}),
        ("name != 'iris'", {"fraud-eu", "fraud_us", "Fraud", "Ärger"}),
        ("name LIKE 'fraud%'", {"fraud-eu", "fraud_us"}),
        ("name LIKE '%R%'", set()),
        ("name ILIKE '%R%'", {"fraud-eu", "fraud_us", "Fraud", "iris", "Ärger"}),
        ("name ILIKE 'FRAUD%'", {"fraud-eu", "fraud_us", "Fraud"}),
        ("name ILIKE 'ä%'", set()),  # both ignore the case of A to Z only
        ("name LIKE 'fraud_%'", {"fraud-eu", "fraud_us"}),
        (r"name LIKE 'fraud\_%'", {"fraud_us"}),
        ("name LIKE '_rger'", {"Ärger"}),
        ("name LIKE 'fraud'", set()),
        ("name IN ('iris', 'Ärger', 'none')", {"iris", "Ärger"}),
        ("name NOT IN ('iris', 'Ärger')", {"fraud-eu", "fraud_us", "Fraud"}),
        ("tags.team = 'risk'", {"fraud-eu", "fraud_us"}),
        ("tags.team != 'risk'", {"Fraud", "Ärger"}),  # a missing tag matches nothing
        ("tags.team ILIKE 'RISK'", {"fraud-eu", "fraud_us", "Fraud"}),
        ("tags.team IN ('plants', 'Risk')", {"Fraud", "Ärger"}),
        ("tags.team IS NULL", {"iris"}),
        ('tags.tier IS NOT NULL AND tag.`team` = "risk"', {"fraud-eu"}),
        ("tags.note LIKE '%[new]*'", {"fraud_us"}),
        ("tags.note LIKE '%[n]%'", set()),
        ("tags.note LIKE '%\\%'", {"iris"}),
        ("tags.note = 'it''s [new]*'", {"fraud_us"}),
        (f"created = {FIRST_MS}", {"fraud-eu"}),
        (f"created < {FIRST_MS + 1000}.5", {"fraud-eu", "fraud_us"}),
        (f"created >= {FIRST_MS + 3000} AND updated <= {FIRST_MS + 3000}", {"iris"}),
        (f"creation_timestamp > {FIRST_MS} and name LIKE 'f%'", {"fraud_us"}),
        ("created < 1e400 AND created > -9e99", {"fraud-eu", "fraud_us", "Fraud", "iris", "Ärger"}),
        ("created > 99999999999999999999999", set()),
    ],
)
def test_models_are_filtered(models: RegistryRows, filter_text: str, expected: set[str]) -> None:
    assert list_models(models, filter_text) == sorted(expected)


def test_models_are_ordered(own_models: RegistryRows) -> None:
    own_models.append(v1.ModelDescribed(model="fraud-eu", to_description="Europe's."))
    for order_by, expected in {
        "": ["Fraud", "fraud-eu", "fraud_us", "iris", "Ärger"],
        "name DESC": ["Ärger", "iris", "fraud_us", "fraud-eu", "Fraud"],
        "created": ["fraud-eu", "fraud_us", "Fraud", "iris", "Ärger"],
        "creation_timestamp DESC": ["Ärger", "iris", "Fraud", "fraud_us", "fraud-eu"],
        "updated desc": ["fraud-eu", "Ärger", "iris", "Fraud", "fraud_us"],
        "updated ASC, name DESC": ["fraud_us", "Fraud", "iris", "Ärger", "fraud-eu"],
    }.items():
        assert list_models(own_models, order_by=order_by) == expected


def test_deleted_models_are_listed_on_request(own_models: RegistryRows) -> None:
    own_models.append(v1.ModelDeleted(model="iris"))
    assert "iris" not in list_models(own_models)
    assert "iris" in list_models(own_models, show_deleted=True)
    assert own_models.query(lambda connection: queries.model(connection, "iris")).HasField("deleted_at")
    own_models.append(v1.ModelRestored(model="iris"))
    assert "iris" in list_models(own_models)
    assert not own_models.query(lambda connection: queries.model(connection, "iris")).HasField("deleted_at")


def test_former_names_are_rejected_with_current_name(own_models: RegistryRows) -> None:
    own_models.register("iris")
    own_models.move("iris", "champion", 1)
    own_models.rename("iris", "flowers")
    revision = own_models.rename("flowers", "plants")
    found = own_models.query(lambda connection: queries.model(connection, "plants"))
    assert (found.name, list(found.former_names)) == ("plants", ["iris", "flowers"])
    assert (found.revision, found.latest_version) == (revision, 1)
    assert [(alias.model, alias.alias, alias.version) for alias in found.aliases] == [("plants", "champion", 1)]
    assert own_models.query(lambda connection: queries.version(connection, "plants", 1)).model == "plants"
    for former in ("iris", "flowers"):
        with pytest.raises(Rejected) as refused:
            own_models.query(lambda rows, former=former: queries.model(rows, former))  # type: ignore[misc]
        assert refused.value.reason == "MODEL_RENAMED"
        assert refused.value.metadata == {"model": former, "renamed_to": "plants"}
    assert "plants" in list_models(own_models)
    assert "iris" not in list_models(own_models)


def test_unknown_model_is_not_found(models: RegistryRows) -> None:
    with pytest.raises(Rejected) as refused:
        models.query(lambda connection: queries.model(connection, "nobody"))
    assert refused.value.reason == "MODEL_NOT_FOUND"


def test_tags_are_set_changed_and_removed(own_models: RegistryRows) -> None:
    changes = [
        v1.TagChange(key="team", from_value="risk", to_value="fraud"),
        v1.TagChange(key="tier", from_value="1"),
        v1.TagChange(key="new", to_value=""),
    ]
    own_models.append(v1.ModelTagsChanged(model="fraud-eu", changes=changes))
    assert dict(own_models.query(lambda connection: queries.model(connection, "fraud-eu")).tags) == {
        "team": "fraud",
        "new": "",
    }
    assert list_models(own_models, "tags.team = 'fraud'") == list_models(own_models, "tags.new = ''") == ["fraud-eu"]


def test_long_tag_is_found(rows: RegistryRows) -> None:
    value = "".join(random.Random(1).choices("äbcdefgh", k=5000))
    rows.create("iris", note=value)
    rows.register("iris", note=value)
    assert list_models(rows, f"tags.note = '{value}'") == ["iris"]
    assert list_versions(rows, f"tags.note = '{value}'") == [("iris", 1)]


@pytest.mark.parametrize("order_by", ["", "name DESC", "created DESC", "updated", "updated DESC"])
def test_pages_miss_no_model_despite_writes(rows: RegistryRows, order_by: str) -> None:
    rng = random.Random(order_by)
    existing = [f"m{number:02}" for number in range(30)]
    for name in rng.sample(existing, len(existing)):
        rows.create(name, team="risk")
    seen: list[str] = []
    token = ""
    for step in range(200):
        request = v1.ListModelsRequest(order_by=order_by, filter="tags.team = 'risk'", page_size=3, page_token=token)
        page = rows.query(lambda connection, request=request: queries.list_models(connection, request))  # type: ignore[misc]
        seen += [model.name for model in page.models]
        token = page.next_page_token
        if not token:
            break
        if step < 15:
            rows.create(f"new{step}", team="risk")
            touched = rng.sample(existing, 2)
            rows.append(*(v1.ModelDescribed(model=name, to_description=str(step)) for name in touched))
    assert not token
    assert set(existing) <= set(seen)
    if "updated" not in order_by:
        assert len(seen) == len(set(seen))


def test_token_of_other_listing_is_rejected(models: RegistryRows) -> None:
    def page(**fields: object) -> v1.ListModelsResponse:
        request = v1.ListModelsRequest(page_size=2, **fields)  # type: ignore[arg-type]
        return models.query(lambda connection: queries.list_models(connection, request))

    token = page().next_page_token
    assert page(page_token=token).models
    for other in ({"filter": "name != 'x'"}, {"order_by": "name DESC"}, {"show_deleted": True}):
        with pytest.raises(Rejected) as refused:
            page(page_token=token, **other)
        assert refused.value.reason == "INVALID_PAGE"


@pytest.fixture(scope="module", params=BOTH)
def versions(request: pytest.FixtureRequest) -> Iterator[RegistryRows]:
    """Yield versions that tests only read."""
    with place(request) as location, registry_rows(location) as empty:
        yield with_versions(empty)


@pytest.fixture
def own_versions(rows: RegistryRows) -> RegistryRows:
    """Return the same versions, for a test that writes."""
    return with_versions(rows)


def with_versions(rows: RegistryRows) -> RegistryRows:
    """Create two models, with three versions and one."""
    rows.create("fraud")
    rows.register("fraud", "a" * 32, team="risk")
    rows.register("fraud", "b" * 32, team="risk", note="x")
    rows.create("iris")
    rows.register("iris", "a" * 32)
    rows.register("fraud")
    rows.append(
        rows.moved("fraud", "champion", 2), rows.moved("fraud", "prod-eu", 2), rows.moved("iris", "champion", 1)
    )
    rows.append(v1.VersionStatusChanged(model="fraud", version=1, to_status=v1.VERSION_STATUS_FAILED))
    return rows


@pytest.mark.parametrize(
    ("filter_text", "order_by", "expected"),
    [
        ("", "", [("fraud", 3), ("iris", 1), ("fraud", 2), ("fraud", 1)]),
        ("", "name", [("fraud", 3), ("fraud", 2), ("fraud", 1), ("iris", 1)]),
        ("", "version DESC, name DESC", [("fraud", 3), ("fraud", 2), ("iris", 1), ("fraud", 1)]),
        ("", "created", [("fraud", 1), ("fraud", 2), ("iris", 1), ("fraud", 3)]),
        ("", "updated DESC", [("fraud", 1), ("fraud", 3), ("iris", 1), ("fraud", 2)]),
        ("name = 'fraud' AND version >= 2", "", [("fraud", 3), ("fraud", 2)]),
        (f"run_id = '{'a' * 32}'", "", [("iris", 1), ("fraud", 1)]),
        ("version_number < 1.5", "", [("iris", 1), ("fraud", 1)]),
        ("run_id = ''", "", [("fraud", 3)]),
        (f"digest IN ('{digest(2)}', '{digest(3)}')", "", [("fraud", 3), ("fraud", 2)]),
        ("status = 'READY'", "", [("fraud", 3), ("iris", 1), ("fraud", 2)]),
        ("status != 'READY'", "", [("fraud", 1)]),
        ("status ILIKE 'fail%'", "", [("fraud", 1)]),
        ("alias = 'champion'", "", [("iris", 1), ("fraud", 2)]),
        ("alias LIKE 'prod-%'", "", [("fraud", 2)]),
        ("alias != 'prod-eu'", "", [("fraud", 3), ("iris", 1), ("fraud", 1)]),
        ("tags.team = 'risk' AND tags.note IS NULL", "", [("fraud", 1)]),
    ],
)
def test_versions_are_filtered_and_ordered(
    versions: RegistryRows, filter_text: str, order_by: str, expected: list[tuple[str, int]]
) -> None:
    assert list_versions(versions, filter_text, order_by) == expected


def test_versions_of_one_model_are_listed(own_versions: RegistryRows) -> None:
    assert list_versions(own_versions, model="fraud") == [("fraud", 3), ("fraud", 2), ("fraud", 1)]
    own_versions.rename("fraud", "cards")
    assert list_versions(own_versions, model="cards", filter_text="name = 'cards'") == [
        ("cards", 3),
        ("cards", 2),
        ("cards", 1),
    ]
    for name, reason in {"nobody": "MODEL_NOT_FOUND", "fraud": "MODEL_RENAMED"}.items():
        with pytest.raises(Rejected) as refused:
            list_versions(own_versions, model=name)
        assert refused.value.reason == reason


def test_version_shows_its_changes(own_versions: RegistryRows) -> None:
    before = own_versions.query(lambda connection: queries.version(connection, "fraud", 2))
    assert (list(before.aliases), before.status) == (["champion", "prod-eu"], v1.VERSION_STATUS_READY)
    own_versions.append(v1.VersionDescribed(model="fraud", version=2, to_description="Better."))
    changes = [v1.TagChange(key="note", from_value="x"), v1.TagChange(key="team", from_value="risk", to_value="all")]
    own_versions.append(v1.VersionTagsChanged(model="fraud", version=2, changes=changes))
    own_versions.append(v1.VersionDeleted(model="fraud", version=2))
    after = own_versions.query(lambda connection: queries.version(connection, "fraud", 2))
    assert (after.description, dict(after.tags)) == ("Better.", {"team": "all"})
    assert after.deleted_at == after.updated_at
    assert after.updated_at.ToNanoseconds() > before.updated_at.ToNanoseconds()
    assert (after.revision, after.created_at, after.digest) == (before.revision, before.created_at, digest(2))
    assert ("fraud", 2) not in list_versions(own_versions)
    own_versions.append(v1.VersionRestored(model="fraud", version=2))
    assert ("fraud", 2) in list_versions(own_versions)


def test_versions_of_deleted_model_are_listed_only_by_model(own_versions: RegistryRows) -> None:
    own_versions.append(v1.ModelDeleted(model="iris"))
    assert ("iris", 1) not in list_versions(own_versions)
    assert list_versions(own_versions, model="iris") == [("iris", 1)]


def test_unknown_version_is_not_found(versions: RegistryRows) -> None:
    with pytest.raises(Rejected) as refused:
        versions.query(lambda connection: queries.version(connection, "fraud", 4))
    assert refused.value.reason == "VERSION_NOT_FOUND"


@pytest.mark.parametrize(
    ("listing", "reason"),
    [
        (v1.ListModelsRequest(filter="version = 1"), "INVALID_FILTER"),
        (v1.ListModelsRequest(order_by="version"), "INVALID_ORDER"),
        (v1.ListModelsRequest(page_token="x"), "INVALID_PAGE"),
    ],
)
def test_invalid_listing_is_rejected(models: RegistryRows, listing: v1.ListModelsRequest, reason: str) -> None:
    with pytest.raises(Rejected) as refused:
        models.query(lambda connection: queries.list_models(connection, listing))
    assert refused.value.reason == reason


def test_largest_filters_are_accepted(models: RegistryRows) -> None:
    many = " AND ".join(["name LIKE '%a%'"] * 100)
    assert set(list_models(models, many)) == {"Fraud", "fraud-eu", "fraud_us"}
    assert list_models(models, f"tags.note LIKE '{'%a' * 4000}'") == []
    listed = ",".join(f"'{number}'" for number in range(1500))
    assert list_models(models, f"name IN ({listed})") == []


def test_names_are_ordered_by_code_point(rows: RegistryRows) -> None:
    existing = ["a b", "a-b", "ab", "aB", "A", "ä", "z", "Ω", "😀", "\uffee"]
    for name in existing:
        rows.create(name)
    assert list_models(rows) == sorted(existing)
