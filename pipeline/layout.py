"""Where everything is: each path of the project and each list of splits, defined once.

Paths are relative to the project's folder, which is the working directory of every stage and tool.
"""

from pathlib import Path

# Splits of the data set, and those that are scored: validation for choices, test for the end.
SPLITS = ("train", "validation", "test")
SCORED_SPLITS = ("validation", "test")

PARAMS = Path("params.yaml")
DVC_FILE = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")

DOWNLOADS = Path("data/downloads")
RAW = Path("data/raw")
TRAIN_ARCHIVE = RAW / "stage1_train.zip"
TEST_ARCHIVE = RAW / "stage1_test.zip"
SOLUTION = RAW / "stage1_solution.csv"
PROCESSED = Path("data/processed")
PREDICTIONS = Path("data/predictions")

TRAINED = Path("models/trained.keras")  # as train writes it
MODEL = Path("models/model.onnx")  # the same network as evaluate exports and scores it: what predicts, and ships

REPORTS = Path("reports")
AUDIT = REPORTS / "data_audit.json"
HISTORY = REPORTS / "history.csv"
SCORES_FILE = REPORTS / "scores.json"
MAIN_SCORES = REPORTS / "metrics.json"
PER_IMAGE = REPORTS / "per_image.csv"
BY_TYPE = REPORTS / "by_type.csv"
AP_BY_THRESHOLD = REPORTS / "ap_by_threshold.csv"
FIGURES = REPORTS / "figures"
REPORT = REPORTS / "report.html"
COMPARISON = REPORTS / "compare.html"
# What MLflow gets from evaluate and from visualize.
TABLES = (SCORES_FILE, MAIN_SCORES, PER_IMAGE, BY_TYPE, AP_BY_THRESHOLD, AUDIT)
PAGES = (FIGURES, REPORT)

RESUME = Path(".resume")  # the state of an unfinished training
LOCKS = Path(".locks")
PLOTS_PAGE = Path(".dvc/plots.html")
DEMO = Path("demo")
PACKAGE = Path("nuclei-unet.bioimageio.zip")  # what `make package` writes
STORE = "mlflow.db"  # in the project's folder, unless MLFLOW_TRACKING_URI is set


def project() -> Path:
    """Return the project's folder, also when called in a copy that `dvc exp run --temp` or a queue made."""
    folder = Path.cwd()
    copies = (path for path in folder.parents if path.parts[-3:] == (".dvc", "tmp", "exps"))
    return next((path.parents[2] for path in copies), folder)
