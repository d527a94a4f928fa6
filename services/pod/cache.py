"""A pod's directory: artifacts by their digest, verified whenever they are taken out, and the last known good state."""

import asyncio
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from google.protobuf import json_format

from eventstore import replace_durably
from rollforward.v1 import Assignment
from services.pod.models import ModelRefused

Fetch = Callable[[str, Path], Awaitable[None]]
"""Downloads the artifact of a digest into a new directory."""
Hash = Callable[[Path], str]
"""The digest of a directory; ValueError or OSError when it can have none."""

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class DigestMismatch(ModelRefused):
    """The files are not those that the digest names."""


class ArtifactCache:
    """Artifacts under `root`, one directory a digest; safe to share between pods."""

    def __init__(self, root: Path, fetch: Fetch, digest_of: Hash) -> None:
        self._root = root / "artifacts"
        self._fetch = fetch
        self._digest_of = digest_of
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, digest: str) -> Path:
        """Return the artifact's directory, its bytes verified now, downloaded when it is not there or was spoilt.

        Raises DigestMismatch and what the download raises.
        """
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise DigestMismatch(f"invalid digest {digest!r}: expected sha256: and 64 hex digits")
        path = self._root / match[1]
        async with self._locks[digest]:
            if not await asyncio.to_thread(self._holds, path, digest):
                await self._download(digest, path)
        return path

    async def _download(self, digest: str, path: Path) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=self._root, ignore_cleanup_errors=True) as folder:
            new = Path(folder, "artifact")
            await self._fetch(digest, new)
            if not await asyncio.to_thread(self._holds, new, digest):
                raise DigestMismatch(f"digest mismatch: the files downloaded for {digest} differ from it")
            await asyncio.to_thread(self._put, new, path, digest)

    def _put(self, new: Path, path: Path, digest: str) -> None:
        """Move the new directory into place; another process may have done the same a moment ago."""
        shutil.rmtree(path, ignore_errors=True)
        try:
            new.replace(path)
        except OSError:
            if not self._holds(path, digest):
                raise

    def _holds(self, path: Path, digest: str) -> bool:
        try:
            return path.is_dir() and self._digest_of(path) == digest
        except (OSError, ValueError):
            return False


class LastKnownGood:
    """What a pod serves, in `state.json`: it boots from it when no service answers.

    `server` is the address that the assignments came from: revisions of another registry mean nothing here.
    """

    def __init__(self, root: Path, server: str) -> None:
        self._path = root / "state.json"
        self._server = server
        self._lock = asyncio.Lock()

    def read(self) -> list[Assignment]:
        """Return the assignments last written for this server; none when there is no file that can be read."""
        try:
            state = json.loads(self._path.read_bytes())
            if state["server"] != self._server:
                return []
            return [json_format.ParseDict(entry, Assignment()) for entry in state["assignments"]]
        except (FileNotFoundError, ValueError, KeyError, TypeError, json_format.ParseError):
            return []

    async def write(self, assignments: Iterable[Assignment]) -> None:
        """Replace the entries of these assignments' aliases, all at once; other pods' entries stay."""
        new = list(assignments)
        async with self._lock:
            await asyncio.to_thread(self._write, new)

    def _write(self, assignments: list[Assignment]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            # Without it, pods that share the directory would put back what the others have replaced meanwhile.
            fcntl.flock(folder, fcntl.LOCK_EX)
            self._replace(assignments)
        finally:
            os.close(folder)

    def _replace(self, assignments: list[Assignment]) -> None:
        merged = {(entry.target.model, entry.target.alias): entry for entry in [*self.read(), *assignments]}
        state = {"server": self._server, "assignments": [json_format.MessageToDict(entry) for entry in merged.values()]}
        replace_durably(self._path, [json.dumps(state, indent=1).encode()])
