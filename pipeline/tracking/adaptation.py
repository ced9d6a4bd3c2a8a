"""The run in MLflow of an adaptation: a model that was adapted to somebody's annotated images."""

from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Metric, Param, RunTag

from nuclei_unet.adaptation.adapt import Adapted
from pipeline.tracking import store


def log(out: Path, arguments: Mapping[str, object], adapted: Adapted) -> None:
    """Log one run: the arguments, the scores of each variant, what was chosen, and the model if there is one."""
    client, experiment = store.connect()
    run = client.create_run(experiment, run_name=f"adapt {out.stem}"[:40]).info.run_id
    metrics = {
        f"adapt/{name.replace(' ', '_')}/{key}": value
        for name, row in adapted.scores.items()
        for key, value in row.items()
    }
    tags = {"kind": "adaptation", "chosen": adapted.chosen, "helped": str(adapted.helped).lower()}
    values = {key: str(value) for key, value in arguments.items()}
    if metadata := adapted.metadata:
        tags["parent_sha256"] = metadata.parent
        made = metadata.adapted.model_dump(exclude={"data"})
        values |= {f"adapted.{key}": str(value) for key, value in made.items()}
        values |= {f"evaluate.{key}": str(value) for key, value in metadata.predict}
    client.log_batch(
        run,
        metrics=[Metric(key, value, 0, 0) for key, value in metrics.items()],
        params=[Param(key, value) for key, value in values.items()],
        tags=[RunTag(key, value) for key, value in tags.items()],
    )
    if adapted.helped:
        client.log_artifact(run, str(out))
    client.set_terminated(run, "FINISHED")
