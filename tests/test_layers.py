"""Imports run one way: nuclei_unet below pipeline, and in each of them what is general below what is special."""

import ast

import pytest

from tests import ROOT

STAGES = ("download", "preprocess", "train", "evaluate", "visualize")
# From the ground up: a module imports only from floors below its own, or from its own if that is open.
FLOORS = (
    {"open": ("nuclei_unet.errors", "nuclei_unet.files", "nuclei_unet.quiet", "nuclei_unet.settings",
              "nuclei_unet.network.metadata", "nuclei_unet.network.metadata", "nuclei_unet.evaluation.metrics", "nuclei_unet.sample")},
    {"open": ("nuclei_unet.formats.png", "nuclei_unet.images", "nuclei_unet.labels", "nuclei_unet.evaluation.outcomes",
              "nuclei_unet.measurements", "nuclei_unet.evaluation.scores", "nuclei_unet.network")},
    # Three houses on one floor: none imports another.
    {"prediction": ("nuclei_unet.prediction",), "training": ("nuclei_unet.training",),
     "formats": ("nuclei_unet.formats",)},
    # Trains and predicts by turns.
    {"open": ("nuclei_unet.adaptation.adapt",)},
    {"open": ("nuclei_unet.results",)},
    {"open": ("nuclei_unet.batch",)},
    {"open": ("nuclei_unet.commands", "nuclei_unet.__main__")},
    {"open": ("nuclei_unet",)},
    {"open": ("pipeline.layout", "pipeline.params", "pipeline.stage", "pipeline.git", "pipeline.machine",
              "pipeline.process", "pipeline")},
    {"open": ("pipeline.dataset",)},
    {"open": ("pipeline.report",)},
    {"open": ("pipeline.tracking",)},
    {stage: (f"pipeline.{stage}",) for stage in STAGES},  # no stage imports a stage
    {"open": ("pipeline.tools",)},
    {"open": ("benchmarks", "docs", "tests")},
)  # fmt: skip
# Packages that only some places may import.
HOMES = {
    "mlflow": ("pipeline.tracking", "benchmarks", "tests"),
    "dvc": ("pipeline.tools",),
    "dvc_render": ("pipeline.tools",),
    "matplotlib": ("pipeline.report", "benchmarks", "tests"),
    "jinja2": ("nuclei_unet.results", "pipeline", "benchmarks", "docs", "tests"),
    "distributed": ("nuclei_unet.batch.dask_pool", "benchmarks", "tests"),
    **dict.fromkeys(("ruamel", "requests"), ("pipeline", "benchmarks", "docs", "tests")),
    "pandas": ("nuclei_unet.training", "pipeline", "benchmarks", "tests"),
    # What runs without TensorFlow must not import it by accident.
    **dict.fromkeys(
        ("tensorflow", "keras"),
        (
            "nuclei_unet.network",
            "nuclei_unet.training",
            "nuclei_unet.prediction.models",
            "pipeline",
            "benchmarks",
            "tests",
        ),
    ),
    "onnxruntime": ("nuclei_unet.prediction.engine", "benchmarks", "tests"),
    "onnx": ("nuclei_unet.network.onnx_file", "benchmarks", "tests"),
}
FILES = sorted(
    path for folder in ("nuclei_unet", "pipeline", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")
)


def is_in(module, places):
    return any(module == place or module.startswith(f"{place}.") for place in places)


def room(module):
    """Return the number of a module's floor, and its part there: the longest name that fits."""
    fits = [
        (len(place), number, part)
        for number, floor in enumerate(FLOORS)
        for part, places in floor.items()
        for place in places
        if is_in(module, [place])
    ]
    return max(fits)[1:] if fits else None


def imported(text):
    """Return the full names of what a file imports; of `from a import b` that is a.b where b is a module, else a."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [ROOT.joinpath(*node.module.split("."), alias.name) for alias in node.names]
            modules = [path.with_suffix(".py").is_file() or path.is_dir() for path in paths]
            found += [f"{node.module}.{p.name}" if m else node.module for p, m in zip(paths, modules, strict=True)]
    return found


def faults(text, module):
    """Return what is wrong with a file's imports, one line each."""
    wrong = []
    for name in imported(text):
        homes = HOMES.get(name.split(".")[0])
        if homes and not is_in(module, homes):
            wrong.append(f"{module} imports {name}, which belongs in {', '.join(homes)}")
        here, there = room(module), room(name)
        if there and here != there and there[0] >= here[0]:
            wrong.append(f"{module} imports {name}: that lies {'above' if there[0] > here[0] else 'beside'} it")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    module = ".".join(parts).removesuffix(".__init__")
    # The package's face hands out the segmenter, when it is asked for it.
    if module == "nuclei_unet":
        return
    assert not faults(path.read_text(), module)


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("nuclei_unet.evaluation.metrics", "from nuclei_unet.images import to_rgb", "above"),
        ("nuclei_unet.training.crops", "from nuclei_unet.prediction import blocks", "beside"),
        ("nuclei_unet.prediction.tiles", "import nuclei_unet.training.crops", "beside"),
        ("nuclei_unet.images", "from pipeline import params", "above"),
        ("nuclei_unet.images", "def f():\n    import mlflow.keras", "belongs in pipeline.tracking"),
        ("nuclei_unet.images", "from ruamel.yaml import YAML", "belongs in"),
        ("nuclei_unet.measurements", "import pandas as pd", "belongs in nuclei_unet.training, pipeline"),
        ("nuclei_unet.prediction.predictor", "import tensorflow as tf", "belongs in nuclei_unet.network"),
        ("nuclei_unet.formats.geojson", "from nuclei_unet.prediction import models", "beside"),
        ("nuclei_unet.prediction.checks", "from nuclei_unet.commands import predict", "above"),
        ("nuclei_unet.adaptation.finetune", "from nuclei_unet.adaptation.adapt import adapt", "above"),
        ("nuclei_unet.adaptation.adapt", "from nuclei_unet.commands import predict", "above"),
        ("pipeline.train", "from pipeline import evaluate", "beside"),
        ("pipeline.dataset.image_types", "from pipeline.report import scores", "above"),
        ("pipeline.report.scores", "from pipeline.tracking import names", "above"),
        ("pipeline.evaluate", "from pipeline.tools.verify import hashes", "above"),
        ("pipeline.tools.ui", "import mlflow", "belongs in pipeline.tracking"),
        ("pipeline.report.page", "from dvc.api import exp_show", "belongs in pipeline.tools"),
        ("pipeline.stage", "import matplotlib.pyplot as plt", "belongs in pipeline.report"),
        ("pipeline.params", "from pipeline.dataset.processed import MANIFEST", "above"),
    ],
)
def test_an_import_that_runs_up_is_named(module, line, said):
    (fault,) = faults(line, module)
    assert fault.startswith(f"{module} imports ") and said in fault


def test_what_runs_down_is_no_fault():
    assert not faults(
        "from nuclei_unet import InputError, Segmenter, png\nimport numpy as np", "pipeline.tracking.serving"
    )
    assert not faults(
        "from pipeline import layout\nfrom pipeline.report.scores import SCORES", "pipeline.tracking.names"
    )
