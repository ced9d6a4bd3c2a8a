"""The house: imports run one way, functions are short, and the library does not know who calls it."""

import ast
import functools
import re

import pytest

from tests import ROOT

STAGES = ("download", "preprocess", "train", "evaluate", "visualize")
# From the ground up: a module imports only from floors below its own, or from its own room.
FLOORS = (
    {"ground": ("nuclei_unet.errors", "nuclei_unet.files", "nuclei_unet.quiet", "nuclei_unet.settings")},
    {"arrays": ("nuclei_unet.images", "nuclei_unet.labels", "nuclei_unet.measurements", "nuclei_unet.sample")},
    {"evaluation": ("nuclei_unet.evaluation",)},
    {"network": ("nuclei_unet.network",), "formats": ("nuclei_unet.formats",)},
    {"training": ("nuclei_unet.training",), "prediction": ("nuclei_unet.prediction",)},
    {"adaptation": ("nuclei_unet.adaptation",), "results": ("nuclei_unet.results",)},
    {"batch": ("nuclei_unet.batch",)},
    {"commands": ("nuclei_unet.commands", "nuclei_unet.__main__")},
    {"face": ("nuclei_unet",)},
    {"ground": ("pipeline.layout", "pipeline.params", "pipeline.stage", "pipeline.git", "pipeline.machine",
                "pipeline.process", "pipeline")},
    {"dataset": ("pipeline.dataset",)},
    {"report": ("pipeline.report",)},
    {"tracking": ("pipeline.tracking",)},
    {stage: (f"pipeline.{stage}",) for stage in STAGES},  # no stage imports a stage
    {"tools": ("pipeline.tools",)},
    {"around": ("benchmarks", "docs", "tests")},
)  # fmt: skip
AROUND = ("benchmarks", "tests")
# Packages that only some places may import.
HOMES = {
    "mlflow": ("pipeline.tracking", *AROUND),
    "dvc": ("pipeline.tools",),
    "dvc_render": ("pipeline.tools",),
    "matplotlib": ("pipeline.report", *AROUND),
    "jinja2": ("nuclei_unet.results", "pipeline", "docs", *AROUND),
    "distributed": ("nuclei_unet.batch.dask_pool", *AROUND),
    **dict.fromkeys(("ruamel", "requests", "pooch"), ("pipeline", "docs", *AROUND)),
    "pandas": ("nuclei_unet.training", "pipeline", *AROUND),
    # What predicts must not import them by accident.
    **dict.fromkeys(
        ("tensorflow", "keras"),
        ("nuclei_unet.network", "nuclei_unet.training", "nuclei_unet.adaptation", "nuclei_unet.quiet", "pipeline",
         *AROUND),
    ),
    "onnxruntime": ("nuclei_unet.network.onnx_file", "nuclei_unet.prediction.engine", *AROUND),
    "onnx": ("nuclei_unet.network.onnx_file", *AROUND),
}  # fmt: skip
FILES = sorted(path for folder in ("nuclei_unet", "pipeline", "benchmarks", "docs")
               for path in (ROOT / folder).rglob("*.py"))  # fmt: skip
LONGEST, MOST_PARAMETERS = 60, 7
# Why each may be longer, or take more.
EXCEPTIONS: dict[str, str] = {}


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_in(module, places):
    return any(module == place or module.startswith(f"{place}.") for place in places)


def room(module):
    """Return the number of a module's floor, and its room there: the longest name that fits."""
    fits = [
        (len(place), number, part)
        for number, floor in enumerate(FLOORS)
        for part, places in floor.items()
        for place in places
        if is_in(module, [place])
    ]
    return max(fits)[1:] if fits else None


@functools.cache
def nodes(text):
    return list(ast.walk(ast.parse(text)))


def imported(text):
    """Return the full names of what a file imports; of `from a import b` that is a.b where b is a module, else a."""
    names = []
    for node in nodes(text):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            paths = [ROOT.joinpath(*node.module.split("."), alias.name) for alias in node.names]
            modules = [path.with_suffix(".py").is_file() or path.is_dir() for path in paths]
            names += [f"{node.module}.{p.name}" if m else node.module for p, m in zip(paths, modules, strict=True)]
    return names


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


def test_imports_run_one_way():
    # The package's face hands out the segmenter, when it is asked for it.
    files = [(path.read_text(), module_of(path)) for path in FILES if module_of(path) != "nuclei_unet"]
    assert [fault for text, module in files for fault in faults(text, module)] == []


def test_no_command_imports_another():
    shared = ("nuclei_unet.commands.arguments", "nuclei_unet.commands.main")
    for path in (ROOT / "nuclei_unet/commands").glob("*.py"):
        names = [name for name in imported(path.read_text()) if name.startswith("nuclei_unet.commands.")]
        assert module_of(path) in shared or not [name for name in names if not is_in(name, shared)], path


@pytest.mark.parametrize(
    ("module", "line", "said"),
    [
        ("nuclei_unet.evaluation.metrics", "from nuclei_unet.prediction import tiles", "above"),
        ("nuclei_unet.training.crops", "from nuclei_unet.prediction import tiles", "beside"),
        ("nuclei_unet.formats.geojson", "from nuclei_unet.network import unet", "beside"),
        ("nuclei_unet.images", "from pipeline import params", "above"),
        ("nuclei_unet.images", "def f():\n    import mlflow.keras", "belongs in pipeline.tracking"),
        ("nuclei_unet.measurements", "import pandas as pd", "belongs in nuclei_unet.training, pipeline"),
        ("nuclei_unet.prediction.predictor", "import tensorflow as tf", "belongs in nuclei_unet.network"),
        ("nuclei_unet.prediction.checks", "from nuclei_unet.commands import predict", "above"),
        ("pipeline.train", "from pipeline import evaluate", "beside"),
        ("pipeline.report.scores", "from pipeline.tracking import names", "above"),
        ("pipeline.report.page", "from dvc.api import exp_show", "belongs in pipeline.tools"),
    ],
)
def test_an_import_that_runs_up_is_named(module, line, said):
    (fault,) = faults(line, module)
    assert fault.startswith(f"{module} imports ") and said in fault


def functions():
    """Yield name, number of lines and number of parameters of all functions of the library and the pipeline."""
    for path in FILES:
        if path.relative_to(ROOT).parts[0] not in ("nuclei_unet", "pipeline"):
            continue
        for node in nodes(path.read_text()):
            if isinstance(node, ast.FunctionDef):
                names = [part.arg for part in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                many = len([name for name in names if name not in ("self", "cls")])
                start = node.body[0].end_lineno if ast.get_docstring(node) else node.lineno
                yield f"{module_of(path)}.{node.name}", node.end_lineno - start, many


def test_functions_are_short_and_take_few_parameters():
    wrong = [name for name, lines, many in functions() if lines > LONGEST or many > MOST_PARAMETERS]
    assert sorted(wrong) == sorted(EXCEPTIONS)


def test_the_library_knows_no_command_and_no_pipeline():
    """Texts below the commands name facts; who calls adds what to do."""
    for path in (ROOT / "nuclei_unet").rglob("*.py"):
        if "commands" in path.parts or module_of(path) == "nuclei_unet":
            continue
        for node in nodes(path.read_text()):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"(^|\s)--[a-z]|`make |\bmake [a-z]+`|`?dvc repro", node.value), (path, node.value)
