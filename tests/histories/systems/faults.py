"""The faults that a system suffers while clients use it, drawn from a seed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.histories.systems.clocks import ClientClock
from tests.histories.systems.network import Proxy
from tests.histories.systems.processes import Process
from tests.histories.systems.system import System, paused

SHORT, LONG = 0.6, 2.5  # seconds; the longer is more than an append waits for its first answer
OUTAGE = 1.5  # seconds
DELAYS = (0.02, 0.1, 0.4)  # seconds
JUMPS = (-86_400.0, -3_600.0, -90.0, -5.0, 5.0, 90.0, 3_600.0, 86_400.0)  # seconds


@dataclass(frozen=True, slots=True)
class Nemesis:
    """The injector of faults; `progress` returns when clients have received some more results.

    What lasts to the end of a history is undone by `restore`.
    """

    system: System
    dice: random.Random
    progress: Callable[[int], None]
    clock: ClientClock = field(default_factory=ClientClock)
    restore: ExitStack = field(default_factory=ExitStack)

    def strike(self, name: str) -> None:
        """Do one harm, and see the system well again."""
        FAULTS[name].strike(self)

    @property
    def victim(self) -> Process:
        """Return one of the service processes, mostly one that moves aliases."""
        some = [*self.system.registries.values(), *self.system.registries.values(), *self.system.processes]
        return self.dice.choice(some)

    def seconds(self) -> float:
        """Return how long a pause lasts: seldom long."""
        return LONG if self.dice.random() < 0.1 else self.dice.uniform(0.02, SHORT)

    def wait(self, seconds: float) -> None:
        """Let a state last."""
        threading.Event().wait(seconds)


def nothing(nemesis: Nemesis) -> None:
    """Let clients go on."""
    nemesis.progress(20)


def pause_service(nemesis: Nemesis) -> None:
    """Stop a service process for a while, as a machine without time for it would."""
    with paused(nemesis.victim.pid, nemesis.seconds()):
        pass


def kill_service(nemesis: Nemesis) -> None:
    """Kill a service process with SIGKILL."""
    victim = nemesis.victim
    victim.kill()
    victim.start()


def stop_service(nemesis: Nemesis) -> None:
    """Restart a service process gracefully."""
    victim = nemesis.victim
    victim.stop()
    victim.start()


def pause_nats(nemesis: Nemesis) -> None:
    """Stop NATS for a while."""
    with paused(nemesis.system.nats.pid, nemesis.seconds()):
        pass


def pause_both(nemesis: Nemesis) -> None:
    """Stop NATS, and a service process a moment later."""
    with paused(nemesis.system.nats.pid, nemesis.seconds()):
        nemesis.wait(nemesis.dice.uniform(0, 0.1))
        pause_service(nemesis)


def kill_nats(nemesis: Nemesis) -> None:
    """Kill NATS with SIGKILL."""
    nemesis.system.nats.crash()


def kill_nats_and_service(nemesis: Nemesis) -> None:
    """Kill NATS with SIGKILL, and a service process while NATS is down."""
    nemesis.system.nats.crash()
    kill_service(nemesis)


def jump_service_clock(nemesis: Nemesis) -> None:
    """Set the clock of a service process ahead or back, for as long as the history lasts."""
    clock = nemesis.dice.choice(nemesis.system.clocks)
    nemesis.restore.callback(clock.set, 0)
    clock.set(nemesis.dice.choice(JUMPS))
    nemesis.wait(OUTAGE)


def jump_client_clock(nemesis: Nemesis) -> None:
    """Set the clock of all clients ahead or back, for as long as the history lasts."""
    nemesis.restore.callback(setattr, nemesis.clock, "offset", 0.0)
    nemesis.clock.offset = nemesis.dice.choice(JUMPS)


def _delay(nemesis: Nemesis, links: Sequence[Proxy]) -> None:
    with nemesis.dice.choice(links).delayed(nemesis.dice.choice(DELAYS)):
        nemesis.wait(OUTAGE)


def _cut(nemesis: Nemesis, links: Sequence[Proxy]) -> None:
    with nemesis.dice.choice(links).cut():
        nemesis.wait(nemesis.seconds())


def _stall(nemesis: Nemesis, links: Sequence[Proxy]) -> None:
    with nemesis.dice.choice(links).stalled():
        nemesis.wait(nemesis.seconds())


def delay_clients(nemesis: Nemesis) -> None:
    """Delay the network between clients and a service process."""
    _delay(nemesis, nemesis.system.client_links)


def cut_clients(nemesis: Nemesis) -> None:
    """Cut the connections between clients and a service process, and reject new ones for a while."""
    _cut(nemesis, nemesis.system.client_links)


def stall_clients(nemesis: Nemesis) -> None:
    """Hold back all bytes between clients and a service process for a while."""
    _stall(nemesis, nemesis.system.client_links)


def delay_nats(nemesis: Nemesis) -> None:
    """Delay the network between services and NATS."""
    _delay(nemesis, nemesis.system.log_links)


def cut_nats(nemesis: Nemesis) -> None:
    """Cut the connections between services and NATS, and reject new ones for a while."""
    _cut(nemesis, nemesis.system.log_links)


def stall_nats(nemesis: Nemesis) -> None:
    """Hold back all bytes between services and NATS for a while."""
    _stall(nemesis, nemesis.system.log_links)


def full_disk(nemesis: Nemesis) -> None:
    """Fill the disk of log and rows for a while."""
    assert nemesis.system.disk is not None
    with nemesis.system.disk.full():
        nemesis.wait(OUTAGE)


def start_on_full_disk(nemesis: Nemesis) -> None:
    """Kill a service process on a full disk and start it before space is freed, again if it gives up."""
    assert nemesis.system.disk is not None
    [process] = nemesis.system.processes
    with nemesis.system.disk.full():
        process.kill()
        process.spawn()
        nemesis.wait(OUTAGE)
    if not process.starts():
        process.start()


def database_away(nemesis: Nemesis) -> None:
    """Stop or crash the database, or lock it, for a while."""
    assert nemesis.system.database is not None
    with nemesis.system.database.away(crash=nemesis.dice.random() < 0.5):
        nemesis.wait(nemesis.dice.uniform(0.2, OUTAGE))


def kill_leader(nemesis: Nemesis) -> None:
    """Kill the NATS server that leads the registry log; the others elect another leader."""
    assert nemesis.system.cluster is not None
    _kill_servers(nemesis, [nemesis.system.cluster.leader("registry")])


def pause_leader(nemesis: Nemesis) -> None:
    """Stop the NATS server that leads the registry log, for longer than the others wait for it, or shorter."""
    cluster = nemesis.system.cluster
    assert cluster is not None
    with paused(cluster.servers[cluster.leader("registry")].pid, nemesis.dice.choice([0.3, 2.0, 6.0])):
        pass
    cluster.ready()


def kill_follower(nemesis: Nemesis) -> None:
    """Kill a NATS server that follows."""
    assert nemesis.system.cluster is not None
    _kill_servers(nemesis, nemesis.system.cluster.followers("registry", nemesis.dice)[:1])


def kill_majority(nemesis: Nemesis) -> None:
    """Kill two NATS servers of three, the leader among them."""
    cluster = nemesis.system.cluster
    assert cluster is not None
    leader = cluster.leader("registry")
    _kill_servers(nemesis, [leader, cluster.followers("registry", nemesis.dice)[0]])


def _kill_servers(nemesis: Nemesis, numbers: Sequence[int]) -> None:
    cluster = nemesis.system.cluster
    assert cluster is not None
    for number in numbers:
        cluster.servers[number].kill()
    nemesis.wait(nemesis.seconds())
    for number in numbers:
        cluster.servers[number].start()
    cluster.ready()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault, how often it is drawn among the others, and whether a system can suffer it.

    One that `ends` a history is done to the log after everything else, by `losing`.
    """

    weight: int
    strike: Callable[[Nemesis], None]
    fits: Callable[[System], bool] = lambda _: True
    ends: bool = False


