"""Values of params.yaml: each one that the schema takes has to work, or to be refused in one line."""

import os
import re
import subprocess
import sys

from benchmarks.fault_injection.project import Failed, fault
from pipeline import layout, params


@fault("the loss explodes")
def _(project):
    settings = params.load(project.folder / layout.PARAMS).train
    before = {"train.learning_rate": settings.learning_rate, "train.model.normalization": settings.model.normalization}
    # Legal, but nothing holds the maps together: the highest rate, and no batch normalization.
    project.set({"train.learning_rate": 10.0, "train.model.normalization": "none"})
    said = project.refused("dvc", "repro", says=r"train.learning_rate: the loss became .* at step \d+")
    project.set(before)
    project.repro()
    return f"{said}. With the old rate `dvc repro` succeeds."


@fault("legal parameter sets drawn from the schema", start="fresh", outputs=False)
def _(project):
    # In a process of its own: it forks, which one that MLflow and TensorFlow already run in must not.
    command = (sys.executable, "-m", "benchmarks.fault_injection.legal", "--jobs", f"{os.cpu_count() or 1}")
    # Its bar, and what goes wrong, are seen at once: it takes half an hour.
    done = subprocess.run(command, env=project.environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"see above. {done.stdout[-500:]}")
    counts = re.findall(r"^ *(\d+)  (works|error: .*)$", done.stdout, re.MULTILINE)
    total, fine = sum(int(n) for n, _ in counts), sum(int(n) for n, said in counts if said == "works")
    return f"{total} sets: {fine} ran to the end, {total - fine} were refused in one line."
