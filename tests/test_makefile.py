"""The Makefile: when it installs packages, and that it runs nothing of what its variables hold."""

import os
import shutil
import subprocess

import pytest
from ruamel.yaml import YAML

from tests import ROOT

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
# Stands for Python and makes a .venv whose programs do nothing; all of them write down how they are called. `KILLED_AT`
# kills make with all that it started; until then `venv --clear` has deleted the programs, and no stamp yet. `OTHER_AT`
# does what `venv --clear` of another make does.
FAKE = """#!/bin/sh
printf '%s\\n' "$(basename "$0")" "$@" >> {log}
[ "$2" != "${{KILLED_AT:-never}}" ] || (rm -rf .venv/bin; kill -9 0)
[ "$2" != "${{OTHER_AT:-never}}" ] || rm -f .venv/.[a-z]*
[ "$2" != venv ] || (rm -rf .venv && mkdir -p .venv/bin && for n in python dvc; do cp {fake} .venv/bin/$n; done)
"""


@pytest.fixture
def make(tmp_path):
    """Return a function that runs make in a folder of its own, and returns its exit code and what it called."""
    log, fake = tmp_path / "log", tmp_path / "fake"
    fake.write_text(FAKE.format(log=log, fake=fake))
    fake.chmod(0o755)
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.lock").write_text("a==1\n")
    identity = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], [*identity, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *command], cwd=folder, check=True)

    def run(*arguments, **more):
        log.write_text("")
        # What `make test` hands on to its children is not for this one.
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
        options = {"capture_output": True, "text": True, "start_new_session": True}
        command = ["make", f"PYTHON={fake}", *arguments]
        done = subprocess.run(command, cwd=run.folder, env=variables | more, **options)
        return done, log.read_text().splitlines()

    run.folder = folder
    return run


def test_set_up_goes_by_content(make):
    lock = make.folder / "requirements.lock"

    def installs():
        done, calls = make("setup")
        assert not done.returncode, done.stderr
        return calls.count("--require-hashes")

    assert installs() == 1
    assert installs() == 0
    # As after `git switch` to a branch with the same lock file, and back.
    os.utime(lock, (2**31 - 1, 2**31 - 1))
    assert installs() == 0
    lock.write_text("a==2\n")
    assert installs() == 1
    assert installs() == 0
    lock.write_text("a==1\n")
    assert installs() == 1


def test_set_up_does_not_empty_what_a_link_leads_to(make, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "file").touch()
    (make.folder / ".venv").symlink_to(other)
    done, calls = make("setup")
    assert done.returncode and "error: .venv is a link" in done.stderr
    assert (other / "file").exists() and not calls


@pytest.mark.parametrize("moment", ["venv", "pip", "pipeline.tools.plots"])
def test_a_set_up_that_is_killed_does_not_count_as_ready(moment, make):
    lock = make.folder / "requirements.lock"
    make("setup")
    lock.write_text("a==2\n")
    assert make("setup", KILLED_AT=moment)[0].returncode == -9
    # Neither for the new packages nor for the old ones, which a switch of branches asks for.
    assert not list((make.folder / ".venv").glob(".installed-*"))
    lock.write_text("a==1\n")
    done, calls = make("setup")
    assert not done.returncode and calls.count("--require-hashes") == 1


@pytest.mark.parametrize("name", ["a b", "50%25", "it's", "Ядро 🔬", "-dash", "a&b;c", "n" * 200])
def test_set_up_in_a_folder_of_any_name(name, make):
    make.folder = make.folder.rename(make.folder.with_name(name))
    done, calls = make("repro")
    assert not done.returncode and calls[-2:] == ["dvc", "repro"], done.stderr


@pytest.mark.parametrize("name", ['a" b', "a:b", "$HOME", "`touch pwned`", "a\nb"])
def test_set_up_names_a_folder_that_programs_do_not_start_from(name, make):
    make.folder = make.folder.rename(make.folder.with_name(name))
    done, calls = make("repro")
    assert done.returncode and not calls and not (make.folder / "pwned").exists()
    assert done.stderr.count("error: ") == 1 and "rename or move it" in done.stderr


def test_two_set_ups_at_once_do_not_count_as_ready(make):
    done, _ = make("setup", OTHER_AT="pip")
    assert done.returncode and "error: another make set up .venv at the same time" in done.stderr
    assert not list((make.folder / ".venv").glob(".installed-*"))


@pytest.mark.parametrize(
    "value", ["a;touch pwned", "`touch pwned`", "$(shell touch pwned)", "-h", "a' 'b", 'a" "b', "é$$"]
)
def test_what_a_variable_holds_is_not_run(value, make, tmp_path):
    """It is handed on in one piece, to the letter, and not as an option."""
    make("setup")
    for target, variable in (("compare", "REV"), ("verify", "REV"), ("gate", "REV")):
        assert make(target, f"{variable}={value}")[1][-2:] == ["--", value]
    assert make("ui", f"PORT={value}")[1][-1] == f"--port={value}"
    assert make("adapt", *(f"{name}={value}" for name in ("IMAGES", "LABELS", "OUT")))[1][-4:] == [
        f"--out={value}", "--", value, value
    ]  # fmt: skip
    # It asks git first, which knows no such revision.
    done, calls = make("summary", f"REV={value}")
    assert done.returncode and not calls and f"error: REV={value}: not a commit or experiment" in done.stderr
    done, calls = make("setup", f"LOCKFILE={value}")
    assert done.returncode and not calls and "use requirements.lock or requirements-gpu.lock" in done.stderr
    done, calls = make("summary", f"REV=a\n{value}")
    assert done.returncode and not calls and "must be one line each" in done.stderr
    done, calls = make("--dry-run", "tutorial", f"TUTORIAL={value}")
    assert not done.returncode and value not in done.stdout
    assert not (make.folder / "pwned").exists()


def test_defaults(make):
    make("setup")
    assert [make(target)[1][-1] for target in ("compare", "verify", "ui")] == ["main", "HEAD", "--port=5000"]
    done, calls = make("summary")
    assert not done.returncode and calls[-2:] == ["--", "main"] and "### Scores against main" in done.stdout
    done, calls = make("adapt", "IMAGES=images")
    assert done.returncode and not calls and "error: make adapt IMAGES=images LABELS=labels" in done.stderr
    # An experiment, where DVC keeps it: below the commit that it started from.
    subprocess.run(["git", "update-ref", f"refs/exps/ab/{'c' * 38}/lower", "HEAD"], cwd=make.folder, check=True)
    assert make("summary", "REV=lower")[1][-2:] == ["--", "lower"] and make("summary", "REV=low")[0].returncode


def test_ci_hands_names_on_in_variables():
    """What GitHub puts between the braces becomes part of the shell line."""
    jobs = YAML(typ="safe").load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    lines = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
    assert any("make test" in line for line in lines) and not any("${{" in line for line in lines)
    script = YAML(typ="safe").load((ROOT / ".gitlab-ci.yml").read_text())["compare"]["script"]
    # A branch may be named `--upload-pack=...`.
    assert 'git fetch origin "refs/heads/$CI_MERGE_REQUEST_TARGET_BRANCH_NAME"' in script
