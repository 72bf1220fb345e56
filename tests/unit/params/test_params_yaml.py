import json
from dataclasses import dataclass

import pytest
from dvc.utils.hydra import apply_overrides
from dvc.utils.serialize import parse_yaml
from hypothesis import example, given
from hypothesis import strategies as st

from surefoot.base import installation
from surefoot.base.errors import UserError
from surefoot.params.dotted_keys import flatten
from surefoot.params.params_yaml import load_params
from surefoot.params.reference import json_schema
from surefoot.params.sections import Params
from tests.helpers import PROJECT, set_param

COMMITTED = (PROJECT / "params.yaml").read_text()


@dataclass
class File:
    path: object

    def line(self, text: str) -> int:
        """The line that starts with `text`, but for its indent."""
        return next(
            number for number, line in enumerate(self.path.read_text().splitlines(), 1) if line.strip().startswith(text)
        )

    def refused(self, *, line: int | None = None) -> str:
        with pytest.raises(UserError) as refusal:
            load_params(self.path)
        message = str(refusal.value)
        if line is not None:
            assert message.startswith(f"{self.path}:{line}: "), message
        return message.removeprefix(f"{self.path}:{line}: ")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED)
    return File(path)


def test_the_committed_file_is_right_and_every_key_of_it_is_given(file):
    params = load_params(file.path)
    assert params.train.lr == 0.01
    given_keys = flatten(parse_yaml(COMMITTED, file.path))
    known = flatten(params.model_dump())
    assert set(given_keys) == set(known)


def as_dvc_writes_it(text, path, *settings):
    """params.yaml after `dvc exp run -S ...`."""
    path.write_text(text)
    apply_overrides(path, list(settings))
    return path.read_text()


def test_the_committed_file_is_as_dvc_writes_it(tmp_path):
    """Else the first `dvc exp run -S` would change lines that it has no business with."""
    written = as_dvc_writes_it(COMMITTED, tmp_path / "params.yaml")
    assert written == COMMITTED, (
        """run: .venv/bin/python -c 'from dvc.utils.hydra import apply_overrides; apply_overrides("params.yaml", [])'"""
    )


def test_an_experiment_changes_the_line_that_it_sets(tmp_path):
    values = flatten(parse_yaml(COMMITTED, "params.yaml"))
    one_line = {key: value for key, value in values.items() if not isinstance(value, list | dict) or not value}
    assert len(one_line) > 60
    for key, value in one_line.items():
        setting = f"{key}=[7]" if value == [] else f"+{key}.x=7" if value == {} else f"{key}=7"
        before, after = (
            COMMITTED.splitlines(),
            as_dvc_writes_it(COMMITTED, tmp_path / "params.yaml", setting).splitlines(),
        )
        changed = [line for line in before if line not in after]
        assert len(changed) == 1, key
        assert key.split(".")[-1] in changed[0]
        assert "#" not in changed[0] or changed[0].partition("#")[2] in "".join(after), "the comment stays"


def test_params_are_frozen(file):
    with pytest.raises(ValueError, match="frozen"):
        load_params(file.path).train.lr = 1.0


HERE = "2.3.0"


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (
            "2.2.9",
            "surefoot: it is of Surefoot 2.2.9, and 2.3.0 is installed: `pip install surefoot==2.2.9`, or `surefoot"
            " upgrade` brings params.yaml and dvc.yaml to 2.3.0",
        ),
        (
            "2.10.0",
            "surefoot: it is of Surefoot 2.10.0, and 2.3.0 is installed: `pip install surefoot==2.10.0`, or bring"
            " params.yaml and dvc.yaml back from a commit that has surefoot: 2.3.0",
        ),
        ("'; rm'", "surefoot: '; rm' is no version; 2.3.0 is installed"),
        ("1.0", "surefoot: input should be a valid string, got 1.0"),
    ],
)
def test_a_file_of_another_version_is_refused_before_its_keys_are_looked_at(file, monkeypatch, version, said):
    monkeypatch.setattr(installation, "installed_version", lambda: HERE)
    monkeypatch.setattr(installation, "pip_install", lambda: "pip install")
    monkeypatch.setattr(installation, "installed_from", lambda: None)
    file.path.write_text(f"# mine\nsurefoot: {version}\n{COMMITTED.replace('  lr: 0.01', '  learning_rate: 0.01')}")
    assert file.refused(line=2).splitlines()[0] == said


