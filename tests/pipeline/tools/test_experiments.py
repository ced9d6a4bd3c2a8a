"""The table of experiments."""

from pipeline.tools import experiments


def test_experiments_are_sorted_and_name_what_they_change():
    scores = {f"{split}.{score}": 0.5 for split in ("validation", "test") for score in ("dsb_score", "ap50", "iou")}
    names = ["preprocess.image_size", "train.epochs", "train.learning_rate", "evaluate.min_area"]
    rows = [{"rev": "workspace", "Experiment": None}, {"rev": "main", "Experiment": None, "train.epochs": 30, **scores}]
    rows += [
        {"rev": "a", "Experiment": "worse", **scores, "validation.dsb_score": 0.4, "train.epochs": 3},
        {"rev": "b", "Experiment": "failed", "train.epochs": 4},
        {"rev": "c", "Experiment": "better", **scores, "validation.dsb_score": 0.6, "train.epochs": 30,
         "preprocess.image_size": "[128, 128]", "train.learning_rate": 0.1, "evaluate.min_area": 5.0},
    ]  # fmt: skip
    table = experiments.table(rows, names)
    assert table.experiment.tolist() == ["main", "better", "worse"]
    assert table["what it changes"].tolist() == [
        "", "preprocess.image_size=[128, 128], train.learning_rate=0.1, and 1 more", "train.epochs=3"
    ]  # fmt: skip
