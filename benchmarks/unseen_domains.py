"""How well does a recipe cope with domains that it was not trained on? They are held out, one after the other.

    python -m benchmarks.unseen_domains [--steps 200] [--full] ["" train.seed=1 "train.augment.zoom=[0.5,2]" ...]

A domain is an image type at one source size: images of one microscope and one annotator, as far as the data tell.
Validation frames share their microscopes with training, so they cannot say what helps elsewhere; this can. Each variant
is params.yaml with a few values changed ("": none). It is trained without some domains (their validation images
included), and scored on up to 24 images of each of these, without test-time augmentation. The figure to choose by is
the mean dsb_score over domains. The second one, of validation images of domains that were trained on, guards what is
known.

The short form trains four times, each time without two domains that have little in common; `--full` trains once for
each domain. Test images are not read. Needs `dvc repro preprocess`. Rows are kept in
benchmarks/results/unseen_domains.csv, and a run replaces only its own rows.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from ruamel.yaml import YAML

from benchmarks.measure import measure
from pipeline import layout, params, process
from pipeline.dataset import processed
from pipeline.tools.project import copy_project

RESULT = Path("benchmarks/results/unseen_domains.csv")
# Of each domain, spread over its frames: enough to compare, and 256x256 alone has 334.
SCORED = 24
DOMAINS: dict[str, tuple[str, tuple[str, ...]]] = {  # image type (all that start so) and sizes
    "purple on purple": ("purple-on-purple", ()),
    "purple on white": ("purple-on-white", ()),
    "grey tissue 1024x1024": ("grey-tissue", ()),
    "fluorescent 256x256": ("", ("256x256",)),
    "fluorescent 360x360": ("", ("360x360",)),
    "fluorescent 520x696": ("", ("520x696",)),
    "fluorescent 512x640, 603x1272": ("", ("512x640", "603x1272")),
}
FOLDS = (
    ("purple on purple", "fluorescent 360x360"),
    ("grey tissue 1024x1024", "fluorescent 520x696"),
    ("fluorescent 256x256",),
    ("purple on white", "fluorescent 512x640, 603x1272"),
)


def main() -> None:
    """Run the variants."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("variants", nargs="*", default=[""], help="key=value,key=value ... of params.yaml")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--full", action="store_true", help="one training for each domain, instead of four")
    arguments = parser.parse_args()
    folds = [(domain,) for domain in DOMAINS] if arguments.full else FOLDS
    for name in arguments.variants:
        changes = YAML(typ="safe").load("{" + name.replace("=", ": ") + "}")
        row: dict[str, object] = {"variant": name or "default", "steps": arguments.steps, "folds": len(folds)}
        known = []
        for held_out in folds:
            scores = train_and_score(changes, arguments.steps, held_out)
            print(name, scores, flush=True)
            known.append(scores.pop("known domains"))
            row |= scores
        row["mean over domains"] = float(np.mean([row[domain] for domain in DOMAINS]))
        row["known domains"] = float(np.mean(known))
        keep(row)


def keep(row: dict[str, object]) -> None:
    """Write a row to the table in place of one of the same variant and form."""
    table = pd.DataFrame([row])
    if RESULT.exists():
        before = pd.read_csv(RESULT)
        same = (before.variant == row["variant"]) & (before.steps == row["steps"]) & (before.folds == row["folds"])
        table = pd.concat([before[~same], table])
    table.to_csv(RESULT, index=False, float_format="%.4f", lineterminator="\n")
    print(table.to_string(index=False), flush=True)


def domain_of(row) -> str | None:
    """Return the domain of a row of the manifest; None for the few images that belong to none."""
    for domain, (start, sizes) in DOMAINS.items():
        if (
            row.image_type == start
            if start
            else "fluorescent" in row.image_type and f"{row.height}x{row.width}" in sizes
        ):
            return domain
    return None


def train_and_score(changes: dict[str, object], steps: int, held_out: tuple[str, ...]) -> dict[str, float]:
    """Train in a copy of the project whose test images are the held-out domains; return the mean score of each."""
    manifest = processed.read_manifest()
    manifest = manifest[manifest.split != "test"].reset_index(drop=True)
    domains = pd.Series([domain_of(row) for row in manifest.itertuples()])
    kept = [~domains.isin(held_out)]
    for domain in held_out:
        # By frame, so that a few of each microscope's fields are taken, not neighbours.
        rows = manifest[domains == domain].sort_values(["frame", "image_id"]).index
        chosen = rows[np.unique(np.linspace(0, len(rows) - 1, SCORED).round().astype(int))]
        manifest.loc[chosen, "split"] = "test"
        kept.append(manifest.index.isin(chosen))
    with tempfile.TemporaryDirectory() as name:
        project = Path(name, "project")
        copy_project(Path.cwd(), project)
        values = {"train.epochs": 1, "train.steps_per_epoch": steps, "evaluate.augmentations": [[1, 0]]} | changes
        (project / layout.PARAMS).write_text(params.override(layout.PARAMS.read_text(), values))
        folder = project / layout.PROCESSED
        folder.mkdir(parents=True)
        for part in ("images", "labels"):
            (folder / part).symlink_to((layout.PROCESSED / part).absolute())
        manifest[np.any(kept, axis=0)].to_csv(folder / processed.MANIFEST, index=False, lineterminator="\n")
        variables = process.environment(MLFLOW_TRACKING_URI=f"sqlite:///{project / layout.STORE}")
        for stage in ("train", "evaluate"):
            measure([sys.executable, "-m", f"pipeline.{stage}"], project / "log", cwd=project, env=variables)
        scores = pd.read_csv(project / layout.PER_IMAGE, dtype={"image_id": str}).set_index("image_id").dsb_score
    of = dict(zip(manifest.image_id, domains.where(manifest.split == "test", "known domains"), strict=True))
    return scores.groupby(of).mean().to_dict()


if __name__ == "__main__":
    main()
