"""Both distributions, built as for a release: licence, metadata, versions and contents."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.timeouts import scaled

ROOT = Path(__file__).resolve().parents[3]
LICENSE = (ROOT / "LICENSE").read_text()
PROJECTS = {"rollforward": ROOT / "client/pyproject.toml", "rollforward-server": ROOT / "pyproject.toml"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [Path(sys.executable).with_name("uv"), "build", "--all-packages", "--offline", "--quiet", "-o", out]
    subprocess.run([str(part) for part in command], cwd=ROOT, check=True, capture_output=True, timeout=scaled(100))
    return out


def version() -> str:
    return str(tomllib.loads(PROJECTS["rollforward"].read_text())["project"]["version"])


def wheel(built: Path, name: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(built / f"{name.replace('-', '_')}-{version()}-py3-none-any.whl")


def sdist(built: Path, name: str) -> set[str]:
    with tarfile.open(built / f"{name.replace('-', '_')}-{version()}.tar.gz") as archive:
        return {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}


def metadata(built: Path, name: str) -> Message:
    with wheel(built, name) as archive:
        path = next(path for path in archive.namelist() if path.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(path).decode())


@pytest.mark.parametrize("name", PROJECTS)
def test_wheel_has_licence(name: str, built: Path) -> None:
    payloads = metadata(built, name)
    assert (payloads["License-Expression"], payloads["License-File"]) == ("Apache-2.0", "LICENSE")
    with wheel(built, name) as archive:
        path = next(path for path in archive.namelist() if path.endswith(".dist-info/licenses/LICENSE"))
        assert archive.read(path).decode() == LICENSE


@pytest.mark.parametrize("name", PROJECTS)
def test_metadata_is_complete_and_has_no_addresses(name: str, built: Path) -> None:
    payloads = metadata(built, name)
    assert (payloads["Author"], payloads["Author-email"]) == ("rollforward developers", None)
    assert payloads["Keywords"]
    classifiers = payloads.get_all("Classifier")
    assert classifiers is not None
    assert "Typing :: Typed" in classifiers
    assert payloads.get_all("Project-URL") is None


@pytest.mark.parametrize("name", PROJECTS)
def test_package_page_works_outside_repository(name: str, built: Path) -> None:
    page = str(metadata(built, name).get_payload())
    assert page.startswith(f"# {name}\n")
    assert "```sh\npip install" in page
    assert re.findall(r"\]\((?!https?://)", page) == []
    assert re.findall(r"^make ", page, re.MULTILINE) == []


def test_server_requires_client_of_same_version(built: Path) -> None:
    assert {metadata(built, name)["Version"] for name in PROJECTS} == {version()}
    required = metadata(built, "rollforward-server").get_all("Requires-Dist")
    assert required is not None
    assert f"rollforward[cli]=={version()}" in required


@pytest.mark.parametrize(
    ("name", "packages"), [("rollforward", ["rollforward"]), ("rollforward-server", ["eventstore", "services"])]
)
def test_packages_are_typed(name: str, packages: list[str], built: Path) -> None:
    with wheel(built, name) as archive:
        assert {f"{package}/py.typed" for package in packages} <= set(archive.namelist())


@pytest.mark.parametrize("name", PROJECTS)
def test_source_distribution_has_licence_and_changelog(name: str, built: Path) -> None:
    assert {"LICENSE", "CHANGELOG.md", "pyproject.toml"} <= sdist(built, name)


def test_source_distribution_of_server_has_tests_docs_and_protos(built: Path) -> None:
    files = sdist(built, "rollforward-server")
    assert {
        "README.md",
        "SECURITY.md",
        "CONTRIBUTING.md",
        "docs/cli.md",
        "tests/unit/distribution/test_distributions.py",
    } <= files
    assert "protos/rollforward/v1/registry_service.proto" in files
    assert not [path for path in files if "__pycache__" in path or path.startswith((".", "client/"))]


def test_changelog_has_release_or_unreleased_changes() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[(Unreleased|{re.escape(version())})\]", changelog, re.MULTILINE)
