"""DVC stage: train the U-Net.

    python -m pipeline.train

Reads data/processed/ and the `train` section of params.yaml. Writes models/model.keras (the weights of the epoch with
the lowest validation loss) and reports/history.csv (one row an epoch), and mirrors both to MLflow. A training that was
killed goes on after its last whole epoch (see `nuclei_unet/training/resume.py`).
"""

from nuclei_unet.files import fresh_file
from nuclei_unet.network import model_file, runtime
from nuclei_unet.training import fit, resume
from pipeline import params, stage
from pipeline.dataset import processed as dataset
from pipeline.tracking import run as tracking


def main() -> None:
    """Write models/model.keras and reports/history.csv."""
    settings = params.load()
    precision = runtime.configure(settings.train)
    training, validation = dataset.read_split("train"), dataset.read_split("validation")
    devices = runtime.strategy(settings.train).num_replicas_in_sync
    state = resume.state_file(settings.train, f"{precision} on {devices}", dataset.FOLDER)
    with tracking.training_run(settings, precision, state.stem) as log:
        channels = settings.preprocess.channels
        model, history = fit.train(training, validation, settings.train, channels, log.epoch, state, log.picture)
        with fresh_file(model_file.MODEL) as new_model, fresh_file(tracking.HISTORY) as new_history:
            model_file.save(model, new_model)
            history.to_csv(new_history, index=False, float_format="%.6g", lineterminator="\n")
        state.unlink(missing_ok=True)
    best = history.loc[history.val_loss.idxmin()]
    print(f"kept epoch {best.epoch:.0f}: validation loss {best.val_loss:.4f}, IoU {best.val_foreground_iou:.4f}")


if __name__ == "__main__":
    stage.run(main)
