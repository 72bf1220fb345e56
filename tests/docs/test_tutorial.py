"""docs/tutorial.md: its commands, numbers, excerpts and figures are those of the code as it is now."""

import re
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from surefoot import cli
from surefoot.params.params_yaml import load_params
from surefoot.params.sections import Params
from tests.helpers import PROJECT
from tutorial import page
from tutorial.__main__ import SECTIONS

PAGE = (PROJECT / page.PAGE).read_text()
COMMANDS = list(page.commands(PAGE))
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FAST = ("noise", "parts")


def sections():
    """(heading, text) of each section."""
    parts = re.split(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    return list(zip(["the first one", *parts[1::2]], parts[::2], strict=True))


def numbers(text):
    return set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text.replace(",\n", "\n").replace(", ", " ")))


# --- commands


def test_every_experiment_is_on_the_page_and_the_other_way_round():
    shown = [command.text.split()[-1] for command in COMMANDS if "-m tutorial" in command.text]
    assert sorted(shown) == sorted(SECTIONS)
    assert all((PROJECT / "tutorial" / f"{name}.py").is_file() for name in SECTIONS)


def test_settings_that_commands_change_are_there_and_may_be_so():
    values = load_params(PROJECT / "params.yaml").model_dump(mode="json")
    for command in COMMANDS:
        for key, value in re.findall(r"-S (\S+?)=(\S+)", command.text):
            *path, last = key.split(".")
            section = values
            for part in path:
                section = section[part]
            assert last in section, command
            section[last] = YAML(typ="safe").load(value)
            Params.model_validate(values)


def test_settings_in_yaml_are_there_and_may_be_so():
    values = load_params(PROJECT / "params.yaml").model_dump(mode="json")
    shown = [YAML(typ="safe").load(text) for language, text in FENCED.findall(PAGE) if language == "yaml"]
    assert len(shown) == 5
    for given in shown:
        later = {"start_from", "rows"} - Params.model_fields["train"].annotation.model_fields.keys()
        merged = {
            section: values[section] | {key: value for key, value in inner.items() if key not in later}
            for section, inner in given.items()
        }
        Params.model_validate(values | merged)


def test_commands_of_surefoot_are_there_or_are_marked_as_not_run():
    for command in COMMANDS:
        if command.text.startswith(".venv/bin/surefoot"):
            assert command.text.split()[1] in cli.COMMANDS or not command.runs, command


def test_the_schedules_of_the_page_are_those_that_are_drawn():
    from tutorial.schedules import PLANS

    shown = [
        YAML(typ="safe").load(text)["train"]
        for language, text in FENCED.findall(PAGE)
        if language == "yaml" and "schedule" in text
    ]
    wanted = [PLANS[name] for name in ("step", "warm-up, cosine", "one cycle", "on plateau")]
    assert [(train["lr"], train["schedule"]) for train in shown] == wanted


# --- excerpts, figures, numbers


def test_excerpts_are_the_code_as_it_is():
    excerpts = re.findall(r"<!-- excerpt: (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert {name for name, _ in excerpts} == {
        "tutorial/loop.py",
        "src/surefoot/training/loop.py",
        "src/surefoot/training/step.py",
    }
    rest = {name: iter([line.strip() for line in (PROJECT / name).read_text().splitlines()]) for name, _ in excerpts}
    for name, text in excerpts:
        for line in text.splitlines():
            assert line.strip() in rest[name], f"{name} has no such line, or not in this order: {line}"


def test_every_figure_is_shown_and_described():
    shown = re.findall(r"!\[(.*?)\]\((.*?)\)", PAGE)
    assert sorted(path for _, path in shown) == sorted(
        f"images/tutorial/{path.name}" for path in (PROJECT / page.FIGURES).glob("*.png")
    )
    assert all(len(text) > 30 for text, _ in shown)


@pytest.mark.parametrize(("heading", "text"), sections(), ids=[heading for heading, _ in sections()])
def test_numbers_in_the_prose_are_those_of_the_output(heading, text):
    """Each stands in a block of the same section too, whose output is compared; small whole ones may be counts of the
    text's own.
    """
    blocks = "\n".join(f"{language} {block}" for language, block in FENCED.findall(text))
    prose = re.sub(r"`[^`]*`|!\[.*?\]\(.*?\)|\]\(.*?\)", "", FENCED.sub("", text))
    known = {value.rstrip(".,") for value in numbers(blocks)} | {str(count) for count in range(13)}
    assert {value for value in numbers(prose) if value.rstrip(",") not in known} - OF_THE_TEXT.get(
        heading, set()
    ) == set()


