"""Measures the machine that a run is on, every few seconds: CPU, memory, disk, network and GPU."""

from __future__ import annotations

import importlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

from rollforward.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INTERVAL: Final = 10.0
_MEGA: Final = 1e6

_log: Final = logging.getLogger("rollforward")


class Logging(Protocol):
    """What takes the measurements: a run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log points of one moment."""


class SystemMetrics:
    """A thread that logs how the machine fares, under MLflow's names "system/...", numbered from step 0."""

    def __init__(self, run: Logging, machine: Machine, *, interval: float = INTERVAL) -> None:
        """Start to measure in a background thread."""
        self._run = run
        self._interval = interval
        self._machine = machine
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rollforward-system-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._closing.set()
        self._thread.join(self._interval)

    def _work(self) -> None:
        step = 0
        while True:
            try:
                self._run.log_metrics(self._machine.measure(), step)
            except Exception as error:  # noqa: BLE001 - a sensor that fails must not end the others for good
                _log.debug("system metrics: %r", error)
            step += 1
            if self._closing.wait(self._interval):
                return


class Machine:
    """The machine as psutil sees it, with the GPUs that NVIDIA's library sees."""

    def __init__(self) -> None:
        """Find the GPUs. Raises InvalidRequest (NOT_INSTALLED) without psutil, the extra `system`."""
        try:
            self._psutil: Any = importlib.import_module("psutil")
        except ImportError as error:
            raise InvalidRequest("NOT_INSTALLED", "system metrics need psutil: rollforward[system]") from error
        self._gpus = _gpus()
        self._network = self._psutil.net_io_counters()
        # The first answer of it says nothing: it is about the time since the one before.
        self._psutil.cpu_percent()

    def measure(self) -> dict[str, float]:
        """Return the current measurements, by name."""
        memory = self._psutil.virtual_memory()
        disk = self._psutil.disk_usage(os.sep)
        found = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGA,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGA,
            "disk_available_megabytes": disk.free / _MEGA,
        }
        found |= self._traffic()
        for number, gpu in enumerate(self._gpus):
            found |= {f"gpu_{number}_{name}": value for name, value in _measure_gpu(*gpu)}
        return {f"system/{name}": float(value) for name, value in found.items()}

    def _traffic(self) -> dict[str, float]:
        now = self._psutil.net_io_counters()
        if now is None or self._network is None:
            return {}
        return {
            "network_receive_megabytes": (now.bytes_recv - self._network.bytes_recv) / _MEGA,
            "network_transmit_megabytes": (now.bytes_sent - self._network.bytes_sent) / _MEGA,
        }


def _gpus() -> list[tuple[Any, Any]]:
    try:
        nvidia: Any = importlib.import_module("pynvml")
        nvidia.nvmlInit()
        return [(nvidia, nvidia.nvmlDeviceGetHandleByIndex(number)) for number in range(nvidia.nvmlDeviceGetCount())]
    except Exception as error:  # noqa: BLE001 - no library, no driver, no device: each says so in its own way
        _log.debug("no GPU is measured: %r", error)
        return []


def _measure_gpu(nvidia: Any, device: Any) -> Iterator[tuple[str, float]]:
    memory = nvidia.nvmlDeviceGetMemoryInfo(device)
    yield "memory_usage_percentage", round(memory.used / memory.total * 100, 1)
    yield "memory_usage_megabytes", memory.used / _MEGA
    yield "utilization_percentage", nvidia.nvmlDeviceGetUtilizationRates(device).gpu
    power = nvidia.nvmlDeviceGetPowerUsage(device)
    yield "power_usage_watts", power / 1000
    yield "power_usage_percentage", power / nvidia.nvmlDeviceGetEnforcedPowerLimit(device) * 100
