"""How much of the machine a training uses."""

import contextlib
import threading

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor


class MachineUse:
    """Samples CPU, memory and NVIDIA GPUs in a thread that never waits for a server; MLflow's own monitor does."""

    def __init__(self, seconds: float = 5.0):
        self.monitors, self.lock, self.ended = [CPUMonitor()], threading.Lock(), threading.Event()
        # Without a GPU, or without nvidia-ml-py, it cannot be made.
        with contextlib.suppress(ImportError, RuntimeError):
            self.monitors.append(GPUMonitor())
        self.means()  # the first sample has no meaning: use is counted from the one before
        threading.Thread(target=self._keep_sampling, args=(seconds,), daemon=True).start()

    def means(self) -> dict[str, float]:
        """Return the means since the last call, named as MLflow's tab for system metrics wants them."""
        self._sample()
        with self.lock:
            means = {f"system/{k}": v for m in self.monitors for k, v in m.aggregate_metrics().items()}
            for monitor in self.monitors:
                monitor.clear_metrics()
        return means

    def _keep_sampling(self, seconds: float) -> None:
        while not self.ended.wait(seconds):
            self._sample()

    def _sample(self) -> None:
        with self.lock:
            for monitor in self.monitors:
                monitor.collect_metrics()
