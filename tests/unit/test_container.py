"""The Dockerfile and what is kept from it, where no container can be built."""

import re
import subprocess

from tests.helpers import PROJECT

DOCKERFILE = re.sub(r"\\\n\s*", "", (PROJECT / "Dockerfile").read_text())
STEPS = [line.split(None, 1) for line in DOCKERFILE.splitlines() if line and not line.startswith("#")]
IGNORED = [line for line in (PROJECT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]


def git(*arguments, **options):
    return subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, **options).stdout


def test_what_git_ignores_stays_out():
    """And nothing else: where a tracked file lacks, each run there would have a patch that deletes it."""
    places = [pattern.replace("**/", "src/").replace("*", "x") for pattern in IGNORED]
    ignored = git("check-ignore", "--no-index", "--stdin", input="\n".join(f"{place}/x" for place in places))
    # .venv alone is ignored; .venv-lock is there while `make lock` runs.
    assert set(places) - {place.removesuffix("/x") for place in ignored.splitlines()} <= {".venvx"}
    by_git = {
        line.strip("/")
        for name, prefix in ((".gitignore", ""), (".dvc/.gitignore", ".dvc/"))
        for line in (prefix + line.strip("/") for line in (PROJECT / name).read_text().splitlines())
    }
    assert {pattern.removeprefix("**/").rstrip("*") for pattern in IGNORED} == {name.rstrip("*") for name in by_git}


def test_it_ends_as_a_user_without_rights_who_runs_the_pipeline():
    names = [name for name, _ in STEPS]
    assert names[0] == "FROM" and names[-1] == "CMD"
    user = next(number for number, (name, _) in enumerate(STEPS) if name == "USER")
    assert STEPS[user][1] == "surefoot"
    assert [rest for name, rest in STEPS if name == "CMD"] == ['["surefoot", "run"]']
    assert all("--chown=surefoot:surefoot" in rest for name, rest in STEPS[user:] if name == "COPY")
    assert [rest for name, rest in STEPS[user:] if name == "RUN"][-1] == "make setup"
    torch = re.search(r"^torch==.*$", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert torch and "grep ^torch== requirements.txt" in DOCKERFILE
