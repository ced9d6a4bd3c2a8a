"""What is it worth to annotate k images of one's own? stage1_test in five folds, adapted to k images of the others.

    python -m benchmarks.adapt [--k 1 2 5 10 20 50] [--folds 5] [--steps 120] [--without-replay]

The test images are split into five folds by source frame: neighbouring tiles, which preprocess finds, stay together.
For each fold and k, models/model.keras is adapted to the first k images of the other folds, in a fixed random order,
and scored on the fold:
  plain        as it is
  offset only  the outline offset is measured on the k images
  calibrated   and thresholds are chosen, from as many images on as `nuclei_unet.adaptation.calibrate.enough` says
  fine-tuned   `--steps` steps of training on the k images, half of each batch from the training split; settings as they
               were. `nuclei-unet adapt` chooses the number of steps and the settings as well, which takes trainings of
               its own
StarDist, trained by benchmarks.peers, stands beside: with the thresholds of the validation images, and with those that
its own function finds on the same k images. It needs the environment of benchmarks.peers, and is left out otherwise.
All on 2 cores takes a night; --folds 1 gives a first look. Writes benchmarks/results/adapt.md.
"""

import argparse
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from nuclei_unet.adaptation import finetune
from nuclei_unet.adaptation.calibrate import Annotated, Trials, calibrate, enough
from nuclei_unet.adaptation.folds import folds, nuclei_in
from nuclei_unet.evaluation import metrics
from nuclei_unet.images import resize
from nuclei_unet.network import runtime
from nuclei_unet.network.tensorflow_engine import TensorFlowNetwork
from nuclei_unet.prediction import models
from nuclei_unet.prediction.predictor import Predictor
from nuclei_unet.sample import Sample
from pipeline import layout, params
from pipeline.dataset import processed
from pipeline.machine import describe

RESULT = Path("benchmarks/results/adapt.md")
STARDIST = Path("models/stardist")
FOLDS = 5


def main() -> None:
    """Write the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k", type=int, nargs="+", default=[1, 2, 5, 10, 20, 50], help="numbers of annotated images")
    parser.add_argument("--folds", type=int, default=FOLDS, help=f"score only the first of the {FOLDS} folds")
    parser.add_argument("--steps", type=int, default=120, help="of the fine-tuning; 0: none")
    parser.add_argument("--without-replay", action="store_true", help="fine-tune on the k images alone")
    arguments = parser.parse_args()
    settings = params.load()
    runtime.configure(settings.train)
    samples = processed.read_split("test")
    frames = processed.read_manifest().set_index("image_id").frame
    place = np.array(
        folds([frames[sample.image_id] for sample in samples], [nuclei_in(sample.labels) for sample in samples], FOLDS)
    )
    network, card, _ = models.load_weights(layout.MODEL)
    predict = card.recipe.predict
    engine = TensorFlowNetwork(network, card.recipe.network, settings.train.precision)
    predictor = Predictor(engine, card.recipe.network, predict)
    trials = Trials([_seen(predictor, sample) for sample in tqdm(samples, "plain", unit="image", disable=None)])
    tuner = None
    if arguments.steps:
        made = finetune.settings_for(card.recipe, settings.train.seed, settings.train.threads, arguments.steps)
        made = made.model_copy(update={"precision": settings.train.precision})
        replay = () if arguments.without_replay else processed.read_split("train")
        tuner = finetune.Finetuner(network.get_weights(), made, engine.channels, replay)
    star = stardist(samples) if find_spec("stardist") and STARDIST.is_dir() else None

    found: dict[tuple[int, str], list[float]] = {}
    for fold in range(min(arguments.folds, FOLDS)):
        held = np.flatnonzero(place == fold)
        order = np.random.default_rng(2018).permutation(np.flatnonzero(place != fold))
        for k in arguments.k:
            chosen = order[:k]

            def add(way: str, score: Callable[[int], float], k: int = k, held: np.ndarray = held) -> None:
                found.setdefault((k, way), []).extend(score(index) for index in held)

            add("plain", lambda index: trials.score(predict, [index]))
            for way, search in (("offset only", False), ("calibrated", enough([trials.images[i] for i in chosen]))):
                best = calibrate(trials, predict, chosen, search=search)
                add(way, lambda index, best=best: trials.score(best, [index]))
            if tuner:
                ((_, weights),) = tuner.run([samples[index] for index in chosen], [arguments.steps])
                engine.set_weights(weights)
                add(
                    "fine-tuned",
                    lambda index: _score(
                        samples[index], predictor.labels(samples[index].image, samples[index].labels.shape)
                    ),
                )
            if star:
                add("StarDist, plain", star([]))
                add("StarDist, thresholds of the k images", star(chosen))
            print(f"fold {fold + 1}, k = {k}: " + ", ".join(f"{w} {np.mean(v[-len(held):]):.3f}"
                  for (n, w), v in found.items() if n == k), flush=True)  # fmt: skip
    table = pd.Series({key: np.mean(values) for key, values in found.items()}).unstack(sort=False)
    table.index.name = "annotated images"
    n_images = len(next(iter(found.values())))
    text = "\n".join(
        [
            describe(),
            "",
            f"Mean dsb_score of {n_images} test images in {min(arguments.folds, FOLDS)} of {FOLDS} folds, each scored "
            f"by a model that was adapted to images of other folds. Fine-tuned: {arguments.steps} steps, "
            f"{'without' if arguments.without_replay else 'with'} replay.",
            "",
            table.to_markdown(floatfmt=".3f"),
        ]
    )
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(text + "\n")
    print(text)


def _seen(predictor: Predictor, sample: Sample) -> Annotated:
    image, truth = sample.image, sample.labels
    maps = {name: values.astype(np.float16) for name, values in predictor.maps(image, truth.shape).items()}
    return Annotated(maps, resize(image, truth.shape), truth)


def _score(sample: Sample, labels: np.ndarray) -> float:
    return metrics.dsb_score(metrics.instance_counts(sample.labels, labels))


def stardist(samples: Sequence[Sample]) -> Callable[[Sequence[int]], Callable[[int], float]]:
    """Return a function from the images for the thresholds (none: those it has) to one from an image to its score."""
    from stardist.models import StarDist2D

    from benchmarks.peers import arrays

    model = StarDist2D(None, name=STARDIST.name, basedir=str(STARDIST.parent))
    images, labels = arrays(list(samples))
    own = model.thresholds._asdict()

    def adapted(chosen: Sequence[int]) -> Callable[[int], float]:
        found = own
        if len(chosen):
            found = model.optimize_thresholds(
                [images[i] for i in chosen], [labels[i] for i in chosen], save_to_json=False
            )
            model.thresholds = own
        prob, nms = found["prob"], found["nms"]
        return lambda index: _score(
            samples[index], model.predict_instances(images[index], prob_thresh=prob, nms_thresh=nms)[0]
        )

    return adapted


if __name__ == "__main__":
    main()
