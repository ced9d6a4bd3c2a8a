"""Names, files and models that mean harm: on the pages that show them, and in every command that opens them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import mlflow
import numpy as np
from playwright.sync_api import Error, Page

from benchmarks.fault_injection.project import Failed, Project, fault
from docs import screenshots
from nuclei_unet.prediction.models import PRETRAINED
from pipeline import layout
from pipeline.tracking import names

CHAMPION = "models:/nuclei-unet@champion"
CODE = "document.title='pwned',alert(1)"
IMAGE = f'<img src=x onerror="{CODE}">'
SCRIPT = f"</script><script>{CODE}</script>"
LINK = f"[x](javascript:{CODE})"
QUOTE = f'"\'><svg onload="{CODE}">'
HOSTILE = (IMAGE, SCRIPT, f"javascript:{CODE}", LINK, QUOTE, "a | b\n| c | d |", "</td></tr></table>" + IMAGE)
MARKER = "harm"  # what a file writes if its code runs
MOST_MB, MOST_SECONDS = 600, 60  # that opening a hostile model may take
PYTHON = (sys.executable, "-m")


# ---- pages


@contextmanager
def watched():
    """Start a browser; yields (page, what happened on it that must not)."""
    with screenshots.browser() as browser:
        page, harm = browser.new_page(viewport=screenshots.SIZE), []
        page.on("dialog", lambda dialog: (harm.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: harm.append(f"asked for {request.url}") if _is_x(request.url) else None)
        yield page, harm


def _is_x(address: str) -> bool:
    return address.rstrip("/").endswith("/x")


def unharmed(page: Page, harm: list[str], shown: str, *, pictures: bool = False) -> None:
    """Fail if a script of a hostile text ran, or a link runs one, or `shown` is not on the page as text.

    `pictures` says whether the page may load pictures that a text asks for, as Markdown can.
    """
    page.wait_for_timeout(500)
    if pictures:
        harm = [what for what in harm if not what.startswith("asked for")]
    if harm or page.title() == "pwned":
        raise Failed(f"a script ran: {[*harm, page.title()]}")
    links = page.evaluate("[...document.querySelectorAll('[href],[src]')].map(e => e.href || e.src || '')")
    if any(str(link).lower().startswith("javascript:") for link in links):
        raise Failed("a link runs a script")
    if page.evaluate("[...document.querySelectorAll('*')].some(e => e.hasAttribute('onerror'))"):
        raise Failed("a name became an element")
    if shown not in page.evaluate("document.documentElement.textContent"):
        raise Failed(f"does not show {shown}")


def open_page(project: Project, name: Path, shown: str) -> None:
    """Open a file in a browser, and fail if it does harm."""
    with watched() as (page, harm):
        page.goto((project.folder / name).absolute().as_uri())
        unharmed(page, harm, shown)


def edit(path: Path, change) -> None:
    """Change a text file; a copy, since it may be a link to DVC's cache."""
    text = path.read_text()
    path.unlink()
    path.write_text(change(text))


@fault("report.html: names that are scripts", start="undisturbed", outputs=False)
def _(project):
    rows = [{"fault": text, "image_id": text, "detail": text, "handled": text} for text in HOSTILE]
    edit(project.folder / layout.AUDIT, lambda text: json.dumps(json.loads(text) | {"faults": rows}))
    quoted = '"{}"'.format(IMAGE.replace('"', '""'))
    for name in (layout.BY_TYPE, layout.PER_IMAGE):
        edit(project.folder / name, lambda text: re.sub(r"(?m)\b(synthetic|drawn)[\w-]*", lambda _: quoted, text))
    if project.run(*PYTHON, "pipeline.visualize"):
        raise Failed(f"no report: {project.error()}")
    open_page(project, layout.REPORT, SCRIPT)
    return "Shown as text; no script ran in Chromium."


def _git(project: Project, *command: str) -> None:
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "commit.gpgsign=false")
    if project.run("git", *who, *command):
        raise Failed(f"git {command[0]}: {project.error()}")


@fault("compare.html: a branch, a commit and parameters that are scripts", start="undisturbed", outputs=False)
def _(project):
    # Git takes neither spaces nor brackets in names of branches.
    branch = "<img/src=x/onerror=document.title='pwned',alert(1)>"
    (project.folder / ".dvc/config.local").unlink()
    good = (project.folder / layout.PARAMS).read_text()
    added = "".join(f"? {json.dumps(text)}\n: {json.dumps(text)}\n" for text in HOSTILE)
    (project.folder / layout.PARAMS).write_text(f"{good}\n{added}")
    _git(project, "init", "--quiet")
    _git(project, "add", "--all")
    _git(project, "commit", "--quiet", "--message", "\n".join(HOSTILE))
    _git(project, "branch", branch)
    (project.folder / layout.PARAMS).write_text(good)
    if project.run(*PYTHON, "pipeline.tools.compare", branch):
        raise Failed(f"no page: {project.error()}")
    open_page(project, layout.COMPARISON, SCRIPT)
    return "Shown as text; no script ran in Chromium."