@pytest.mark.parametrize(
    ("noted", "said"),
    [
        (
            '{"url": "https://me:secret@example.org/x.git", "vcs_info": {}}',
            "install 2.2.9 from where that came, https://e",
        ),
        ('{"url": 3}', "`pip install surefoot==2.2.9`"),
        ("[", "`pip install surefoot==2.2.9`"),
        (None, "`pip install surefoot==2.2.9`"),
    ],
)
def test_no_index_is_named_that_has_no_surefoot(file, monkeypatch, noted, said):
    """Under that name it may have somebody else's."""

    class Distribution:
        def read_text(self, name):
            return noted

    monkeypatch.setattr(installation, "distribution", lambda name: Distribution())
    monkeypatch.setattr(installation, "installed_version", lambda: HERE)
    monkeypatch.setattr(installation, "pip_install", lambda: "pip install")
    file.path.write_text("surefoot: 2.2.9\n")
    with pytest.raises(UserError) as refused:
        load_params(file.path)
    assert f"{HERE} is installed: {said}" in str(refused.value) and "secret" not in str(refused.value)


def test_a_file_of_this_version_is_as_one_that_has_none(file, monkeypatch):
    """So that old keys and records stay: the version is in none of them."""
    monkeypatch.setattr(installation, "installed_version", lambda: HERE)
    without = load_params(file.path)
    file.path.write_text(f"surefoot: {HERE}\n{COMMITTED}")
    given = load_params(file.path)
    assert (given.surefoot, without.surefoot) == (HERE, None)
    assert given.model_dump(mode="json") == without.model_dump(mode="json")
    assert given.model_dump_json() == without.model_dump_json()
    file.path.write_text(f"surefoot:\n{COMMITTED}")
    assert load_params(file.path) == without


def test_the_schema_for_editors_is_current():
    assert json.loads((PROJECT / "src/surefoot/params/schema.json").read_text()) == json_schema(), (
        "run: surefoot schema > src/surefoot/params/schema.json"
    )


@pytest.mark.parametrize(
    ("key", "text", "wrong"),
    [
        ("seed", "-1", "greater than or equal to 0"),
        ("seed", str(2**63), "less than"),
        ("seed", "1.0", "valid integer"),
        ("seed", "true", "valid integer"),
        ("seed", "'1'", "valid integer"),
        ("numerics", "fast", "'portable', 'avx2' or 'native'"),
        ("threads", "0", "greater than 0"),
        ("threads", "1025", "less than or equal to 1024"),
        ("prepare.source", "''", "at least 1 character"),
        ("prepare.source", "null", "valid string"),
        ("prepare.target", "2020-01-01", "valid string"),
        ("prepare.validation", "0", "greater than 0"),
        ("prepare.validation", "1.0", "less than 1"),
        ("prepare.test", ".nan", "finite number"),
        ("prepare.normalize", "no", "'standard' or 'none'"),
        ("batch.size", "0", "greater than 0"),
        ("batch.size", "64.5", "valid integer"),
        ("batch.shape", "[]", "list should have an item"),
        ("batch.shape", "8", "input should be a list"),
        ("batch.drop_last", "yes", "valid boolean"),
        ("train.epochs", "0", "greater than 0"),
        ("train.epochs", "null", "valid integer"),
        ("train.lr", "0", "greater than 0"),
        ("train.lr", "-0.1", "greater than 0"),
        ("train.lr", ".inf", "finite number"),
        ("train.lr", ".nan", "finite number"),
        ("train.lr", "fast", "valid number"),
        ("train.lr", "'0.1'", "valid number"),
        ("train.lr", "1e999", "finite number"),
        ("train.momentum", "-0.5", "greater than or equal to 0"),
        ("train.momentum", "1.01", "less than or equal to 1"),
        ("prepare.labels", '""', "at least 1 character"),
        ("prepare.test_source", '""', "at least 1 character"),
        ("prepare.kinds", "{size: category}", "write the pattern '[s]ize'"),
        ("train.weight_decay", "-.inf", "finite number"),
        ("train.nesterov", "1", "valid boolean"),
        ("train.select", "first", "'best', 'last', 'best_average' or 'last_average'"),
        ("train.save_every", "-1", "greater than or equal to 0"),
        ("train.model.factory", "mlp", "pattern"),
        ("train.model.factory", "networks.mlp:mlp()", "pattern"),
        ("train.model.arguments", "[1]", "input should be a mapping, `key: value`, got [1]"),
    ],
)
def test_a_wrong_value_is_refused_by_key_and_line(file, key, text, wrong):
    set_param(file.path, key, text)
    message = file.refused(line=file.line(key.rpartition(".")[2] + ":"))
    assert message.startswith(f"{key}: ")
    assert wrong in message


