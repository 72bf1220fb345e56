import ast
import hashlib
import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from surefoot.base import code_digests, digests, paths
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from surefoot.run import origin
from surefoot.run.plan.planning import plan_run
from surefoot.training import numerics
from tests.helpers import PROJECT

# --- From params.yaml and the batch store --------------------------------------------------------


@pytest.fixture
def batched(here):
    here.csv()
    for stage in ("prepare", "batch"):
        assert here.stage(stage).code == 0
    return here


def keys():
    plan = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
    return digests.sha256(digests.canonical_json(plan.origin)), plan.epoch_keys()


def change(here, text, old="  epochs: 2\n"):
    params = (here / "params.yaml").read_text()
    assert old in params
    (here / "params.yaml").write_text(params.replace(old, text))


ANOTHER_TRAINING = {
    "momentum": "  epochs: 2\n  momentum: 0.9\n",
    "nesterov": "  epochs: 2\n  momentum: 0.8\n  nesterov: true\n",
    "dampening": "  epochs: 2\n  momentum: 0.8\n  dampening: 0.5\n",
    "weight_decay": "  epochs: 2\n  weight_decay: 0.01\n",
    "tiny weight_decay": "  epochs: 2\n  weight_decay: 1.0e-300\n",
}


def test_each_setting_of_the_optimizer_counts(batched):
    start = (batched / "params.yaml").read_text()
    found = {"": keys()[0]}
    for name, text in ANOTHER_TRAINING.items():
        (batched / "params.yaml").write_text(start)
        change(batched, text)
        found[name] = keys()[0]
    (batched / "params.yaml").write_text(start)
    change(batched, "  epochs: 2\n  momentum: 0.8\n")
    found["momentum alone"] = keys()[0]
    assert len(set(found.values())) == len(found), found


def test_one_shard_has_the_keys_of_none(batched):
    """So runs that were trained before there were shards are found."""
    start, found = (batched / "params.yaml").read_text(), [keys()]
    for shards in (1, 2, 3):
        (batched / "params.yaml").write_text(start)
        change(batched, f"  epochs: 2\n  shards: {shards}\n")
        found.append(keys())
    assert found[0] == found[1]
    assert len({origin for origin, _ in found}) == 3


@pytest.mark.parametrize(
    "text", ["seed: 1\n", "numerics: avx2\n", "numerics: native\n", "threads: 2\n", "deterministic: false\n"]
)
def test_what_stands_for_all_of_the_run_counts(batched, text):
    before = keys()
    change(batched, f"{text}prepare:\n", "prepare:\n")
    assert keys()[0] != before[0]


@pytest.mark.parametrize("text", ["{hidden: [5], dropout: 0.5}", "{hidden: [6]}", "{hidden: [5, 5]}", "{}"])
def test_the_arguments_of_the_network_count(batched, text):
    before = keys()
    batched.edit("train.model.arguments", text)
    assert keys()[0] != before[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{size: 4}", "{size: 5}"),
        ("{size: 4}", "{size: 4, drop_last: true}"),
        ("{size: 4}", "{size: 4, shape: [1, 2]}"),
        ("{size: 4}", "{size: 4, shuffle: blocks}"),
        ("kind\n", "kind\n  test: 0.2\n"),
        ("kind\n", "kind\n  validation: 0.2\n"),
        ("kind\n", "kind\n  normalize: none\n"),
    ],
)
def test_how_data_are_prepared_and_batched_counts(batched, old, new):
    before = keys()
    change(batched, new, old)
    for stage in ("prepare", "batch"):
        assert batched.stage(stage).code == 0
    assert keys()[0] != before[0]


