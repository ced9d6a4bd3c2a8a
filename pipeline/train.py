"""DVC stage: train the U-Net.

    python -m pipeline.train

Reads data/processed/ and the `train` section of params.yaml. Writes models/trained.keras (the weights of the epoch with
the lowest validation loss, and a metadata of how they were made) and reports/history.csv (one row per epoch). Mirrors
both to MLflow. A killed training continues after its last complete epoch (see `nuclei_unet/training/resume.py`).

If several machines train together (`train.strategy: multiworker`), each runs this; only worker 0 writes and logs.
"""

from nuclei_unet.files import fresh_file, tree_digest
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.settings import NormalizeSettings
from pipeline import layout, params, stage
from pipeline.dataset import processed
from pipeline.tracking import client


def main() -> None:
    """Write models/trained.keras and reports/history.csv."""
    from nuclei_unet.network import keras_file, runtime
    from nuclei_unet.training import fit, resume, several_machines

    settings = params.load()
    precision = runtime.configure(settings.train)
    channels = settings.preprocess.channels
    data = processed.read_split("train"), processed.read_split("validation"), settings.train, channels
    if settings.train.strategy == "multiworker":
        team = several_machines.team()
        workers = several_machines.start(team, settings.train)
        devices = f"{workers.strategy.num_replicas_in_sync} of {len(team.addresses)} workers"
    else:
        team, devices = None, runtime.strategy(settings.train).num_replicas_in_sync
    machine = f"{channels} channels, {precision} on {devices}"
    state = resume.state_file(layout.RESUME, settings.train, machine, stage.dependencies("train"))
    if team and not team.is_chief:
        several_machines.train(workers, *data, state)
        print(f"worker {team.index} is done; worker 0 has the model")
        return
    tags = {"workers": str(len(team.addresses))} if team else {}
    with client.training_run(settings, precision, state.stem, tags) as log:
        if team:
            model, history = several_machines.train(workers, *data, state, log)
        else:
            model, history = fit.train(*data, log.epoch, state, log.picture)
        with fresh_file(layout.TRAINED) as new_model, fresh_file(layout.HISTORY) as new_history:
            keras_file.save(model, new_model, metadata_of(settings))
            history.to_csv(new_history, index=False, float_format="%.6g", lineterminator="\n")
        state.unlink(missing_ok=True)
    best = history.loc[history.val_loss.idxmin()]
    print(f"kept epoch {best.epoch:.0f}: validation loss {best.val_loss:.4f}, IoU {best.val_foreground_iou:.4f}")


def worker() -> str:
    """Return what sets this process apart from others that train the same network in this folder."""
    if params.load().train.strategy != "multiworker":
        return ""
    from nuclei_unet.training import several_machines

    team = several_machines.team()
    return "" if team.is_chief else f"-{team.index}"


def metadata_of(settings: params.Params) -> Metadata:
    """Return the metadata of the trained model: its targets and network, how images are normalized, its data."""
    return Metadata(
        targets=settings.train.targets,
        network=settings.train.model,
        diameter=settings.train.diameter,
        normalize=NormalizeSettings(
            **{key: getattr(settings.preprocess, key) for key in NormalizeSettings.model_fields}
        ),
        data=tree_digest([layout.PROCESSED]),
    )


if __name__ == "__main__":
    stage.run(main, worker, tensorflow=True)