def test_a_value_that_may_be_one_of_two_things_is_refused_in_one_line(file):
    line = 1 + next(number for number, text in enumerate(COMMITTED.splitlines()) if "class_weights:" in text)
    set_param(file.path, "train.loss.class_weights", "some")
    assert (
        file.refused(line=line)
        == "train.loss.class_weights: input should be 'balanced', or input should be a list, got 'some'"
    )


@pytest.mark.parametrize(
    ("key", "text", "line", "message"),
    [
        ("train.schedule", "null", "schedule:", "train.schedule: input should be a list, got null"),
        ("train.schedule", "[]", "schedule:", "train.schedule: list should have an item, got []"),
        (
            "train.schedule",
            "CosineAnnealingLR",
            "schedule:",
            "train.schedule: input should be a mapping, such as {name: CosineAnnealingLR}",
        ),
        (
            "train.schedule",
            "[StepLR]",
            "schedule:",
            "train.schedule.0: input should be a mapping, such as {name: StepLR}",
        ),
        ("train.optimizer", "Adam", "optimizer:", "train.optimizer: input should be a mapping, such as {name: Adam}"),
        (
            "train.early_stopping",
            "3",
            "early_stopping:",
            "train.early_stopping: input should be a mapping, `key: value`, got 3",
        ),
        (
            "train.optimizer.groups",
            "['*.bias']",
            "optimizer:",
            "train.optimizer.groups.0: input should be a mapping, `key: value`, got '*.bias'",
        ),
        ("train.epochs", str(10**12), "epochs:", "train.epochs: input should be less than or equal to 1000000"),
        (
            "train.accumulate",
            str(10**30),
            "accumulate:",
            "train.accumulate: an integer of 31 digits; it must be below 2 ** 63",
        ),
        (
            "train.lr_reference_batch",
            str(10**400),
            "lr_reference_batch:",
            "train.lr_reference_batch: an integer of 401 digits; it must be below",
        ),
        (
            "train.model.arguments.hidden",
            f"[8, {-(2**63)}]",
            "arguments:",
            "train.model.arguments.hidden.1: an integer of 19 digits; it must be",
        ),
    ],
)
def test_what_has_another_form_or_is_huge_is_refused_in_one_line_of_the_words_of_yaml(file, key, text, line, message):
    set_param(file.path, key, text)
    refused = file.refused(line=file.line(line))
    assert refused.startswith(message)
    assert "\n" not in refused


def test_a_value_in_a_sequence_is_refused_by_key_and_line(file):
    set_param(file.path, "batch.shape", "[1, 0, 8]")
    assert file.refused(line=file.line("shape:")).startswith("batch.shape.1: ")