# What no command of the section prints: the rows, of which there is a test below, and settings.
OF_THE_TEXT = {
    "the first one": {"1,797", "1259", "269", "64", "3.11"},
    "1. What is stochastic gradient descent?": {"20"},
    "5. What does the size of a minibatch do?": {"30", "32"},
    "7. Why SGD, and when another optimizer?": {"64"},
}


def test_the_rows_of_the_first_section_are_those_of_the_data():
    from tutorial import lab

    splits = lab.batches(load_params(PROJECT / "params.yaml")).index.splits
    assert [splits[name].rows for name in ("train", "validation", "test")] == [1259, 269, 269]
    assert 1259 + 2 * 269 == 1797
    assert -(-1259 // 64) == 20  # steps of an epoch


def test_what_takes_seconds_is_run_and_compared(tmp_path):
    """In a directory of its own: the figures are written there."""
    for name in ("src", "data", "tutorial"):
        (tmp_path / name).symlink_to(PROJECT / name)
    (tmp_path / "params.yaml").write_bytes((PROJECT / "params.yaml").read_bytes())
    command = [sys.executable, "-m", "tutorial", *FAST]
    done = subprocess.run(command, cwd=tmp_path, env=page.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shown = [
        line
        for name in FAST
        for command in COMMANDS
        if command.text.endswith(f"tutorial {name}")
        for line in command.output
    ]
    assert done.stdout.splitlines() == shown
    for name in FAST:
        assert (tmp_path / page.MADE / f"{name}.png").read_bytes() == (
            PROJECT / page.FIGURES / f"{name}.png"
        ).read_bytes()


@pytest.mark.slow
def test_all_of_it_is_run_and_compared():
    done = subprocess.run(
        [sys.executable, "-m", "tutorial"], cwd=PROJECT, env=page.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].endswith("nothing differs")


# --- the comparison itself

EXAMPLE = """
```console
$ first
one 1
$ second \\
    goes on
...
two 0.5 (0.05 s, 26,594 rows/s)
...
```

<!-- not run: later -->
```console
$ third
```

```console
$ fourth
```
"""


def test_commands_are_found():
    found = [(command.text, command.output, command.runs) for command in page.commands(EXAMPLE)]
    assert found == [
        ("first", ("one 1",), True),
        ("second goes on", ("...", "two 0.5 (0.05 s, 26,594 rows/s)", "..."), True),
        ("third", (), False),
        ("fourth", (), True),
    ]


def test_what_differs_is_told():
    first, second, *_ = page.commands(EXAMPLE)
    assert page.differences(first.output, ["one 1"]) == []
    assert page.differences(first.output, ["one 2"]) == ["- one 1", "+ one 2"]
    assert page.differences(first.output, ["one 1", "more"]) == ["+ more"]
    assert page.differences(second.output, ["so", "two 0.5  (0.07 s, 1 rows/s)"]) == []
    assert page.differences(second.output, ["so", "two 0.6  (0.07 s, 1 rows/s)"]) == [
        "- two 0.5 (0.05 s, 26,594 rows/s)"
    ]
    assert page.updated(second.output, ["two 9.9 (1 s, 1 rows/s)", "two 0.6 (1 s, 1 rows/s)", "so"]) == [
        "...",
        "two 0.6 (1 s, 1 rows/s)",
        "...",
    ]
    assert page.updated(first.output, ["other"]) == ["other"]


def test_a_command_that_fails_shows(tmp_path):
    assert page.run("echo some; false", tmp_path) == ["some", "exit code 1"]
    assert page.run("echo 'error: told'; exit 2", tmp_path) == ["error: told"]


def test_a_section_that_is_not_there(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tutorial", "nose"], cwd=PROJECT, env=page.environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (
        2,
        f"error: there is no section 'nose'; there are {', '.join(SECTIONS)}\n",
    )
