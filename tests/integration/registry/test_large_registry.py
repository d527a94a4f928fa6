"""What was acknowledged can be read: models and versions with very many aliases, deployments of very many pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rollforward as rf
from rollforward import v1
from rollforward.operations import deployments
from tests.integration.cli.command_line import answer, program
from tests.integration.up import SECONDS, Up, new_id, up

SETS, PER_SET, PODS = 17, 1_000, 1_100
ERROR = "漢" * 1_000


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A system whose listings nobody else reads."""
    with up(tmp_path_factory.mktemp("large") / "data") as services:
        yield services


@pytest.fixture(scope="module")
def link(system: Up) -> Iterator[rf.Connection]:
    with rf.Connection(system.address) as connection:
        yield connection


@pytest.fixture(scope="module")
def model(system: Up) -> str:
    """A model with more aliases of the longest names than fit an answer."""
    name = system.new_model(1)
    for number in range(SETS):
        aliases = (f"{'a' * 248}-{number:02}-{one:03}" for one in range(PER_SET))
        targets = [v1.AliasTarget(model=name, alias=alias, version=1) for alias in aliases]
        system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS)
    return name


def test_a_model_and_a_version_are_read_with_all_aliases(model: str, link: rf.Connection, system: Up) -> None:
    found = system.registry.GetModel(v1.GetModelRequest(name=model), timeout=SECONDS).model
    assert found.more_aliases
    assert 0 < len(found.aliases) < SETS * PER_SET
    version = system.registry.GetVersion(v1.GetVersionRequest(model=model, version=1), timeout=SECONDS).version
    assert version.more_aliases
    listed = rf.list_models(filter=f"name = '{model}'", connection=link)
    for whole in (rf.get_model(model, connection=link), *listed):
        assert len({alias.alias for alias in whole.aliases}) == len(whole.aliases) == SETS * PER_SET
        assert not whole.more_aliases
    for one in (rf.get_version(model, 1, connection=link), *rf.list_versions(model, connection=link)):
        assert len(set(one.aliases)) == len(one.aliases) == SETS * PER_SET


def test_a_deployment_of_many_pods_that_refuse_is_listed(link: rf.Connection, system: Up) -> None:
    name = system.new_model(1)
    system.registry.MoveAlias(v1.MoveAliasRequest(model=name, alias="champion", version=1), timeout=SECONDS)
    rf.get_model(name, connection=link)
    target = v1.Target(model=name, alias="champion")
    alias = rf.resolve(f"{name}@champion", connection=link)
    wanted = v1.Assignment(target=target, version=1, digest=alias.digest, revision=alias.revision)
    pods = [new_id() for _ in range(PODS)]
    for pod in pods:
        deployments.start_pod(pod, host="h", endpoint="e", targets=[target], connection=link)
        deployments.acknowledge_assignment(pod, wanted, error=ERROR, connection=link)
    request = v1.ListDeploymentsRequest(model=name)
    pages = [link.call(link.serving.ListDeployments, request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(link.call(link.serving.ListDeployments, request))
    assert len(pages) > 1
    listed = [pod.pod_id for page in pages for deployment in page.deployments for pod in deployment.pods]
    assert sorted(listed) == sorted(pods)
    (deployment,) = rf.deployments(name, connection=link)
    assert sorted(pod.pod_id for pod in deployment.pods) == sorted(pods)
    (shown,) = answer(program(system.address)("deployments", "list", name, "-o", "json"))
    assert len(shown["pods"]) == PODS
    request = v1.ListDeploymentsRequest(model=name, page_token="?")
    assert system.refused(system.serving.ListDeployments, request).reason == "INVALID_PAGE"