@pytest.mark.parametrize(
    ("before", "after", "key", "hint"),
    [
        ("  lr: 0.01", "  lr_: 0.01", "train.lr_", "did you mean `lr`?"),
        ("  momentum:", "  momentun:", "train.momentun", "did you mean `momentum`?"),
        ("seed:", "sede:", "sede", "did you mean `seed`?"),
        ("    factory:", "    factroy:", "train.model.factroy", "did you mean `factory`?"),
        ("  size:", "  xyz:", "batch.xyz", "known here: size, shape, drop_last, shuffle, block, window"),
        ("seed: 0", "train.lr_: 0.1", "train.lr_", "did you mean `train.lr`?"),
        ("seed: 0", "momentum: 0.1", "momentum", "did you mean `train.momentum`?"),
        ("  size:", "  lr:", "batch.lr", "did you mean `train.lr`?"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_right_one(file, before, after, key, hint):
    assert COMMITTED.count(before) == 1
    file.path.write_text(COMMITTED.replace(before, after))
    number = 1 + COMMITTED[: COMMITTED.index(before)].count("\n")
    assert f"{file.path}:{number}: {key}: unknown key; {hint}" in file.refused().splitlines()


@pytest.mark.parametrize(
    ("line", "key", "near"),
    [
        (
            "  target: digit                 # the column to predict; the others are the inputs\n",
            "prepare.target",
            "prepare:",
        ),
        ("  epochs: 30\n", "train.epochs", "train:"),
        ("  lr: 0.01\n", "train.lr", "train:"),
        (
            "    factory: networks.mlp:mlp  # module:function(input_shape, outputs, **arguments) -> nn.Module\n",
            "train.model.factory",
            "model:",
        ),
    ],
)
def test_a_missing_key_is_named_at_its_section(file, line, key, near):
    assert COMMITTED.count(line) == 1
    file.path.write_text(COMMITTED.replace(line, ""))
    assert file.refused(line=file.line(near)) == f"{key}: missing"


def test_a_missing_section_is_named(file):
    file.path.write_text(COMMITTED[: COMMITTED.index("train: ")])
    assert file.refused(line=1) == "train: missing"


def test_a_key_that_is_given_twice_is_refused_with_both_lines(file):
    file.path.write_text(COMMITTED + "  lr: 0.02\n")
    first, second = file.line("lr: 0.01"), file.line("lr: 0.02")
    assert file.refused(line=second) == f"train.lr: given twice, first in line {first}; keep one"


def test_a_section_that_is_given_twice_is_refused_with_both_lines(file):
    file.path.write_text(COMMITTED + "batch: {size: 1}\n")
    assert f"batch: given twice, first in line {file.line('batch: ')}" in file.refused(line=file.line("batch: {"))


@pytest.mark.parametrize(("momentum", "dampening"), [("0.0", "0.0"), ("0.9", "0.1")])
def test_nesterov_needs_momentum_and_no_dampening(file, momentum, dampening):
    for key, text in (("nesterov", "true"), ("momentum", momentum), ("dampening", dampening)):
        set_param(file.path, f"train.{key}", text)
    assert file.refused(line=file.line("train:")) == "train: nesterov needs momentum above 0 and dampening 0"


def test_fractions_that_leave_nothing_to_train_on_are_refused(file):
    set_param(file.path, "prepare.test", "0.85")
    assert file.refused(line=file.line("prepare:")).startswith(
        "prepare: validation 0.15 and test 0.85 leave nothing to train on"
    )


def test_formats_of_dates_are_checked(file):
    set_param(file.path, "prepare.dates", "{day: '%d.%Q.%Y'}")
    assert file.refused(line=file.line("dates:")).startswith(
        "prepare.dates.day: %Q isn't known in a format of dates; these are: %a %A %b"
    )
    set_param(file.path, "prepare.dates", "{day: '%d.%m.%Y'}")
    set_param(file.path, "prepare.kinds", "{day: category}")
    assert "dates has a format for 'day', but by kinds it is a category" in file.refused(line=file.line("prepare:"))
    set_param(file.path, "prepare.kinds", "{day: date}")
    load_params(file.path)


def test_more_than_two_faults_are_cut_short(file):
    file.path.write_text("a: 1\nb: 2\nc: 3\n")
    lines = file.refused().splitlines()
    assert len(lines) == 2
    assert lines[1].endswith(" (and 3 more)"), "prepare and train are missing, a, b and c unknown"


@pytest.mark.parametrize("text", ["", "# nothing\n", "- 1\n", "5\n", "seed\n", "null\n"])
def test_what_is_not_a_mapping_is_refused(file, text):
    file.path.write_text(text)
    assert file.refused() == f"{file.path}: must be a mapping of sections, such as `seed: 0`"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 0\ntrain: [1, 2\nbatch: 3\n", 3),
        ("seed: 0\nbatch:\n\tsize: 1\n", 3),
        ("seed: 'x\n", 2),
        ("seed: *unknown\n", 1),
        ("seed: 1\n---\nseed: 2\n", 2),
        ('seed: "\\ud800"\n', 1),
    ],
)
def test_invalid_yaml_is_refused_by_line(file, text, line):
    file.path.write_text(text)
    assert file.refused(line=line).startswith("not valid YAML: ")


@pytest.mark.parametrize(
    "value", ["!!int x", "!!bool maybe", "2020-02-30", "!!float x", "!!binary '*'", "!!timestamp 1", "!!set [1]", "<<"]
)
def test_a_value_that_is_not_what_its_tag_says_is_refused(file, value):
    set_param(file.path, "seed", value)
    file.refused()


def test_a_tag_that_is_no_tag_of_json_is_refused_by_line_and_key(file):
    file.path.write_text("seed: !what 1\n")
    assert file.refused(line=1) == "seed: the tag !what isn't read here"


@pytest.mark.parametrize("value", ["!!int x", "!!bool maybe", "2020-02-30", "!!float x", "9" * 5000])
def test_a_value_that_cannot_be_read_is_told_by_line_and_key(file, value):
    set_param(file.path, "train.model.arguments", f"{{hidden: [1, {value}]}}")
    assert file.refused(line=file.line("arguments: {hidden: [1, ")).startswith(
        "train.model.arguments.hidden.1: not valid YAML: "
    )


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a: " + "[" * 20_000, "nested too deep"),
        ("? " * 20_000, "nested too deep"),
        ("a: " + "[" * 900 + "]" * 900, "nested too deep"),
        ("a: &a {b: *a}", "aliases"),
        ("a: &a [*a]", "aliases"),
        ("a: &a {b: {c: [*a]}}", "aliases"),
        (
            "a0: &a0 [x, x]\n"
            + "".join(f"a{n + 1}: &a{n + 1} [" + ", ".join([f"*a{n}"] * 9) + "]\n" for n in range(9)),
            "aliases",
        ),
        (
            "a0: &a0 {x: 1}\n"
            + "".join(
                f"a{n + 1}: &a{n + 1} {{" + ", ".join(f"k{k}: *a{n}" for k in range(9)) + "}\n" for n in range(9)
            ),
            "aliases",
        ),
    ],
    ids=lambda value: value[:12],
)
def test_what_is_nested_too_deep_or_without_end_is_refused(file, text, wrong):
    file.path.write_text(text)
    assert wrong in file.refused()


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-01",
        "!!set {1, 2}",
        "!!binary aGVsbG8=",
        "{1: a, b: c}",
        "{null: a}",
        "2026-01-01T00:00:00Z",
    ],
)
@pytest.mark.parametrize("key", ["train.model.arguments", "train.optimizer.arguments"])
def test_an_argument_that_no_json_has_is_refused(file, key, value):
    set_param(file.path, key, f"{{hidden: [{value}]}}")
    assert "arguments" in file.refused()


