"""Values of params.yaml: each one that the schema takes has to work, or to be refused in one line."""

from benchmarks.faults.project import fault
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