@pytest.mark.parametrize("name", ["train/inputs", "train/targets", "validation/inputs", "validation/targets"])
def test_each_byte_of_the_data_counts(batched, name):
    before = keys()[0]
    found = {before}
    array = np.load(paths.BATCHES / f"{name}.npy")
    for place in (0, len(array) // 2, -1):
        changed = array.copy()
        changed[place] = changed[place] + 1 if name.endswith("inputs") else (changed[place] + 1) % 3
        np.save(paths.BATCHES / f"{name}.npy", changed)
        rewrite_index()
        found.add(keys()[0])
    assert len(found) == 4
    np.save(paths.BATCHES / f"{name}.npy", array)
    rewrite_index()
    assert keys()[0] == before


def rewrite_index(**changed):
    from surefoot.data.batch_index import SplitFiles, write_index

    index = open_store(paths.BATCHES).index
    splits = {split: files.plain() for split, files in index.splits.items()}
    for split, name in itertools.product(splits, ("inputs", "targets")):
        splits[split][name]["sha256"] = digests.sha256_file(paths.BATCHES / split / f"{name}.npy")
    write_index(
        paths.BATCHES,
        {split: SplitFiles(**files) for split, files in splits.items()},
        batch_size=index.batch_size,
        drop_last=index.drop_last,
        shape=index.input_shape,
        classes=index.classes,
        preparation=index.preparation,
        **changed,
    )


def test_blocks_and_windows_count_where_rows_are_shuffled_so_and_only_there(batched):
    def found(batch):
        text = (batched / "params.yaml").read_text()
        change(batched, f"{{size: 4{batch}}}", "{size: 4}")
        assert batched.stage("batch").code == 0
        plan = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
        (batched / "params.yaml").write_text(text)
        return digests.sha256(digests.canonical_json(plan.origin)), plan.identity

    assert found("") == found(", shuffle: full") == found(", block: 3") == found(", window: 3, block: 5")
    different = [
        "",
        ", shuffle: blocks",
        ", shuffle: blocks, block: 3",
        ", shuffle: blocks, block: 3, window: 2",
        ", shuffle: blocks, window: 2",
    ]
    assert len({found(batch) for batch in different}) == len(different)


def test_what_images_are_brought_to_counts(batched):
    """It is applied in the step, so the digests of the arrays don't know it."""
    found = {keys()[0]}
    for scale in ({"subtract": [1.0], "divide": [2.0]}, {"subtract": [1.0], "divide": [3.0]}):
        rewrite_index(scale=scale)
        found.add(keys()[0])
    assert len(found) == 3


def test_the_schema_counts_for_a_network_that_asks_for_it_alone(batched):
    """It may undo the scaling by it, say: the same arrays and weights then give other bits."""

    def found():
        keys_ = []
        for scale in (1.0, 2.0):
            rewrite_index(features=[{"column": "a", "subtract": [0.0], "divide": [scale]}])
            keys_.append(keys()[0])
        return len(set(keys_))

    batched.edit("train.model.factory", "tests.unit.training.networks_for_tests:good")
    batched.edit("train.model.arguments", "{}")
    assert found() == 1
    batched.edit("train.model.factory", "tests.unit.training.networks_for_tests:takes_the_schema")
    assert found() == 2


def test_the_version_of_a_package_that_makes_the_loss_counts(batched, monkeypatch):
    real = origin._version
    batched.edit("train.lr", "0.1\n  loss: {name: 'tests.unit.training.networks_for_tests:cross_entropy'}")
    before = keys()[0]
    monkeypatch.setattr(origin, "_version", lambda name: "99.9" if name == "tests" else real(name))
    assert keys()[0] != before


def test_test_rows_do_not_count_but_make_another_run(batched):
    """A run in MLflow shows test metrics, so two of them can't be one run; nothing is trained twice, though."""
    params = load_params(paths.PARAMS)
    before = plan_run(params, open_store(paths.BATCHES))
    array = np.load(paths.BATCHES / "test/inputs.npy")
    np.save(paths.BATCHES / "test/inputs.npy", array + 1)
    rewrite_index()
    after = plan_run(params, open_store(paths.BATCHES))
    assert after.epoch_keys() == before.epoch_keys()
    assert after.identity != before.identity


def test_names_of_columns_and_classes_do_not_count_but_make_another_run(batched):
    """The model in MLflow takes columns by name and answers with a class's name."""
    before = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
    (batched / "raw.csv").write_text((batched / "raw.csv").read_text().replace("a,b,kind", "length,width,kind"))
    for stage in ("prepare", "batch"):
        assert batched.stage(stage).code == 0
    after = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
    assert after.epoch_keys() == before.epoch_keys()
    assert after.identity != before.identity


def test_where_the_data_came_from_does_not_count(batched):
    before = keys()
    (batched / "raw.csv").rename(batched / "other.csv")
    batched.edit("prepare.source", "other.csv")
    for stage in ("prepare", "batch"):
        assert batched.stage(stage).code == 0
    assert keys() == before


@pytest.mark.parametrize(
    "text",
    [
        "select: last",
        "select: best",
        "save_every: 1",
        "checkpoint_every: 2",
        "checkpoint_every: 1000",
        "keep_states: 1",
        "step: eager",
    ],
)
def test_what_changes_no_state_does_not_count(batched, text):
    before = keys()
    change(batched, f"  epochs: 2\n  {text}\n")
    assert keys() == before


def test_epochs_count_for_no_key_and_a_learning_rate_from_its_step_on(batched):
    start, (first, second) = keys()
    batched.edit("train.epochs", "5")
    longer = keys()
    assert (longer[0], longer[1][:2]) == (start, [first, second])
    batched.edit("train.lr", "0.2")
    other = keys()
    assert other[0] == start
    assert not set(other[1]) & set(longer[1])


def test_the_fingerprint_counts(batched, monkeypatch):
    before = keys()[0]
    monkeypatch.setattr(numerics, "fingerprint", lambda *_: "another machine's")
    assert keys()[0] != before


@pytest.mark.parametrize("package", ["torch", "numpy"])
def test_versions_count_but_for_the_build(batched, monkeypatch, package):
    real = origin.version
    before = keys()[0]
    monkeypatch.setattr(
        origin, "version", lambda name: real(name).partition("+")[0] + ("+cu999" if name == package else "")
    )
    assert keys()[0] == before
    monkeypatch.setattr(origin, "version", lambda name: "99.9" if name == package else real(name))
    assert keys()[0] != before


def test_the_time_and_the_environment_do_not_count(batched, monkeypatch):
    import time

    before = keys()
    monkeypatch.setattr(time, "time", lambda: 1.0)
    for name in ("HOME", "USER", "LANG", "TZ", "HOSTNAME", "MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "SUREFOOT_STORE"):
        monkeypatch.setenv(name, "elsewhere")
    torch.rand(3)
    assert keys() == before


PLAN = """
from surefoot.training import numerics
numerics.pin("portable", 1)
from surefoot.base import paths
from surefoot.data.batch_store import open_store
from surefoot.params.params_yaml import load_params
from surefoot.run.plan.planning import plan_run
plan = plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES))
print(plan.identity, *plan.epoch_keys())
"""


@pytest.fixture
def elsewhere(batched, tmp_path_factory):
    """What the plan says in a copy of the project with a source tree of its own, which may be changed first."""

    def keys_there(name, change=lambda surefoot: None, plan=PLAN, **environment):
        root = tmp_path_factory.mktemp("elsewhere") / name
        shutil.copytree(batched.path, root)
        shutil.copytree(PROJECT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__"))
        change(root / "src/surefoot")
        environment = {**os.environ, "PYTHONPATH": "src", **environment}
        found = subprocess.run([sys.executable, "-c", plan], cwd=root, env=environment, capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert len(found.stdout.split()) == 3
        return found.stdout

    return keys_there


def test_where_the_repository_lies_does_not_count(elsewhere, tmp_path):
    """Two processes with a source tree of their own each, one at a path with a space in it, and other hash seeds."""
    one = elsewhere("one", HOME=str(tmp_path), PYTHONHASHSEED="0")
    assert elsewhere("another place", HOME="/nowhere", PYTHONHASHSEED="1") == one


def edit_all(surefoot, edit):
    for path in surefoot.rglob("*.py"):
        path.write_text(edit(path.read_text()))


def test_a_module_that_is_moved_or_renamed_changes_no_key(elsewhere):
    """Each that counts: the whole of training/ to another folder, the others to there by another name."""
    others = [name for name in origin.TRAINING_CODE.values() if not name.startswith("surefoot.training.")]
    names = {name: f"surefoot.learning.moved_{name.rpartition('.')[2]}" for name in others}

    def move(surefoot):
        (surefoot / "training").rename(surefoot / "learning")
        for name, new in names.items():
            file_of(surefoot, name).rename(file_of(surefoot, new))
        edit_all(surefoot, renamed)

    def file_of(surefoot, name):
        return surefoot.parent / f"{name.replace('.', '/')}.py"

    def renamed(text):
        for name, new in names.items():
            text = text.replace(name, new)
        return text.replace("surefoot.training", "surefoot.learning")

    assert names
    assert elsewhere("moved", move, renamed(PLAN)) == elsewhere("as it is")


def test_a_message_changes_no_key_and_arithmetic_does(elsewhere):
    def other_words(surefoot):
        assert "the network fails" in (surefoot / "training/step.py").read_text()
        for folder in ("training", "data"):
            edit_all(
                surefoot / folder, lambda text: re.sub(r"\b(fails|is needed|became|takes none)\b", "(!) \\1", text)
            )

    def other_arithmetic(surefoot):
        path = surefoot / "training/step.py"
        assert "math.hypot(*[" in path.read_text()
        path.write_text(path.read_text().replace("math.hypot(*[", "2 * math.hypot(*["))

    as_it_is = elsewhere("as it is")
    assert elsewhere("other words", other_words) == as_it_is
    assert not set(elsewhere("other arithmetic", other_arithmetic).split()) & set(as_it_is.split())


# --- Sources -------------------------------------------------------------------------------------

NETWORK = '''
"""A network."""
import math
import torch
from torch import nn
import {top}.straight
from .near import thing
from . import beside

def build(input_shape, classes):
    """Make it."""
    # A comment.
    from {top}.within import late
    return nn.Linear(math.prod(input_shape), classes)
'''
COUNTING = ("network", "straight", "near", "beside", "within", "deep.__init__", "deep.deeper", "__init__", "further")


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """A package of the project's with a network that imports in all ways; a name of its own, as Python imports a name
    once.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    top = "nets" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    root = tmp_path / top
    (root / "deep").mkdir(parents=True)
    sources = {
        "network": NETWORK.format(top=top),
        "straight": f"import {top}.deep.deeper\nA = 1\n",
        "near": "from .beside import *\nthing = 1\n",
        "beside": "try:\n    import not_there\nexcept ImportError:\n    pass\nB = 1\n",
        "within": "class Late:\n    def method(self):\n        from .further import C\n        return C\nlate = 1\n",
        "further": "C = 1\n",
        "deep.__init__": "D = 1\n",
        "deep.deeper": "from .. import near\nE = 1\n",
        "__init__": "F = 1\n",
        "unused": "G = 1\n",
    }
    for name, text in sources.items():
        (root / f"{name.replace('.', '/')}.py").write_text(text)
    importlib.invalidate_caches()
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == top]:
        del sys.modules[name]


def sources(package):
    return origin.source_digests(f"{package.name}.network:build")


def file(package, name):
    return package / f"{name.replace('.', '/')}.py"


@pytest.mark.parametrize("name", COUNTING)
def test_the_source_of_each_module_that_makes_the_network_counts(package, name):
    before = sources(package)
    path = file(package, name)
    path.write_text(path.read_text() + "\nADDED = 2\n")
    after = sources(package)
    module = f"{package.name}.{name}".removesuffix(".__init__")
    assert {key for key in before | after if before.get(key) != after.get(key)} == {module}


def test_nothing_else_is_among_them(package):
    assert set(sources(package)) == {f"{package.name}.{name}".removesuffix(".__init__") for name in COUNTING}


def test_another_module_does_not_count(package):
    before = sources(package)
    file(package, "unused").write_text("import this_too\n")
    (package.parent / "elsewhere.py").write_text("H = 1\n")
    assert sources(package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A network."""', '"""Another text."""'),
        ('"""A network."""\n', ""),
        ('    """Make it."""\n', ""),
        ('"""Make it."""', "'''Make it\n    on several lines.'''"),
        ("# A comment.", "# Another comment, with more words."),
        ("    # A comment.\n", ""),
        ("import math\n", "import math\n\n\n"),
        ("math.prod(input_shape), classes)", "math.prod(\n        input_shape\n    ), classes)"),
        ("return nn.Linear", "return (nn).Linear"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(package, old, new):
    before = sources(package)
    path = file(package, "network")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert sources(package) == before


def test_a_docstring_added_to_a_function_or_class_does_not_count(package):
    before = sources(package)
    path = file(package, "within")
    path.write_text(
        '"""New."""\n'
        + path.read_text()
        .replace("class Late:\n", 'class Late:\n    """New."""\n')
        .replace("(self):\n", '(self):\n        """New."""\n')
    )
    assert sources(package) == before


def test_a_text_that_is_no_docstring_counts(package):
    before = sources(package)
    file(package, "further").write_text('C = 1\n"text"\n')
    assert sources(package) != before


def test_packages_that_are_imported_enter_with_their_version(package):
    path = file(package, "near")
    path.write_text(path.read_text() + "import safetensors\n")
    own, packages = code_digests.modules_behind([f"{package.name}.network:build"])
    assert packages == {"torch", "safetensors"}
    assert all(Path(found).is_relative_to(package) for found in own.values())
    assert origin._version("safetensors") == importlib.metadata.version("safetensors")


ALL_CODE = origin.TRAINING_CODE | origin.SHARDED_CODE | origin.CUDA_CODE


@pytest.fixture
def of_code(monkeypatch, tmp_path):
    """The digests of Surefoot's own code, with another text for the module of a label."""
    real = code_digests.module_file

    def digests_of(label=None, text=""):
        changed = tmp_path / "changed.py"
        changed.write_text(text)
        module = ALL_CODE.get(label)
        monkeypatch.setattr(code_digests, "module_file", lambda name: changed if name == module else real(name))
        nothing = {key: {} for key in ("optimizer", "step", "average", "schedule", "data", "arguments", "numerics")}
        return origin.make_origin(
            seed=0,
            factory="networks.mlp:mlp",
            first_state=b"",
            loss={"name": "auto"},
            **nothing | {"step": {"shards": 2}, "numerics": {"device": "cuda"}},
        )["code"]

    return digests_of


def test_code_of_a_gpu_counts_only_there():
    assert origin._code({}, {"device": "cpu"}) == origin.TRAINING_CODE
    assert origin._code({}, {"device": "cuda"}) == origin.TRAINING_CODE | origin.CUDA_CODE


def source_of(label):
    return code_digests.module_file(ALL_CODE[label]).read_text()


@pytest.mark.parametrize("label", ALL_CODE)
def test_training_code_counts(of_code, label):
    before, text = of_code(), source_of(label)
    assert of_code(label, text + "\n# a comment\n") == before
    after = of_code(label, text + "\nADDED = 1\n")
    assert {name for name in before if before[name] != after[name]} == {label}


CODE = """
from surefoot.base.errors import UserError
import math

def half(value: float, name: str = "a") -> float:
    share: float = 2.0
    if not math.isfinite(value):
        raise UserError(f"{name} is no number") from None
    return value / share
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ('f"{name} is no number"', '"not this one", name', True),
        ("surefoot.base.errors", "surefoot.elsewhere", True),
        ("import UserError", "import UserError, math", True),
        ("value: float", "value: int | float", True),
        ("-> float", "-> Any", True),
        ("share: float", "share: int", True),
        ("import math", "import numpy as math", False),
        ("share: float = 2.0", "share: float = 3.0", False),
        ('name: str = "a"', 'name: str = "b"', False),
        ("not math", "math", False),
        ('raise UserError(f"{name} is no number") from None', "pass", False),
        ("value / share", "share / value", False),
    ],
)
def test_only_arithmetic_counts(of_code, old, new, same):
    assert old in CODE
    assert (of_code("step", CODE.replace(old, new)) == of_code("step", CODE)) is same


@pytest.mark.parametrize("text", ['''f"{a['b']!r:>{width}}, {{c}}"''', "f'{a:.2f}' 'b'", "f'{a}{b}'", "f'a{b}'"])
def test_an_f_string_counts_the_same_by_each_python(tmp_path, text):
    """Python 3.12 writes it with other quotes than 3.11; models/run.json, which DVC tracks, has the digests."""
    path = tmp_path / "module.py"

    def found(text):
        path.write_text(f"T = {text}\n")
        return code_digests.module_digest(path), code_digests.arithmetic_source(path, "surefoot")

    digest, arithmetic = found(text)
    assert not [node for node in ast.walk(ast.parse(arithmetic)) if isinstance(node, ast.JoinedStr)]
    for other in (text.replace("{a", "{x"), text.replace("!r", "!s"), text.replace(".2", ".3"), text.replace("b", "d")):
        assert (found(other)[0] == digest) is (other == text)
        assert (found(other)[1] == arithmetic) is (other == text)


DIGESTS = """
import json, sys
from pathlib import Path
from surefoot.base import code_digests, digests

def found(path):
    arithmetic = code_digests.arithmetic_source(path, "surefoot")
    return [code_digests.module_digest(path), digests.sha256(arithmetic.encode())]

print(json.dumps([found(Path(path)) for path in sys.argv[1:]]))
"""


@pytest.mark.parametrize("other", ["python3.11", "python3.12", "python3.13"])
def test_what_counts_is_the_same_by_each_python_that_is_at_hand(tmp_path, other):
    if shutil.which(other) is None or subprocess.run([other, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"{other} isn't here")
    odd = tmp_path / "odd.py"
    odd.write_text(
        """T = f"{a['b']!r:>{width}}", f'{a:{b}}', f"{a:{b}.{c}f}", f"{'x' 'y'}{{}}", f'{a=}', f"{f'{a}'}"\n"""
    )
    paths = [odd, *map(code_digests.module_file, sorted(ALL_CODE.values())), *(PROJECT / "src/networks").glob("*.py")]
    command = ["-c", DIGESTS, *map(str, paths)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT / "src")}
    by_other = subprocess.run([other, *command], env=environment, check=True, capture_output=True).stdout
    ours = subprocess.run([sys.executable, *command], env=environment, check=True, capture_output=True).stdout
    assert len(json.loads(ours)) == len(paths) > 20
    assert by_other == ours


# What else lies in training/: each by why no bit of a state comes of it.
NO_STATE = {
    "divergence": "it is asked once a step has failed",
    "machine_limits": "it refuses",
    "preflight": "it refuses; weights to start from are in the first state",
    "probabilities": "of a trained network's outputs",
    "range_test": "its steps are no run's",
    "schedule": "its values are in the keys",
    "without_dynamo": "the steps are torch's own, with the same bits",
}


def test_a_module_of_training_counts_or_no_bit_comes_of_it():
    there = {path.stem for path in (PROJECT / "src/surefoot/training").glob("*.py")} - {"__init__"}
    counted = (origin.TRAINING_CODE | origin.CUDA_CODE).values()
    of_training = [name for name in counted if name.startswith("surefoot.training.")]
    assert there == NO_STATE.keys() | {name.rpartition(".")[2] for name in of_training}


# What digested modules import, beside each other: it carries no number.
HARMLESS = {
    "surefoot.base.errors",
    "surefoot.base.user_code",
    "surefoot.training.preflight",
    "surefoot.training.divergence",
    "surefoot.training.machine_limits",
    "surefoot.training.sharded.faults",
    "surefoot.training.sharded.transport",
}


@pytest.mark.parametrize("label", ALL_CODE)
def test_the_training_code_is_all_that_it_imports(label):
    """By name, and as it is named: what is dropped from the digest then says nothing."""
    for node in ast.walk(ast.parse(source_of(label))):
        if isinstance(node, ast.Import):
            assert not any(name.name.startswith("surefoot") for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.level or node.module.startswith("surefoot")):
            assert node.module in {*ALL_CODE.values(), *HARMLESS}
            for name in node.names:
                assert not name.asname
                assert not code_digests.module_file(f"{node.module}.{name.name}")


@pytest.mark.parametrize("label", ALL_CODE)
def test_no_sentence_counts(label):
    """What people read lies in other modules, or in a `raise`: other words train nothing anew."""
    counts = ast.parse(code_digests.arithmetic_source(code_digests.module_file(ALL_CODE[label]), "surefoot"))
    texts = [node.value for node in ast.walk(counts) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if re.search("[a-z],? [a-z]", text)]


def test_what_the_training_code_defines_has_one_name_each():
    """So a name alone says which one is imported."""
    names = [
        node.name
        for label in ALL_CODE
        for node in ast.parse(source_of(label)).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(names) == sorted(set(names))


def test_weights_that_a_factory_reads_count(batched, monkeypatch, request):
    (batched / "reads_weights.py").write_text(
        "import torch\nfrom torch import nn\n\ndef build(input_shape, classes):\n    model = nn.Linear(2, classes)\n   "
        " model.load_state_dict(torch.load('weights.pt'))\n    return model\n"
    )
    monkeypatch.syspath_prepend(batched.path)
    request.addfinalizer(lambda: sys.modules.pop("reads_weights", None))
    batched.edit("train.model.factory", "reads_weights:build")
    batched.edit("train.model.arguments", "{}")
    weights = {"weight": torch.zeros(3, 2), "bias": torch.zeros(3)}
    torch.save(weights, batched / "weights.pt")
    before = keys()[0]
    torch.save(dict(reversed(weights.items())), batched / "weights.pt")
    assert keys()[0] == before
    torch.save(weights | {"bias": torch.tensor([0.0, 0.0, 1e-30])}, batched / "weights.pt")
    assert keys()[0] != before


def test_the_source_of_a_schedule_of_the_users_is_part_of_the_run(batched, monkeypatch, request):
    """Its values are in the keys; what comes of none, such as of an epoch that isn't reached, tells runs apart, too."""
    monkeypatch.syspath_prepend(batched.path)
    name = "falls" + hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    module = batched / f"{name}.py"
    request.addfinalizer(lambda: sys.modules.pop(name, None))

    def identity(schedule):
        batched.edit("train.lr", "0.1")
        text = (batched / "params.yaml").read_text()
        (batched / "params.yaml").write_text(f"{text}  schedule: {schedule}\n")
        try:
            return plan_run(load_params(paths.PARAMS), open_store(paths.BATCHES)).identity
        finally:
            (batched / "params.yaml").write_text(text)

    module.write_text("def falls(n):\n    return 0.5 ** n\n")
    own = [f"{{name: '{name}:falls'}}", f"{{name: LambdaLR, arguments: {{lr_lambda: '{name}:falls'}}}}"]
    before, torchs = [identity(schedule) for schedule in own], identity("{name: StepLR, arguments: {step_size: 1}}")
    module.write_text("# a comment\ndef falls(n):\n    return 0.5 ** n\n")
    assert [identity(schedule) for schedule in own] == before
    module.write_text("def falls(n):\n    return 0.5 ** n if n < 1000 else 0\n")
    after = [identity(schedule) for schedule in own]
    assert not set(before) & set(after)
    assert identity("{name: StepLR, arguments: {step_size: 1}}") == torchs


def test_a_data_file_beside_a_network_counts(package):
    before = sources(package)
    (package / "deep/vocabulary.txt").write_text("a\n")
    after = sources(package)
    assert after.keys() - before.keys() == {f"{package.name}/deep/vocabulary.txt"}
    (package / "deep/vocabulary.txt").write_text("b\n")
    assert sources(package) != after
    for name in ("README.md", ".hidden", "deep/__pycache__/x.pyc", "deep/old.txt~"):
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text("nothing of it")
    assert set(sources(package)) == set(after)


def test_a_module_that_is_imported_by_its_name_as_a_text_counts(package):
    file(package, "near").write_text(f"import importlib\nthing = importlib.import_module('{package.name}.unused')\n")
    assert f"{package.name}.unused" in sources(package)