def test_arguments_may_be_mappings_by_number(file):
    set_param(file.path, "train.model.arguments", "{hidden: {0: 1.0, 1: 2.5}}")
    assert load_params(file.path).train.model.arguments == {"hidden": {0: 1.0, 1: 2.5}}


def test_a_file_that_cannot_be_read_is_refused(file):
    file.path.write_bytes(b"seed: \xff\n")
    assert file.refused().startswith(f"{file.path}: can't be read: ")
    file.path.unlink()
    assert file.refused().startswith(f"{file.path}: can't be read: ")
    file.path.mkdir()
    assert file.refused().startswith(f"{file.path}: can't be read: ")


ODDITIES = [
    "1e-3",
    "1E3",
    "no",
    "on",
    "0o17",
    "017",
    "-0o7",
    "1_000",
    "0x1F",
    "0b11",
    "1:30",
    ".5",
    "5.",
    "+1",
    "-.5e1",
    "0.1_2",
    "1#one",
]
ODDITIES += [
    ".inf",
    ".NaN",
    "~",
    "Null",
    "TRUE",
    "tRue",
    "2020-01-01",
    "=",
    "<<",
    "''",
    "'1e-3'",
    '"1"',
    "&a 1",
    "|\n  x",
    "1 # one",
]
ODDITIES += ["!!str 1", "!!int '1'", "!!bool yes", "[1e-3, no]", "{a: 1_0, b: [off]}"]
NUMBER_LIKE = st.text("0123456789.eE+-_xobX:~infNaN", min_size=1, max_size=8)
FIELDS = [
    "seed",
    "prepare.target",
    "batch.drop_last",
    "batch.shape",
    "train.lr",
    "train.epochs",
    "train.model.arguments.value",
]


