"""SGD in full as a user meets it: what is refused, where it diverges, and trainings that are killed."""

import os
import subprocess
import sys
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from ruamel.yaml import YAML

from surefoot.base import paths
from surefoot.base.errors import UserError
from surefoot.params.section_base import Section
from surefoot.params.train_section import TrainParams
from surefoot.serving import mlflow_model
from surefoot.training.recorded import recorded_trainer
from tests.helpers import PROJECT

NETWORKS = "tests.unit.training.networks_for_tests"
SCHEDULES = "tests.unit.training.schedules_for_tests"


@pytest.fixture
def project(tracked, monkeypatch):
    """Prepared and batched, small enough that an epoch takes no time."""
    tracked.csv()
    for stage in ("prepare", "batch"):
        assert tracked.stage(stage).code == 0
    # Exporting an MLflow model takes seconds.
    monkeypatch.setattr(mlflow_model, "log_model", lambda run_id, *_: f"model of {run_id}")
    return tracked


def change(here, more=None, **train):
    """Set keys of the section `train`, with `__` for a dot, and of the file."""
    values = YAML(typ="safe").load((here / "params.yaml").read_text()) | (more or {})
    for name, value in train.items():
        *sections, last = name.split("__")
        section = values["train"]
        for inner in sections:
            section = section.setdefault(inner, {})
        section[last] = value
    with (here / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(values, file)


def refused(here):
    """What the train stage says, after checking that nothing was written."""
    before = here.files()
    message = here.stage("train").refused()
    assert here.files() == before
    return message


# --- Numbers below what makes sense --------------------------------------------------------------


def numeric_keys(section=TrainParams, prefix="", inherited=()):
    """Each key of the section that takes a number: dotted, whether in a list, and what its fields say of it."""
    for name, field in section.model_fields.items():
        kinds, listed, bounds = [field.annotation], False, list(field.metadata)
        found = []
        while kinds:
            kind = kinds.pop()
            if get_origin(kind) is Annotated:
                kinds.append(get_args(kind)[0])
                bounds += [bound for extra in get_args(kind)[1:] for bound in getattr(extra, "metadata", [])]
            elif get_origin(kind) is tuple:
                listed = True
                kinds += [inner for inner in get_args(kind) if inner is not ...]
            elif get_origin(kind) in (Union, UnionType):
                kinds += get_args(kind)
            elif get_origin(kind) is not Literal:
                found.append(kind)
        if {int, float} & set(found):
            yield f"{prefix}{name}", listed, any(getattr(bound, "ge", None) == 0 for bound in bounds)
        for kind in found:
            if isinstance(kind, type) and issubclass(kind, Section):
                yield from numeric_keys(kind, f"{prefix}{name}.")


KEYS = list(numeric_keys())


def test_all_numbers_of_the_section_are_found():
    assert {key for key, _, _ in KEYS} == {
        *(
            "loss.class_weights",
            "epochs",
            "lr",
            "lr_reference_batch",
            "momentum",
            "dampening",
            "weight_decay",
            "schedule.length",
            "accumulate",
            "shards",
        ),
        *(
            "clip_norm",
            "clip_value",
            "average.decay",
            "average.start",
            "early_stopping.patience",
            "early_stopping.min_delta",
            "max_steps",
            "max_minutes",
        ),
        *("save_every", "checkpoint_every", "keep_states"),
    }


@pytest.mark.parametrize("value", [-1, 0, -0.5, float("inf"), float("nan")])
@pytest.mark.parametrize(("key", "listed", "zero"), KEYS, ids=[key for key, _, _ in KEYS])
def test_a_number_that_makes_no_sense_is_refused(here, key, listed, zero, value):
    if value == 0 and zero:
        pytest.skip("0 means something")
    text = {"inf": ".inf", "nan": ".nan"}.get(str(value), str(value))
    *sections, last = key.split(".")
    line = f"  {last}: {f'[1.0, {text}]' if listed else text}\n"
    if sections:
        line = f"  {sections[0]}: {{{line.strip()}}}\n"
    written = (here / "params.yaml").read_text()
    kept = "".join(old for old in written.splitlines(keepends=True) if not old.startswith(f"  {key}:"))
    (here / "params.yaml").write_text(kept + line)
    message = refused(here)
    assert f"train.{key.replace('schedule.', 'schedule.0.')}" in message
    assert "should be" in message
    assert ", got " in message


# --- What is refused before anything is trained --------------------------------------------------


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (
            {"schedule": {"name": "CosineAnealing"}},
            (
                "train.schedule.name: torch.optim.lr_scheduler has no schedule 'CosineAnealing'; did you mean"
                " CosineAnnealingLR?"
            ),
        ),
        (
            {"schedule": {"name": "StepLR"}},
            (
                "train.schedule: StepLR() fails: TypeError: StepLR.__init__() missing 1 required positional argument:"
                " 'step_size'"
            ),
        ),
        (
            {"schedule": {"name": "LinearLR", "arguments": {"start_factor": 2.0}}},
            "train.schedule: LinearLR(start_factor=2.0) fails: ValueError: Starting multipl",
        ),
        (
            {"schedule": {"name": "ConstantLR", "arguments": {"factor": float("nan")}}},
            "train.schedule.0.arguments: arguments must be finite numbers, and nan is",
        ),
        (
            {"schedule": {"name": "mine:cosine"}},
            "train.schedule.name: mine:cosine: can't import mine: ModuleNotFoundError",
        ),
        (
            {"schedule": {"length": 2}},
            "train: schedule: `length` is for a list of schedules; one alone lasts to the end of the run",
        ),
        (
            {"schedule": [{"length": 1}, {"length": 2}]},
            "schedule: lengths of 3 epochs do not fit epochs: 2; the last length may be null, to the end of the run",
        ),
        ({"schedule": [{"length": 2}, {}]}, "schedule: lengths of 2 epochs do not fit epochs: 2"),
        ({"schedule": [{"name": "constant"}, {}]}, "schedule: number 1 of 2 needs a length"),
        (
            {"schedule": [{"per": "step", "length": 1}, {}]},
            "schedule: in a list all count in epochs or all in steps; give each the same `per`",
        ),
        ({"schedule": []}, "train.schedule: list should have an item, got []"),
        (
            {"schedule": [{"per": "step", "length": 99}, {"per": "step"}]},
            "train.schedule: lengths of 99 steps do not fit the run, which has 22",
        ),
        (
            {"schedule": [{"per": "step", "length": 9}, {"per": "step", "length": 9}]},
            "train.schedule: lengths of 18 steps do not fit the run, which has 22",
        ),
        (
            {"schedule": {"name": "ReduceLROnPlateau", "metric": "validation/f1"}},
            "train.schedule.metric: no metric 'validation/f1' is logged; there are train/loss, val",
        ),
        (
            {"schedule": {"name": "ReduceLROnPlateau", "per": "step"}},
            "per: ReduceLROnPlateau looks at metrics of an epoch; give epoch",
        ),
        (
            {"schedule": {"name": "StepLR", "metric": "train/loss"}},
            "metric: only ReduceLROnPlateau looks at one, not StepLR",
        ),
        (
            {"early_stopping": {"patience": 2, "metric": "accuracy"}},
            "train.early_stopping.metric: no metric 'accuracy' is logged; there are train/loss, validation/",
        ),
        (
            {"early_stopping": {"patience": 2, "metric": "validation/average_loss"}},
            "train.early_stopping.metric: no metric 'validation/average_loss' is logged",
        ),
        (
            {"optimizer": {"name": "Adamm"}},
            "train.optimizer.name: torch.optim has no optimizer 'Adamm'; did you mean Adam?",
        ),
        (
            {"optimizer": {"name": "Adam", "arguments": {"betas": [0.9, 7]}}},
            "train.optimizer: Adam(lr=0.1, weight_decay=0.0, betas=[0.9, 7]) fails: ValueError: Invalid",
        ),
        ({"optimizer": {"arguments": {"lr": 0.3}}}, "train.optimizer.arguments.lr: train.lr is where this is set"),
        ({"optimizer": {"name": "Muon"}}, "train.optimizer: Muon("),
        ({"optimizer": {"name": "LBFGS"}}, "train.optimizer.name: LBFGS evaluates the loss several times a step"),
        (
            {"optimizer": {"name": "SparseAdam"}},
            (
                "train.optimizer: SparseAdam fails at step 1 of the epoch: RuntimeError: SparseAdam does not support"
                " dense gradients"
            ),
        ),
        (
            {"optimizer": {"groups": [{"parameters": "head.*", "frozen": True}]}},
            "train.optimizer.groups: 'head.*' matches no parameter; there are 1.weight, 1.bias, 3.w",
        ),
        (
            {"optimizer": {"groups": [{"parameters": "*", "frozen": True}]}},
            "train.optimizer.groups: all parameters of the network are frozen; there is nothing to train",
        ),
        (
            {
                "optimizer": {
                    "groups": [{"parameters": "*", "arguments": {"lr": 0.2}}, {"parameters": "*.bias", "frozen": True}]
                }
            },
            "train.optimizer.groups: '*.bias' matches only parameters that groups before it have",
        ),
        (
            {"optimizer": {"groups": [{"parameters": "*.bias", "arguments": {"weightdecay": 0}}]}},
            "SGD has no argument 'weightdecay' for a group, given to '*.bias'; did you mean weight_decay?",
        ),
        (
            {"optimizer": {"groups": [{"parameters": "*.bias", "arguments": {"lr": -1.0}}]}},
            "train.optimizer.groups.0.arguments: SGD refuses them: ValueError: Invalid learning rate: -1.0",
        ),
        (
            {"optimizer": {"groups": [{"parameters": "*.bias", "arguments": {"lr": "fast"}}]}},
            "train.optimizer.groups.0.arguments: SGD refuses them: TypeError",
        ),
        ({"optimizer": {"groups": [{"parameters": "*.bias"}]}}, "a group needs either arguments or frozen: true"),
        (
            {"schedule": {"name": f"{SCHEDULES}:climbs"}},
            "schedules_for_tests:climbs gives a negative learning rate, -0.05, which would make the loss grow",
        ),
        ({"schedule": {"name": f"{SCHEDULES}:exits"}}, "train.schedule: LambdaLR() fails: SystemExit: 3 ("),
        (
            {"schedule": [{"length": 1}, {"name": f"{SCHEDULES}:climbs"}]},
            "schedule: constant, then tests.unit.training.schedules_for_tests:climbs gives a negative lea",
        ),
        (
            {"schedule": {"name": f"{SCHEDULES}:exits_later"}},
            "train.schedule: tests.unit.training.schedules_for_tests:exits_later fails: SystemExit: 3 (",
        ),
        (
            {"optimizer": {"groups": [{"parameters": "*.bias", "arguments": {"params": [1]}}]}},
            "train.optimizer.groups: SGD has no argument 'params' for a group, given to '*.bias'",
        ),
        (
            {"optimizer": {"groups": [{"parameters": "*.bias", "arguments": {"lr": True}}]}},
            "train.optimizer.groups.0.arguments.lr: a number is needed, got true",
        ),
        (
            {"optimizer": {"name": "Adam", "arguments": {"eps": True}}},
            "train.optimizer.arguments.eps: a number is needed, got true",
        ),
        ({"average": {"name": "ema", "start": 3}}, "train: average.start: 3 is after the last of 2 epochs"),
        (
            {"select": "best_average"},
            "train: select: best_average needs averaged weights; set average.name to ema or swa",
        ),
        ({"average": {"name": "ema", "decay": 1.0}}, "train.average.decay: input should be less than 1, got 1"),
        (
            {"average": {"name": "ema"}, "model": {"factory": f"{NETWORKS}:keeps_what_it_computed", "arguments": {}}},
            (
                "train.average: the network can't be copied, which an average needs: RuntimeError: Only Tensors created"
                " explicitly by the user"
            ),
        ),
        (
            {"schedule": {"name": "ExponentialLR", "arguments": {"gamma": -1.0}}},
            "train.schedule: ExponentialLR gives a negative learning rate, -0.1",
        ),
        (
            {"precision": "bfloat16"},
            "train.precision: bfloat16 on the CPU needs numerics: native; set that, or float32",
        ),
        ({"shards": 0}, "train.shards: input should be greater than 0, got 0"),
        ({"shards": 9}, "train.shards: a minibatch of 4 rows (batch.size) can't be cut into 9 shards; at most 4"),
        (
            {"shards": 3, "model": {"factory": f"{NETWORKS}:normalized", "arguments": {}}},
            "train.shards: a minibatch of 4 rows cut into 3 shards has some of a single row, on which the network",
        ),
        (
            {"loss": {"class_weights": [1.0, 2.0]}},
            "train.loss.class_weights: 2 weights for 3 classes; one for each is needed",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused(project, train, message):
    change(project, **train)
    assert message in refused(project)


def test_an_optimizer_may_refuse_what_is_frozen(project):
    change(project, optimizer={"name": "Muon", "groups": [{"parameters": "*.bias", "frozen": True}]})
    done = project.stage("train")
    assert done.code == 0, done


def test_a_budget_of_steps_says_how_far_it_goes(project):
    change(project, epochs=9, max_steps=13)
    assert project.stage("train").code == 0
    change(project, max_steps=24)
    assert project.stage("train").out.splitlines()[1] == "epochs 1-1 restored, training 2-3"


def test_an_average_that_no_epoch_came_to_is_told(project):
    change(project, average={"name": "swa", "start": 2}, max_steps=3, select="best_average")
    assert (
        "train.select: best_average: the run ended before train.average.start, so nothing was averaged; choose best or"
        " last" in project.stage("train").refused()
    )


def test_a_device_that_is_not_there(project):
    import torch

    for device in ("cuda", "mps"):
        if {"cuda": torch.cuda, "mps": torch.backends.mps}[device].is_available():
            continue
        change(project, {"device": device})
        done = subprocess.run(
            [sys.executable, "-m", "surefoot.stages.train"],
            cwd=project.path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2
        assert (
            done.stderr == f"error: device: torch {torch.__version__} finds no {device} device here; set device: cpu\n"
        )


def test_a_processor_without_bfloat16(monkeypatch):
    import torch

    from surefoot.training.machine_limits import check_precision

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(
        UserError, match=r"^train.precision: bfloat16 on the CPU needs a processor with AVX-512; set that, or float32$"
    ):
        check_precision("bfloat16", "native", "cpu")


# --- Where it diverges ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "message"),
    [
        # Steps of two epochs: 11 each, and one validation.
        (
            {"loss__name": f"{NETWORKS}:nan_at", "loss__arguments": {"call": 1 + 11 + 1 + 3}},
            "epoch 2: the loss became nan at step 3, with lr 0.1; it began in the loss itself",
        ),
        (
            {"lr": 1e30},
            "with lr 1e+30; it began in layer '3' (Linear): the first output that isn't finite, with weights up to ",
        ),
        (
            {"lr": 1e38, "loss__name": f"{NETWORKS}:steep"},
            (
                "epoch 1: the loss became nan at step 2, with lr 1e+38; it began in layer '1' (Linear), whose weight"
                " and bias the step before it brought beyond al"
            ),
        ),
        (
            {"loss__name": f"{NETWORKS}:kinked"},
            "epoch 1: the norm of the gradient became nan at step 1, with lr 0.1; it began in the gradient of 3.bias",
        ),
        (
            {"loss__name": f"{NETWORKS}:steep", "loss__arguments": {"times": 1e25}, "lr": 1e-30},
            "epoch 1: the norm of the gradient became inf at step 1, with lr 1e-30; it began in gradients up to ",
        ),
    ],
    ids=["loss", "forward", "weight", "gradient", "norm"],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_divergence_is_told_with_epoch_step_lr_and_layer(project, train, message, accumulate):
    if accumulate == 2 and "epoch 2" in message:
        pytest.skip("another step")
    change(project, **train, accumulate=accumulate)
    said = refused(project)
    assert "training diverged in epoch " in said
    assert message in said
    assert [run.info.status for run in project.runs()] == ["FAILED"]


# --- How steps are taken -------------------------------------------------------------------------


def test_it_is_said_once_how_steps_are_taken(project, monkeypatch, tmp_path_factory):
    monkeypatch.setattr(recorded_trainer, "EAGER_FIRST", 1)
    change(project, epochs=12)
    done = project.stage("train")
    assert done.code == 0, done
    assert done.out.count("steps: ") == done.out.count("steps: recorded (train.step)") == 1
    (run,) = project.runs()
    assert run.data.tags["surefoot.steps"] == "recorded"
    recorded = outputs()
    change(project, step="eager")
    monkeypatch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
    done = project.stage("train")
    assert done.code == 0, done
    assert "steps: " not in done.out
    assert outputs() == recorded
    assert len(project.runs()) == 1


# --- A budget of minutes -------------------------------------------------------------------------

NO_TIME = 1e-9  # minutes, which are over when the first segment is trained


def rows_and_tags(here):
    """Epochs in history.csv and in MLflow, and why the run isn't complete."""
    (run,) = here.runs()
    points = here.client().get_metric_history(run.info.run_id, "train/loss")
    assert run.info.status == "FINISHED"
    return (
        len(paths.HISTORY.read_text().splitlines()) - 1,
        [point.step for point in points],
        run.data.tags.get("surefoot.incomplete", ""),
    )


def test_a_run_whose_minutes_are_over_goes_on(project, monkeypatch, tmp_path_factory):
    change(project, epochs=3)
    with monkeypatch.context() as patch:
        patch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('elsewhere')}/mlflow.db")
        assert project.stage("train").code == 0
    whole = outputs()
    change(project, max_minutes=NO_TIME)
    for epochs in (1, 2, 3):
        done = project.stage("train")
        assert done.code == 0, done
        why = f"after {epochs} of 3 epochs train.max_minutes (1e-09) was over" if epochs < 3 else ""
        assert (f"not complete: {why}; " in done.out) == bool(why)
        assert rows_and_tags(project) == (epochs, list(range(1, epochs + 1)), why)
    assert outputs() == whole


def test_a_run_that_went_on_while_mlflow_was_out_of_reach_is_brought_there_later(project, monkeypatch):
    change(project, max_minutes=NO_TIME)
    assert project.stage("train").code == 0
    assert rows_and_tags(project)[1] == [1]
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
        assert "can't be written" in project.stage("train").err
    assert project.stage("evaluate").code == 0
    assert rows_and_tags(project) == (2, [1, 2], "")


def test_the_last_epoch_is_kept_though_the_minutes_end_in_the_midst_of_the_next(project):
    change(project, max_minutes=NO_TIME, checkpoint_every=4, keep_states=1, select="last")
    for _ in range(2):  # of the three parts of an epoch
        assert (
            "1e-09 minutes were too short for an epoch; what was trained is kept; run again to go on"
            in project.stage("train").refused()
        )
    assert project.stage("train").code == 0
    first = outputs()
    for _ in range(2):
        done = project.stage("train")
        assert done.code == 0, done
        assert outputs() == first
    assert project.stage("train").code == 0
    assert rows_and_tags(project) == (2, [1, 2], "")


# --- Killed --------------------------------------------------------------------------------------


def environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(PROJECT / "src"), str(PROJECT)])}


