"""Large objects stay readable: models and versions with many aliases, deployments of many pods."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import rollforward as rf
from rollforward import v1
from tests.integration.cli.command_line import answer, program
from tests.integration.up import SECONDS, Up, new_id, up

SETS, PER_SET, PODS = 17, 1_000, 1_100
ERROR = "漢" * 1_000


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Run a system for this module alone."""
    with up(tmp_path_factory.mktemp("large") / "data") as services:
        yield services


@pytest.fixture(scope="module")
def client(system: Up) -> Iterator[rf.Client]:
    with rf.Client(system.address) as connection:
        yield connection


@pytest.fixture(scope="module")
def model(system: Up) -> str:
    """Create a model with more aliases, of the longest names, than fit in a response."""
    name = system.new_model(1)
    for number in range(SETS):
        aliases = (f"{'a' * 248}-{number:02}-{index:03}" for index in range(PER_SET))
        targets = [v1.AliasTarget(model=name, alias=alias, version=1) for alias in aliases]
        system.registry.MoveAliases(v1.MoveAliasesRequest(targets=targets), timeout=SECONDS)
    return name


def test_model_and_version_are_read_with_all_aliases(model: str, client: rf.Client, system: Up) -> None:
    found = system.registry.GetModel(v1.GetModelRequest(name=model), timeout=SECONDS).model
    assert found.more_aliases
    assert 0 < len(found.aliases) < SETS * PER_SET
    version = system.registry.GetVersion(v1.GetVersionRequest(model=model, version=1), timeout=SECONDS).version
    assert version.more_aliases
    listed = client.models.list(filter=f"name = '{model}'")
    for whole in (client.models.get(model), *listed):
        assert len({alias.alias for alias in whole.aliases}) == len(whole.aliases) == SETS * PER_SET
        assert not whole.more_aliases
    for complete in (client.versions.get(model, 1), *client.versions.list(model)):
        assert len(set(complete.aliases)) == len(complete.aliases) == SETS * PER_SET


def test_deployment_of_many_failing_pods_is_listed(client: rf.Client, system: Up) -> None:
    name = system.new_model(1)
    system.registry.MoveAlias(v1.MoveAliasRequest(model=name, alias="champion", version=1), timeout=SECONDS)
    client.models.get(name)
    target = v1.Target(model=name, alias="champion")
    alias = client.aliases.resolve(f"{name}@champion")
    assignment = v1.Assignment(target=target, version=1, digest=alias.digest, revision=alias.revision)
    pods = [new_id() for _ in range(PODS)]
    for pod in pods:
        started = v1.StartPodRequest(pod_id=pod, host="h", endpoint="e", targets=[target], request_id=new_id())
        client.connection.call(client.connection.serving.StartPod, started)
        refused = v1.AcknowledgeAssignmentRequest(pod_id=pod, assignment=assignment, error=ERROR, request_id=new_id())
        client.connection.call(client.connection.serving.AcknowledgeAssignment, refused)
    request = v1.ListDeploymentsRequest(model=name)
    pages = [client.connection.call(client.connection.serving.ListDeployments, request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(client.connection.call(client.connection.serving.ListDeployments, request))
    assert len(pages) > 1
    listed = [pod.pod_id for page in pages for deployment in page.deployments for pod in deployment.pods]
    assert sorted(listed) == sorted(pods)
    (deployment,) = client.deployments.list(name)
    assert sorted(pod.pod_id for pod in deployment.pods) == sorted(pods)
    (shown,) = answer(program(system.address)("deployments", "list", name, "-o", "json"))
    assert len(shown["pods"]) == PODS
    request = v1.ListDeploymentsRequest(model=name, page_token="?")
    assert system.refused(system.serving.ListDeployments, request).reason == "INVALID_PAGE"
