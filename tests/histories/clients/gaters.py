"""A client that moves a gated alias and changes the gate, while others use the registry."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

from rollforward import Client, new_request_id, v1
from rollforward._series import Columns
from tests.histories.clients.requests import send
from tests.histories.clients.trackers import run_id
from tests.histories.recorded.recording import OK, UNKNOWN
from tests.histories.recorded.subjects import EvidenceCheck, GateMove

SCORES = (0.2, 0.6, 0.9)
"""The scores of versions 1, 2 and 3."""
THRESHOLDS = (0.1, 0.5, 0.8, 0.95)
PAUSES = (0.0, 0.01, 0.03)  # seconds
ALIAS = "champion"
_KINDS = {"move": 6, "repeat": 6, "policy": 1}


class Gater:
    """Moves one alias of one model of its own."""

    def __init__(self, name: str, addresses: Sequence[str], dice: random.Random) -> None:
        self.moves: list[GateMove] = []
        self.model, self.policy = f"{name}-model", f"{name}-policy"
        self._name, self._dice = name, dice
        self._clients = [Client(address, actor=name) for address in addresses]
        self._sent: list[tuple[GateMove, v1.MoveAliasRequest]] = []
        self._seen = 0

    def prepare(self, digest: str) -> None:
        """Register a version for each score, and set the policy."""
        client = self._clients[0]
        experiment = client.connection.call(
            client.connection.tracking.CreateExperiment,
            v1.CreateExperimentRequest(name=self._name, request_id=new_request_id()),
        ).experiment_id
        for score in SCORES:
            client.versions.register(self.model, self._scored_run(client, experiment, score, digest), artifact="model")
        self._set_policy(threading.Event())

    def close(self) -> None:
        """Remove the policy and close the connections."""
        try:
            client = self._clients[0]
            request = v1.RemovePolicyRequest(name=self.policy, request_id=new_request_id())
            client.connection.call(client.connection.policies.RemovePolicy, request)
        finally:
            for client in self._clients:
                client.close()

    def work(self, stopping: threading.Event) -> None:
        """Do one thing after another until it is stopped."""
        while not stopping.wait(self._dice.choice(PAUSES)):
            (kind,) = self._dice.choices(list(_KINDS), list(_KINDS.values()))
            if kind == "policy":
                self._set_policy(stopping)
            elif kind == "repeat" and self._sent:
                self._move(*self._dice.choice(self._sent[-5:]), stopping)
            else:
                self._move(*self._draw(), stopping)

    def check_evidence(self, since: int) -> EvidenceCheck:
        """Recompute, in the service, the evidence in its log after a position."""
        client = self._clients[0]
        found = client.policies.check_evidence(after=since)
        return EvidenceCheck(found.evidence, tuple(one.position for one in found.unfounded))

    def _scored_run(self, client: Client, experiment: str, score: float, digest: str) -> str:
        chosen, request_id = run_id(self._dice), new_request_id()
        started = v1.StartRunRequest(run_id=chosen, experiment_id=experiment, name=chosen, request_id=request_id)
        started.start_time.GetCurrentTime()
        client.connection.call(client.connection.tracking.StartRun, started)
        columns = Columns()
        columns.append(0, 0, score)
        logged = v1.LogBatchRequest(run_id=chosen, series=[columns.take("score", 1)], request_id=new_request_id())
        client.connection.call(client.connection.tracking.LogBatch, logged)
        artifact = v1.LogArtifactRequest(run_id=chosen, path="model", digest=digest, request_id=new_request_id())
        client.connection.call(client.connection.tracking.LogArtifact, artifact)
        return chosen

    def _draw(self) -> tuple[GateMove, v1.MoveAliasRequest]:
        version, request_id = self._dice.randint(1, len(SCORES)), new_request_id()
        request = v1.MoveAliasRequest(model=self.model, alias=ALIAS, version=version, request_id=request_id)
        return GateMove(self._name, request_id, version, SCORES[version - 1]), request

    def _move(self, move: GateMove, request: v1.MoveAliasRequest, stopping: threading.Event) -> None:
        asked = replace(move, seen=self._seen, called=time.monotonic_ns())
        answer = send(self._client, lambda client: client.connection.registry.MoveAlias, request, self._dice, stopping)
        done = replace(asked, returned=answer.returned, outcome=answer.outcome, reason=answer.reason)
        if answer.outcome == OK and answer.response.moved:
            done = replace(done, position=answer.response.position)
        self.moves.append(done)
        if done.position or done.reason or answer.outcome == UNKNOWN:
            self._sent.append((move, request))

    def _set_policy(self, stopping: threading.Event) -> None:
        gate = f"candidate.metrics.score >= {self._dice.choice(THRESHOLDS)}"
        policy = v1.Policy(name=self.policy, models=self.model, aliases=ALIAS, gate=gate)
        request = v1.SetPolicyRequest(policy=policy, request_id=new_request_id())
        answer = send(self._client, lambda client: client.connection.policies.SetPolicy, request, self._dice, stopping)
        if answer.outcome == OK:
            self._seen = max(self._seen, answer.response.position)
            for client in self._clients:
                client.connection.note_position("registry", answer.response.position)

    def _client(self) -> Client:
        return self._dice.choice(self._clients)