def outputs():
    return paths.MODEL.read_bytes(), paths.HISTORY.read_bytes()


@pytest.mark.parametrize(
    "train",
    [
        {
            "schedule": {"name": "ReduceLROnPlateau", "arguments": {"patience": 1, "factor": 0.5, "threshold": 0.05}},
            "early_stopping": {"patience": 12, "min_delta": 0.001},
            "lr": 0.5,
        },
        {
            "average": {"name": "ema", "decay": 0.9, "start": 2},
            "optimizer": {"name": "Adam"},
            "select": "best_average",
            "lr": 0.01,
            "max_steps": 300,
        },
    ],
    ids=["plateau and early stopping", "EMA with Adam"],
)
def test_a_trainer_that_is_killed_ends_in_the_same_bits(project, train, monkeypatch, tmp_path_factory):
    change(project, **train, epochs=200, checkpoint_every=4)
    with monkeypatch.context() as patch:
        patch.setenv("SUREFOOT_STORE", str(tmp_path_factory.mktemp("elsewhere") / "store"))
        done = project.stage("train")
    assert done.code == 0, done
    whole = outputs()
    epochs = len(whole[1].splitlines()) - 1
    assert 10 < epochs < 200
    for path in (paths.MODEL, paths.HISTORY):
        path.unlink()
    with subprocess.Popen(
        [sys.executable, "-m", "surefoot.stages.train"],
        cwd=project.path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as trainer:
        for line in trainer.stdout:
            if line.startswith(f"epoch {epochs // 2:3}/200"):
                trainer.kill()
                break
    assert trainer.returncode < 0
    assert not paths.MODEL.exists()
    done = project.stage("train")
    assert done.code == 0, done
    assert "restored, training " in done.out
    assert outputs() == whole
