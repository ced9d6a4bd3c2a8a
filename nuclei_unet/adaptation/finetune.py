"""Go on training a network on a few annotated images, with images of its own training mixed in."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from nuclei_unet.adaptation import Settings
from nuclei_unet.adaptation.calibrate import calibrate, cross_validated
from nuclei_unet.adaptation.study import Study, Trials, Variant, see
from nuclei_unet.errors import InputError
from nuclei_unet.evaluation import metrics
from nuclei_unet.images import center_crop
from nuclei_unet.labels import at_one_size
from nuclei_unet.network import onnx_file, runtime
from nuclei_unet.network.metadata import Metadata
from nuclei_unet.prediction.engine import OnnxNetwork
from nuclei_unet.prediction.predictor import FAST, Predictor
from nuclei_unet.sample import Sample
from nuclei_unet.settings import AugmentSettings, TrainSettings
from nuclei_unet.training import fit
from nuclei_unet.training.crops import Crops, as_dataset

NAME = "fine-tuned"
LEARNING_RATE = 5e-4
CROP, BATCH = 256, 16
# Of own images, and again of the replay, to measure the ranges of activations on: more of them take longer.
CALIBRATION_CROPS = 16
EXPLODED = 1000.0  # a loss this large does not recover
# Weaker than in a training from scratch, and above all with less zoom: an outline that was drawn 1 px too wide is 1.8
# px too wide in a crop that is enlarged by 1.8, and the network is to learn the 1 px.
AUGMENT = AugmentSettings(
    flip=True, rotate=True, zoom=(0.8, 1.25), gamma=(0.7, 1.4), contrast=0.2, noise=0.03, blur=1.0,
    invert=0.0, cytoplasm=0.0, transfer=0.0, mix=0.0,
)  # fmt: skip


def fine_tuned(study: Study) -> Variant | None:
    """Train for the best number of steps, then calibrate; None if no number is better than 0.

    The images of a fold are scored after as many steps as are best for the images of the other folds, with the network
    in eight bits, as it would be written.
    """
    tuner = Finetuner(study.data, study.metadata, study.settings, study.replay, study.on_step)
    stops = (0, *study.settings.stops)
    weights, scores = _trained_on_folds(tuner, study)
    steps = stops[int(scores.mean(axis=1).argmax())]
    if not steps:
        return None
    seen = list(study.trials.images)
    for fold, (held_out, others) in enumerate(study.splits):
        row = int(scores[:, others].mean(axis=1).argmax())
        if row:
            network = _network(tuner.to_onnx(weights[fold, row], [study.pieces[index] for index in others]), study)
            for index in held_out:
                seen[index] = see(network, study.metadata, study.parts[index])
    trials = Trials(seen)

    def finish():
        ((_, final),) = tuner.run(study.samples, [steps])
        settings = calibrate(trials, study.metadata.chosen, range(len(study.parts)), search=study.enough)
        return settings, tuner.to_onnx(final, study.samples)

    return Variant(NAME, cross_validated(study, trials, search=study.enough), finish, steps)


def _trained_on_folds(tuner: "Finetuner", study: Study) -> tuple[dict[tuple[int, int], list[np.ndarray]], np.ndarray]:
    """Train on all folds but one; return the weights by (fold, row), and scores (rows, parts): dsb_score of each part.

    Row 0 is the network as it was, row n that after the n-th of the stops. For this choice networks are in float32,
    and with few augmentations of each image, which is much faster.
    """
    settings, stops = study.metadata.chosen.model_copy(update={"augmentations": FAST}), study.settings.stops

    def score(current: list[np.ndarray], which: Sequence[int]) -> list[float]:
        predictor = Predictor(_network(tuner.to_onnx(current), study), study.metadata.but(predict=settings))
        parts = [study.parts[index] for index in which]
        labels = [predictor.labels(part.image, part.labels.shape) for part in parts]
        pairs = zip(parts, labels, strict=True)
        return [metrics.dsb_score(metrics.instance_counts(part.labels, predicted)) for part, predicted in pairs]

    weights: dict[tuple[int, int], list[np.ndarray]] = {}
    scores = np.zeros((len(stops) + 1, len(study.parts)))
    scores[0] = score(tuner.model.get_weights(), range(len(study.parts)))
    for fold, (held_out, others) in enumerate(study.splits):
        pieces = [study.pieces[index] for index in others]
        for row, (_, current) in enumerate(tuner.run(pieces, stops), start=1):
            weights[fold, row] = current
            scores[row, held_out] = score(current, held_out)
    return weights, scores


def _network(data: bytes, study: Study) -> OnnxNetwork:
    return OnnxNetwork(data, NAME, threads=study.settings.threads)


def train_settings(metadata: Metadata, settings: Settings) -> TrainSettings:
    """Return the settings of the training in a fine-tuning of a model."""
    multiple = metadata.network.size_multiple
    return TrainSettings(
        seed=settings.seed, threads=settings.threads or 2, precision="auto", strategy="single",
        targets=metadata.targets, diameter=metadata.diameter, crop_size=max(CROP // multiple, 1) * multiple,
        type_balance=0.0, batch_size=BATCH,
        epochs=1, steps_per_epoch=max(settings.stops), optimizer="adamw", learning_rate=LEARNING_RATE,
        encoder_lr_multiplier=0.1, schedule="cosine", weight_decay=1e-4, loss="bce_dice", early_stopping=None,
        model=metadata.network, augment=AUGMENT,
    )  # fmt: skip


class Finetuner:
    """Goes on training a network, any number of times from the same weights; its graph is traced once.

    `data` is the content of the model's ONNX file. Its network has no batch normalization: folded into the
    convolutions, its averages cannot drift to those of a handful of images. With `replay`, images that it was trained
    on, every second crop of a batch is one of theirs, which keeps it from forgetting what else it knew. `on_step` is
    called after each step.
    """

    def __init__(
        self,
        data: bytes,
        metadata: Metadata,
        settings: Settings,
        replay: Sequence[Sample] = (),
        on_step: Callable[[], None] = lambda: None,
    ):
        self.metadata, self.on_step, self.replay = metadata, on_step, replay
        self.settings = train = train_settings(metadata, settings)
        self._replayed = Crops(replay, train.model_copy(update={"type_balance": 0.5})) if replay else None
        keras.utils.set_random_seed(train.seed)
        tf.config.experimental.enable_op_determinism()
        with contextlib.suppress(RuntimeError):  # TensorFlow takes it before its first operation only
            tf.config.threading.set_intra_op_parallelism_threads(train.threads)
            tf.config.threading.set_inter_op_parallelism_threads(train.threads)
        with runtime.precision(train.precision):
            self.model = onnx_file.load(data, "the model", metadata)
        self.model.compile(fit.make_optimizer(train, train.steps_per_epoch), **fit.measures(train))
        self.model.optimizer.build(self.model.trainable_variables)
        # With the state of dropout and of the optimizer.
        self._variables = [*self.model.variables, *self.model.optimizer.variables]
        self._start = [keras.ops.convert_to_numpy(variable) for variable in self._variables]

    def run(self, samples: Sequence[Sample], stops: Sequence[int]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Train on samples; yield the number of steps and the weights at each of `stops`, in ascending order.

        The learning rate warms up over 5% of the most steps that the settings allow and then falls to 0 by a cosine.
        Equal calls on the same machine give equal weights, whatever was run before, and the weights at a stop do not
        depend on the stops after it. Raises InputError if the loss explodes.
        """
        for variable, value in zip(self._variables, self._start, strict=True):
            variable.assign(value)
        own, replayed, settings = Crops(samples, self.settings), self._replayed, self.settings

        def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
            if replayed is None:
                return own.draw(number)
            return (replayed if number % 2 else own).draw(number // 2)

        numbers = range(max(stops) * settings.batch_size)
        batches = as_dataset(draw, numbers, settings, self.metadata.normalize.channels)
        for step, batch in enumerate(batches, start=1):
            loss = float(self.model.train_on_batch(*batch, return_dict=True)["loss"])
            if not loss < EXPLODED:
                raise InputError(f"the loss of the fine-tuning became {loss:.4g}; check the labels, or calibrate only")
            self.on_step()
            if step in stops:
                yield step, self.model.get_weights()

    def to_onnx(self, weights: Sequence[np.ndarray], samples: Sequence[Sample] = ()) -> bytes:
        """Return the content of an ONNX file with these weights: in eight bits if there are samples to calibrate on.

        It is calibrated on those and on images of the replay. Changes the weights of the model, which a run sets again.
        """
        self.model.set_weights(weights)
        replay = _evenly(self.replay, CALIBRATION_CROPS) if samples else ()
        seen, replayed = (
            [at_one_size(sample.image, sample.labels, self.metadata.diameter)[0] for sample in group]
            for group in (samples, replay)
        )
        crops = [*_tiles(seen), *(center_crop(image, CROP) for image in replayed)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model.onnx")
            onnx_file.save(self.model, path, self.metadata, crops)
            return path.read_bytes()


def _tiles(images: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Cut images into tiles, and return some, evenly spread over all."""
    return _evenly([
        image[top : top + CROP, left : left + CROP]
        for image in images
        for top in range(0, image.shape[0], CROP)
        for left in range(0, image.shape[1], CROP)
    ], CALIBRATION_CROPS)  # fmt: skip


def _evenly(items: Sequence, count: int) -> list:
    """Return at most so many of the items, evenly spread."""
    return [items[number] for number in range(0, len(items), -(-len(items) // count) or 1)]
