"""MLflow's artifact repository over gRPC: files are stored by their digests, and verified when they are read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, NOT_IMPLEMENTED, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository as BaseRepository
from mlflow.store.artifact.artifact_repo import verify_artifact_path

from rollforward import v1
from rollforward._artifacts.trees import ArtifactTrees
from rollforward.mlflow.transport import Transport

_API: Final = "/api/2.0/mlflow-artifacts"


class ArtifactRepository(BaseRepository):  # type: ignore[misc]
    """The files below rollforward://HOST:PORT/PATH. Raises as `Transport`."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._transport = Transport(artifact_uri)
        self._root = urlsplit(artifact_uri).path.strip("/")

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Store a file below a path, under its own name."""
        verify_artifact_path(artifact_path)
        self._store(Path(local_file), self._below(artifact_path), only_file=True)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Store the files of a directory below a path."""
        verify_artifact_path(artifact_path)
        if any(path.is_file() for path in Path(local_dir).rglob("*")):
            self._store(Path(local_dir), self._below(artifact_path), only_file=False)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """Return the files and directories at a path."""
        answer = self._transport.send("GET", f"{_API}/artifacts", {"path": self._below(path)})
        parent = f"{path.strip('/')}/" if path and path.strip("/") else ""
        return [
            FileInfo(parent + entry["path"], entry["is_dir"], entry.get("file_size"))
            for entry in answer.get("files", [])
        ]

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Refuse: what is registered must stay; `rollforward artifacts gc` removes what nothing names."""
        message = f"artifacts are not deleted one by one: {artifact_path!r} stays until nothing names it"
        raise MlflowException(message, error_code=NOT_IMPLEMENTED)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        answer = self._transport.send("GET", f"{_API}/files", {"path": self._below(remote_file_path)})
        digest = next((entry["digest"] for entry in answer["files"] if not entry["path"]), None)
        if digest is None:
            raise MlflowException(f"no file at {remote_file_path!r}", error_code=RESOURCE_DOES_NOT_EXIST)
        connection, hashed = self._transport.connection, hashlib.sha256()
        with Path(local_path).open("wb") as file:
            for part in connection.stream(connection.artifacts.DownloadBlob, v1.DownloadBlobRequest(digest=digest)):
                hashed.update(part.chunk)
                file.write(part.chunk)
        if f"sha256:{hashed.hexdigest()}" != digest:
            message = f"{remote_file_path!r} arrived damaged: its digest is not {digest}"
            raise MlflowException(message, error_code=INTERNAL_ERROR)

    def _store(self, local: Path, path: str, *, only_file: bool) -> None:
        digest, _ = ArtifactTrees(self._transport.connection).upload(local, only_file=only_file)
        target: dict[str, Any] = {"path": path, "digest": digest}
        self._transport.send("POST", f"{_API}/link", target)

    def _below(self, path: str | None) -> str:
        return "/".join(part for part in (self._root, (path or "").strip("/")) if part)
