"""What is done to a system while clients use it, drawn from a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.histories.system import Process, System, paused

SHORT, LONG = 0.6, 2.5  # seconds; the longer is more than an append waits for its first answer


@dataclass(frozen=True, slots=True)
class Nemesis:
    """Does harm to a system; `progress` returns once clients were answered some more."""

    system: System
    dice: random.Random
    progress: Callable[[int], None]

    def draw(self, number: int) -> list[str]:
        """The names of some faults."""
        return self.dice.choices(list(FAULTS), [weight for weight, _ in FAULTS.values()], k=number)

    def strike(self, name: str) -> None:
        """Does one harm, and sees the system well again."""
        FAULTS[name][1](self)

    @property
    def victim(self) -> Process:
        """One of the registry processes."""
        return self.dice.choice(list(self.system.registries.values()))

    def seconds(self) -> float:
        """How long a pause lasts: seldom long."""
        return LONG if self.dice.random() < 0.1 else self.dice.uniform(0.02, SHORT)


def nothing(nemesis: Nemesis) -> None:
    """Lets clients go on."""
    nemesis.progress(20)


def pause_service(nemesis: Nemesis) -> None:
    """Stops a registry process for a while, as a machine without time for it would."""
    with paused(nemesis.victim.pid, nemesis.seconds()):
        pass


def pause_nats(nemesis: Nemesis) -> None:
    """Stops NATS for a while."""
    with paused(nemesis.system.nats.pid, nemesis.seconds()):
        pass


def pause_both(nemesis: Nemesis) -> None:
    """Stops NATS, and a registry process a moment later."""
    with paused(nemesis.system.nats.pid, nemesis.seconds()):
        threading.Event().wait(nemesis.dice.uniform(0, 0.1))
        pause_service(nemesis)


def kill_service(nemesis: Nemesis) -> None:
    """kill -9 of a registry process."""
    victim = nemesis.victim
    victim.kill()
    victim.start()


def stop_service(nemesis: Nemesis) -> None:
    """An orderly restart of a registry process."""
    victim = nemesis.victim
    victim.stop()
    victim.start()


def kill_nats(nemesis: Nemesis) -> None:
    """kill -9 of NATS."""
    nemesis.system.nats.crash()


def kill_nats_and_service(nemesis: Nemesis) -> None:
    """kill -9 of NATS, and of a registry process while it is without it."""
    nemesis.system.nats.crash()
    kill_service(nemesis)


FAULTS: dict[str, tuple[int, Callable[[Nemesis], None]]] = {
    "nothing": (2, nothing),
    "pause service": (4, pause_service),
    "pause nats": (4, pause_nats),
    "pause both": (2, pause_both),
    "kill service": (2, kill_service),
    "stop service": (1, stop_service),
    "kill nats": (3, kill_nats),
    "kill nats and service": (1, kill_nats_and_service),
}