def _has_log_links(system: System) -> bool:
    return bool(system.log_links)


def _has_cluster(system: System) -> bool:
    return system.cluster is not None


def _has_single_nats(system: System) -> bool:
    return system.nats.is_single


def _has_data(system: System) -> bool:
    return system.data is not None


FAULTS: Mapping[str, Fault] = {
    "nothing": Fault(1, nothing),
    "pause service": Fault(3, pause_service),
    "kill service": Fault(3, kill_service),
    "stop service": Fault(1, stop_service),
    "pause nats": Fault(3, pause_nats, _has_single_nats),
    "pause both": Fault(2, pause_both, _has_single_nats),
    "kill nats": Fault(3, kill_nats, _has_single_nats),
    "kill nats and service": Fault(1, kill_nats_and_service, _has_single_nats),
    "jump service clock": Fault(2, jump_service_clock),
    "jump client clock": Fault(1, jump_client_clock),
    "delay clients": Fault(1, delay_clients),
    "cut clients": Fault(1, cut_clients),
    "stall clients": Fault(1, stall_clients),
    "delay nats": Fault(1, delay_nats, _has_log_links),
    "cut nats": Fault(2, cut_nats, _has_log_links),
    "stall nats": Fault(2, stall_nats, _has_log_links),
    "full disk": Fault(2, full_disk, lambda system: system.disk is not None),
    "start on full disk": Fault(1, start_on_full_disk, lambda system: system.disk is not None),
    "database away": Fault(2, database_away, lambda system: system.database is not None),
    "kill leader": Fault(4, kill_leader, _has_cluster),
    "pause leader": Fault(2, pause_leader, _has_cluster),
    "kill follower": Fault(2, kill_follower, _has_cluster),
    "kill majority": Fault(1, kill_majority, _has_cluster),
    "lost tail": Fault(1, nothing, _has_data, ends=True),
    "restored copy": Fault(1, nothing, _has_data, ends=True),
    "lost log": Fault(1, nothing, _has_data, ends=True),
}
BASIC = ("nothing", "pause service", "kill service", "stop service", "pause nats", "pause both", "kill nats",
         "kill nats and service")  # fmt: skip
"""The faults that need nothing but processes."""


def draw(seed: int, turn: int, names: Sequence[str], system: System) -> list[str]:
    """Return one to three faults of those that a system can suffer: the first by turns, so that each has its turn."""
    fitting = [name for name in names if FAULTS[name].fits(system)]
    if not fitting:
        return ["nothing"]
    dice = random.Random(f"faults {seed}")
    weights = [FAULTS[name].weight for name in fitting]
    return [fitting[turn % len(fitting)], *dice.choices(fitting, weights, k=dice.randint(0, 2))]
