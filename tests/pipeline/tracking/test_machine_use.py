"""What a training asks of the machine."""

import threading
import time

from pipeline.tracking.machine_use import MachineUse
from tests.pipeline.tracking.trainings import train


def test_what_a_training_asks_of_the_machine(project):
    use = MachineUse(seconds=0.05)
    time.sleep(0.3)
    means = use.means()
    use.ended.set()
    assert 0 <= means["system/cpu_utilization_percentage"] <= 100 and means["system/system_memory_usage_megabytes"] > 10
    train(project)
    assert not any(thread.name.startswith("Thread") and thread.is_alive() and "_keep_sampling" in thread.name
                   for thread in threading.enumerate())  # fmt: skip