def same(ours, theirs) -> bool:
    """Whether two values are equal and of one type, all the way down."""
    if isinstance(ours, tuple) and isinstance(theirs, list):  # what pydantic makes of a sequence
        ours = list(ours)
    if type(ours) is not type(theirs):
        # Pydantic takes the integer 1 where a float is asked for; it is the same number.
        return type(ours) is float and type(theirs) is int and ours == theirs
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    return ours == theirs or repr(ours) == repr(theirs)


@given(key=st.sampled_from(FIELDS), text=st.one_of(NUMBER_LIKE, st.text(max_size=8), st.sampled_from(ODDITIES)))
@example(key="train.lr", text="1e-3")
@example(key="prepare.target", text="no")
@example(key="prepare.target", text="1_000")
@example(key="train.lr", text="-.5e1")
def test_a_value_that_is_accepted_means_the_same_to_dvc(tmp_path_factory, key, text):
    check_same_meaning(tmp_path_factory.getbasetemp() / "params.yaml", key, text)


@pytest.mark.parametrize("text", ODDITIES)
def test_odd_values_mean_the_same_to_dvc(tmp_path, text):
    for key in FIELDS:
        check_same_meaning(tmp_path / "params.yaml", key, text)


def check_same_meaning(path, key, text):
    path.write_text(COMMITTED.replace("{hidden: [256]}", "\n      value: 0"))
    set_param(path, key, text)
    try:
        ours = load_params(path).model_dump()
    except UserError:
        return
    theirs = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    for part in key.split("."):
        ours, theirs = ours[part], theirs[part]
    assert same(ours, theirs), (ours, theirs)


@pytest.mark.parametrize(
    "name",
    [
        "punycode",
        "idna",
        "rot13",
        "hex",
        "base64",
        "unicode_escape",
        "undefined",
        "nonsense",
        '"utf-8\\0"',
        '""',
        "x" * 5000,
    ],
)
def test_an_encoding_that_is_none_of_files_is_refused(file, name):
    set_param(file.path, "prepare.csv.encoding", name)
    said = file.refused(line=file.line("encoding:"))
    assert said.startswith("prepare.csv.encoding: must be an encoding of texts in files")
    assert len(said) < 1000


@pytest.mark.parametrize(
    "name", ["utf-8", "UTF8", "utf-8-sig", "latin-1", "cp1252", "utf-16", "utf-32", "shift_jis", "gb18030", "mac_roman"]
)
def test_an_encoding_of_files_is_taken(file, name):
    set_param(file.path, "prepare.csv.encoding", name)
    assert load_params(file.path).prepare.csv.encoding == name


def test_a_file_that_takes_long_to_read_is_refused_at_once(file):
    set_param(file.path, "prepare.csv.header", f"[{', '.join(f'a{number}' for number in range(100_000))}]")
    assert "bytes; a params.yaml has 131,072 at most" in file.refused()


def test_one_thousandth_is_a_number(file):
    set_param(file.path, "train.lr", "1e-3")
    assert load_params(file.path).train.lr == 0.001


def test_every_field_says_what_it_means():
    def undescribed(schema):
        return [
            name
            for name, field in schema.get("properties", {}).items()
            if "description" not in field and "$ref" not in field
        ]

    schema = Params.model_json_schema()
    assert not undescribed(schema)
    assert not [name for section in schema["$defs"].values() for name in undescribed(section)]
