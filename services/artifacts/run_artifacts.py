"""Directories of runs: what artifacts hold at a path at which none was logged by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from rollforward import v1
from services.artifacts.manifests import load, save
from services.artifacts.store import BlobStore


async def compose(store: BlobStore, artifacts: Mapping[str, str], path: str) -> str | None:
    """Store the tree of files that a run has at a path, and return its digest; None when there is nothing.

    It is a part of the artifact with the longest path above, else all artifacts below as one tree.

    Args:
        store: Where artifacts are.
        artifacts: The digests of the run's artifacts, by path.
        path: A path at which no artifact was logged.

    Raises:
        Rejected: As `save`: INVALID_PATH when artifacts below collide.
    """
    above = (name for name in artifacts if not name or path.startswith(f"{name}/"))
    for name in sorted(above, key=len, reverse=True):
        rest = path.removeprefix(name).removeprefix("/")
        if part := dict(_part(await load(store, artifacts[name]), rest)):
            return await _save(store, part)
    tree: dict[str, v1.ManifestFile] = {}
    for name in sorted(name for name in artifacts if not path or name.startswith(f"{path}/")):
        place = name.removeprefix(path).removeprefix("/")
        # Of two artifacts with a file at one path the one that was logged nearer to it counts.
        tree |= _placed(await load(store, artifacts[name]), place)
    return await _save(store, tree) if tree else None


def _part(manifest: v1.Manifest, path: str) -> Iterator[tuple[str, v1.ManifestFile]]:
    """Yield the file at a path by its name, or the files below a directory by their paths in it."""
    for file in manifest.files:
        if file.path == path:
            yield PurePosixPath(path).name, file
        elif file.path.startswith(f"{path}/"):
            yield file.path.removeprefix(f"{path}/"), file


def _placed(manifest: v1.Manifest, place: str) -> dict[str, v1.ManifestFile]:
    """Return the files of an artifact by their paths in a tree that has it at a place."""
    if [file.path for file in manifest.files] == [PurePosixPath(place).name]:
        # A file that was logged by itself: the artifact has its name.
        return {place: manifest.files[0]}
    return {f"{place}/{file.path}": file for file in manifest.files}


async def _save(store: BlobStore, files: Mapping[str, v1.ManifestFile]) -> str:
    manifest = v1.Manifest()
    for path, file in sorted(files.items()):
        manifest.files.add(path=path, size_bytes=file.size_bytes, digest=file.digest)
    return await save(store, manifest)
