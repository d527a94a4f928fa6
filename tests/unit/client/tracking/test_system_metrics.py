"""System metrics of a run, under MLflow's names."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from rollforward.tracking.live_run.system_metrics import Machine, SystemMetrics
from tests.timeouts import scaled

ALWAYS = {
    "system/cpu_utilization_percentage",
    "system/system_memory_usage_megabytes",
    "system/system_memory_usage_percentage",
    "system/disk_usage_percentage",
    "system/disk_usage_megabytes",
    "system/disk_available_megabytes",
    "system/network_receive_megabytes",
    "system/network_transmit_megabytes",
}


class Kept:
    """A run that records what is logged."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.names: set[str] = set()
        self.enough = threading.Event()

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        self.steps.append(step)
        self.names |= set(metrics)
        if step == 3:
            self.enough.set()


def test_machine_is_measured_at_consecutive_steps() -> None:
    kept = Kept()
    metrics = SystemMetrics(kept, Machine(), interval=0.01)
    assert kept.enough.wait(scaled(20))
    metrics.close()
    assert kept.steps[:4] == [0, 1, 2, 3]
    assert kept.names >= ALWAYS
    assert all(name.startswith("system/gpu_") for name in kept.names - ALWAYS)


def test_measurements_are_plausible() -> None:
    found = Machine().measure()
    assert 0 < found["system/system_memory_usage_percentage"] <= 100
    assert 0 <= found["system/cpu_utilization_percentage"] <= 100
    assert found["system/disk_available_megabytes"] > 0
    assert found["system/network_receive_megabytes"] >= 0
