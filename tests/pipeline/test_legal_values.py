"""What the schema of params.yaml takes, the pipeline works with: sets of values drawn from the schema itself."""

import re
import subprocess
import sys

from benchmarks.fault_injection import legal
from pipeline import params
from pipeline.process import OUTSIDE, environment
from tests import PARAMS, ROOT


def test_drawn_sets_are_legal_and_differ(tmp_path):
    drawn = [legal.draw(number) for number in range(50)]
    assert legal.draw(3) == drawn[3]
    for values in drawn:
        path = tmp_path / "params.yaml"
        path.write_text(params.override(PARAMS.read_text(), values))
        params.load(path)
    for key, extremes in {
        "train.seed": {0, 2**32 - 1},
        "train.learning_rate": {10.0},
        "train.threads": {1},
        "train.batch_size": {1},
        "evaluate.min_area": {0, 2**31 - 1},
        "evaluate.smoothing": {0.0, 50.0},
        "preprocess.channels": {1, 3},
        "preprocess.percentiles": {None},
    }.items():
        assert extremes <= {v if (v := values[key]) is None or not isinstance(v, list) else "list" for values in drawn}
    assert {len(values["train.model.filters"]) for values in drawn} >= {2, 8}
    assert {len(values["train.targets"]) for values in drawn} == {1, 2, 3}


def test_the_first_sets_work_or_are_refused_in_one_line():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fault_injection.legal", "--sets", "10"],
        cwd=ROOT,
        env=environment(without=OUTSIDE),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    counts = re.findall(r"^ *(\d+)  (works|error: .+)$", done.stdout, re.MULTILINE)
    assert sum(int(count) for count, _ in counts) == 10
    assert max(int(count) for count, said in counts if said == "works") >= 3
