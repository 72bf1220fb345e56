import pytest
from ruamel.yaml import YAML

from surefoot.base.errors import UserError
from surefoot.commands.search.space import Distribution, dvc_override, parse_space
from tests.helpers import PROJECT

TEXT = (PROJECT / "params.yaml").read_text()


def test_a_space_is_parsed_and_sorted():
    space = parse_space(
        [
            "train.lr=log(1e-3,1)",
            "batch.size=choice(32, 64)",
            " train.momentum = uniform(0,0.99)",
            "train.epochs=int(3,9)",
        ]
    )
    assert list(space.items()) == [
        ("batch.size", Distribution("choice", (32, 64))),
        ("train.epochs", Distribution("int", (3, 9))),
        ("train.lr", Distribution("log", (0.001, 1.0))),
        ("train.momentum", Distribution("uniform", (0.0, 0.99))),
    ]


def test_choices_are_values_as_in_params_yaml():
    (given,) = parse_space(["train.x=choice(1e-3, true, null, SGD, [128, 64], {a: 1})"]).values()
    assert given.values == (0.001, True, None, "SGD", [128, 64], {"a": 1})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train.lr", "must be KEY=... with log(low,high), uniform(low,high), int(low,high) or choice(one,other,...)"),
        ("train.lr=0.1", "must be KEY=..."),
        ("train.lr=normal(0,1)", "must be KEY=..."),
        ("train.lr=log(0,1)", "both numbers must be above 0"),
        ("train.lr=log(1,0.1)", "the first number must be less than the second"),
        ("train.lr=uniform(0,inf)", "the first number must be less than the second"),
        ("train.lr=uniform(1)", "uniform needs two numbers: uniform(low,high)"),
        ("train.lr=uniform(a,b)", "uniform needs two numbers"),
        ("batch.size=int(1.5,3)", "int needs two whole numbers: int(low,high)"),
        ("batch.size=choice(32)", "choice needs at least two different values"),
        ("batch.size=choice(32,32)", "choice needs at least two different values"),
        ("batch.size=choice(32],[64)", "choice"),
        ("batch.size=choice(!!python/object:os.system x, 1)", "choices must be values as in params.yaml"),
        ("batch.size=choice(2020-01-01, 1)", "choices must be values as in params.yaml"),
        ("batch.size=choice(.nan, 1)", "choices must be values as in params.yaml"),
        ("__import__('os').getcwd()=log(1,2)", "must be KEY=..."),
    ],
)
def test_what_is_no_space_is_refused(text, told):
    with pytest.raises(UserError) as refused:
        parse_space([text])
    assert str(refused.value).startswith(f"-S {text}: ")
    assert told in str(refused.value)


def test_a_key_twice_and_none_at_all():
    with pytest.raises(UserError, match="given twice"):
        parse_space(["train.lr=log(1,2)", "train.lr=log(1,3)"])
    with pytest.raises(UserError, match="give at least one key to vary"):
        parse_space([])


def test_what_is_drawn_is_short_and_within_the_bounds():
    assert Distribution("log", (0.001, 1.0)).rounded(0.0123456) == 0.0123
    assert Distribution("uniform", (0.98765, 2.0)).rounded(0.98766) == 0.988
    assert Distribution("uniform", (0.0, 0.98765)).rounded(0.98764) == 0.98765
    assert Distribution("int", (1, 12345)).rounded(12344) == 12344


@pytest.mark.parametrize(
    "value", [0.03, 1e-05, 32, True, None, "SGD", "networks.cnn:cnn", "it's, so", [128, 64], {"a": [1, "b c"]}]
)
def test_an_override_means_to_dvc_what_it_means_here(value, tmp_path):
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides

    path = tmp_path / "params.yaml"
    path.write_text("train: {x: 1}\n")
    apply_overrides(path, to_path_overrides([dvc_override("train.x", value)])["params.yaml"])
    assert YAML(typ="safe").load(path) == {"train": {"x": value}}