def image(path: Path) -> None:
    """Write a small image with a nucleus."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((64, 64), 20, np.uint8)
    cv2.circle(pixels, (30, 30), 10, 200, -1)
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


@fault("nuclei-unet predict: names of files that are scripts", start="fresh", outputs=False)
def _(project):
    folder = project.folder / "images"
    for text in HOSTILE:
        # A slash makes subfolders: the name as a whole is the text again.
        image(folder / f"{text}.png")
    (folder / f"broken {IMAGE}.png").write_bytes(b"no image")
    (folder / "broken \x1b]0;pwned\x07\n.png").write_bytes(b"no image")
    model = project.folder / f"{IMAGE}.onnx"
    shutil.copy(PRETRAINED, model)
    command = (*PYTHON, "nuclei_unet", "predict", "images", "results", "--engine", "onnx", "--model", str(model))
    if project.run(*command) != 1:
        raise Failed(f"broken images were not noticed: {project.error()}")
    if "\x1b" in project.log():
        raise Failed("a name reaches the terminal as it is")
    open_page(project, Path("results/summary.html"), SCRIPT)
    return f"{len(HOSTILE)} images: shown as text; no script ran in Chromium, no sign reached the terminal as it was."


@fault("MLflow: a run whose name, description and tags are scripts", start="undisturbed")
def _(project):
    # As the pipeline names and describes it, but with words that its schema does not let through.
    client = mlflow.MlflowClient(f"sqlite:///{project.folder / layout.STORE}")
    experiment = client.get_experiment_by_name(names.EXPERIMENT).experiment_id
    run = client.create_run(experiment, run_name=IMAGE)
    client.set_tag(run.info.run_id, names.NOTE, "\n\n".join(["text of the run", *HOSTILE]))
    for number, text in enumerate(HOSTILE):
        client.set_tag(run.info.run_id, f"changed{number}", text)
        client.log_param(run.info.run_id, f"value{number}", text)
    client.set_tag(run.info.run_id, "git_branch", IMAGE)
    client.set_terminated(run.info.run_id)
    address = f"/#/experiments/{experiment}/runs/{run.info.run_id}?workflowType=machine_learning"
    try:
        with (
            screenshots.user_interface(project.folder, project.environment) as (server, scores),
            watched() as (page, harm),
        ):
            screenshots.visit(page, screenshots.Shown(scores, (IMAGE,)))
            screenshots.visit(page, screenshots.Shown(f"{server}{address}", ("text of the run",)))
            unharmed(page, harm, IMAGE, pictures=True)
    except (Error, SystemExit) as error:  # a page or a server that does not come
        raise Failed(f"MLflow's pages: {str(error).splitlines()[0]}") from None
    # Ours cannot hold one: all that stands in it was checked against the schema of params.yaml.
    return "No script ran in Chromium; a picture in a description, which is Markdown, is loaded."


# ---- models


@fault("models of others: links, other files, terabytes, bombs, code, not-a-number weights", start="undisturbed")
def _(project):
    folder = project.folder / "models-of-others"
    code = (
        "import json, pathlib; from benchmarks.fault_injection import hostile_models as h;"
        f"print(json.dumps(h.write(pathlib.Path('{layout.MODEL}'), pathlib.Path('nuclei_unet/pretrained/model.onnx'), "
        "pathlib.Path('models-of-others'))))"
    )
    if project.run(sys.executable, "-c", code):
        raise Failed(f"could not be made: {project.error()}")
    said = json.loads(project.log().splitlines()[-1])
    for name in ("images", "labels"):
        image(project.folder / name / "a.png")
    files = [str(folder / name) for name in said]
    most = 0.0
    for command in (
        ("predict", "images", "results", "--engine", "auto", "--model", "MODEL"),
        ("info", "MODEL"),
        ("adapt", "images", "labels", "--out", "adapted.keras", "--model", "MODEL"),
    ):
        # Relative names of other files would be found from here.
        for name in ("elsewhere.bin", "elsewhere.h5"):
            shutil.copy(folder / name, project.folder / name)
        process = project.start(*PYTHON, "benchmarks.fault_injection.hostile_models", *command, "--", *files)
        try:
            process.wait(600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failed(f"{command[0]}: no end") from None
        told = [json.loads(line) for line in project.log().splitlines() if line.startswith('{"file"')]
        if len(told) != len(files):
            raise Failed(f"{command[0]}: died after {len(told)} files: {project.error()}")
        for row in told:
            _check_refusal(command[0], row, said[Path(row["file"]).name])
        most = max([most, *(row["MB"] for row in told)])
    unwanted = ("escaped", MARKER, "adapted.keras", "results/a_labels.tif")
    made = [name for name in unwanted if (project.folder / name).exists()]
    if made:
        raise Failed(f"wrote {made}")
    return f"{len(files)} files, three commands: one clear line each, no other file read, at most {most:.0f} MB more."


def _check_refusal(command: str, row: dict, wanted: str) -> None:
    what = f"{command} {Path(row['file']).name}: "
    if row["MB"] > MOST_MB or row["seconds"] > MOST_SECONDS:
        raise Failed(f"{what}{row['seconds']:.0f} s, {row['MB']:.0f} MB")
    lines = [line for line in row["said"].splitlines() if line.startswith("error: ")]
    # `info` opens no weights of Keras, so it says what the recipe says if that is whole.
    if command == "info" and row["code"] == 0 and "not a model that can be loaded" in wanted:
        return
    if row["code"] != 1 or len(lines) != 1 or "Traceback" in row["said"] or not re.search(wanted, lines[0]):
        raise Failed(f"{what}{row['code']}, {row['said'][-200:]}")


@fault("evaluate: models/trained.keras reads another file, or holds code", start="undisturbed")
def _(project):
    trained = project.folder / layout.TRAINED
    good = trained.read_bytes()
    said = []
    for name in ("external-link", "lambda"):
        code = (
            "import zipfile, pathlib; from benchmarks.fault_injection import hostile_models as h;"
            f"p = pathlib.Path('{layout.TRAINED}'); a = zipfile.ZipFile(p);"
            "good = {n: a.read(n) for n in a.namelist()}; pathlib.Path('elsewhere.h5').write_bytes(good[h.WEIGHTS]);"
            f"members = good | h.KERAS['{name}'][0](good, pathlib.Path().absolute()); p.unlink();"
            "b = zipfile.ZipFile(p, 'w'); [b.writestr(n, d) for n, d in members.items()]; b.close()"
        )
        if project.run(sys.executable, "-c", code):
            raise Failed(f"could not be made: {project.error()}")
        said.append(project.refused(*PYTHON, "pipeline.evaluate", says=f"{layout.TRAINED}: "))
        trained.unlink()
        trained.write_bytes(good)
    if (project.folder / MARKER).exists():
        raise Failed("code of the model ran")
    return f"Refused, nothing was read or run: {said[-1][:120]}"


@fault("train: a state in .resume/ that would run code, and one that claims terabytes")
def _(project):
    states = project.folder / layout.RESUME
    for kind in ("code", "terabytes"):
        project.interrupt(lambda: list(states.glob("train-*.npz")), signal.SIGKILL, "train")
        (state,) = states.glob("train-*.npz")
        code = (
            "import sys, pathlib; from benchmarks.fault_injection import hostile_models as h;"
            f"h.STATES['{kind}'](pathlib.Path(sys.argv[1]))"
        )
        if project.run(sys.executable, "-c", code, str(state)):
            raise Failed(f"could not be made: {project.error()}")
        started = time.monotonic()
        project.interrupt(lambda: project.epochs_kept() >= 1, signal.SIGKILL, "train")
        if "is damaged; starting from the first epoch" not in project.log():
            raise Failed(f"{kind}: not noticed: {project.error()} after {time.monotonic() - started:.0f} s")
        if (project.folder / MARKER).exists():
            raise Failed("code of the state ran")
    project.repro()
    return "A warning, nothing was run; the training starts again and ends in the same model."


# ---- code beside a model


@fault("MLflow: the champion's Python code is hostile", start="undisturbed")
def _(project):
    marker = project.folder / MARKER
    # A store of its own: that of a copied folder names files in the other one.
    (project.folder / layout.STORE).unlink()
    shutil.rmtree(project.folder / "mlruns")
    if project.run(*PYTHON, "pipeline.tools.sync"):
        raise Failed(f"make sync: {project.error()}")
    places = [path for path in (project.folder / "mlruns").rglob("*.py") if path.name in ("serving.py", "__init__.py")]
    if not places:
        raise Failed("no code in the registered model")
    for path in places:
        path.write_text(f"open({str(marker)!r}, 'w').close()\n{path.read_text()}")
    image(project.folder / "images/a.png")
    project.environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{project.folder / layout.STORE}"
    for command in (
        ("nuclei_unet", "info", CHAMPION),
        ("nuclei_unet", "predict", "images", "results", "--model", CHAMPION),
        ("pipeline.tools.sync",),
        ("pipeline.evaluate",),
    ):
        if project.run(*PYTHON, *command):
            raise Failed(f"{command[0]}: {project.error()}")
        if marker.exists():
            raise Failed(f"{' '.join(command)} ran the code")
    code = f"import mlflow; mlflow.pyfunc.load_model('{CHAMPION}')"
    project.run(sys.executable, "-c", code)
    if not marker.exists():
        raise Failed("the trap does not work: MLflow itself did not run it")
    return "info, predict, make sync and evaluate with its choice of champion never run it; MLflow's own loading does."
