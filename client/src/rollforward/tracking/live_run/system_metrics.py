"""Measurements of the machine that a run is on: CPU, memory, disk, network and GPU."""

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

_logger: Final = logging.getLogger("rollforward")


class MetricLogger(Protocol):
    """A run, as the receiver of measurements."""

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log points of one step."""


class SystemMetrics:
    """A thread that logs measurements of the machine under MLflow's names "system/...", at steps from 0."""

    def __init__(self, run: MetricLogger, machine: Machine, *, interval: float = INTERVAL) -> None:
        """Start measuring in a background thread."""
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
            except Exception as error:  # noqa: BLE001 - a failing sensor must not stop the thread
                _logger.debug("cannot measure the machine: %r", error)
            step += 1
            if self._closing.wait(self._interval):
                return


class Machine:
    """The machine's sensors: psutil, and NVIDIA's library for GPUs."""

    def __init__(self) -> None:
        """Find the GPUs.

        Raises:
            InvalidRequest: NOT_INSTALLED if psutil is missing.
        """
        try:
            self._psutil: Any = importlib.import_module("psutil")
        except ImportError as error:
            message = "system metrics require psutil: install rollforward[system]"
            raise InvalidRequest("NOT_INSTALLED", message) from error
        self._gpus = _gpus()
        self._network = self._psutil.net_io_counters()
        # psutil measures CPU usage since the previous call, so the first result is meaningless.
        self._psutil.cpu_percent()

    def measure(self) -> dict[str, float]:
        """Return the current measurements, by name."""
        memory = self._psutil.virtual_memory()
        disk = self._psutil.disk_usage(os.sep)
        values = {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MEGA,
            "system_memory_usage_percentage": memory.percent,
            "disk_usage_percentage": disk.percent,
            "disk_usage_megabytes": disk.used / _MEGA,
            "disk_available_megabytes": disk.free / _MEGA,
        }
        values |= self._traffic()
        for number, gpu in enumerate(self._gpus):
            values |= {f"gpu_{number}_{name}": value for name, value in _measure_gpu(*gpu)}
        return {f"system/{name}": float(value) for name, value in values.items()}

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
    except Exception as error:  # noqa: BLE001 - missing library, driver or device: each raises its own error
        _logger.debug("no GPU measured: %r", error)
        return []


def _measure_gpu(nvidia: Any, device: Any) -> Iterator[tuple[str, float]]:
    memory = nvidia.nvmlDeviceGetMemoryInfo(device)
    yield "memory_usage_percentage", round(memory.used / memory.total * 100, 1)
    yield "memory_usage_megabytes", memory.used / _MEGA
    yield "utilization_percentage", nvidia.nvmlDeviceGetUtilizationRates(device).gpu
    power = nvidia.nvmlDeviceGetPowerUsage(device)
    yield "power_usage_watts", power / 1000
    yield "power_usage_percentage", power / nvidia.nvmlDeviceGetEnforcedPowerLimit(device) * 100
