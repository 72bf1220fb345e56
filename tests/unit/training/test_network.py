import inspect

import pytest
import safetensors.torch
import torch
from torch import nn

from surefoot.base.errors import UserError
from surefoot.training import network as networks
from surefoot.training import preflight
from tests.unit.training import networks_for_tests


def build(name, module="tests.unit.training.networks_for_tests", seed=0, **arguments):
    return networks.build(f"{module}:{name}", arguments, (1, 2), 3, seed)


def refused(call, *arguments, **keywords):
    with pytest.raises(UserError) as refusal:
        call(*arguments, **keywords)
    message = str(refusal.value)
    assert "\n" not in message
    return message


def line_of(text):
    return next(
        number for number, line in enumerate(inspect.getsource(networks_for_tests).splitlines(), 1) if text in line
    )


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Writes a module of the user's, and says its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_factory_gets_shape_classes_and_arguments():
    model = build("good", width=7)
    assert model(torch.zeros(5, 1, 2)).shape == (5, 3)
    assert model[1].out_features == 7
    preflight.check_output(model, torch.zeros(5, 1, 2), 3)


@pytest.mark.parametrize(
    ("factory", "shape", "arguments"),
    [("mlp:mlp", (1, 8, 8), {"hidden": [5], "dropout": 0.5}), ("cnn:cnn", (1, 8, 8), {"channels": 2})],
)
def test_the_networks_that_come_with_it(factory, shape, arguments):
    model = networks.build(f"networks.{factory}", arguments, shape, 10, 0)
    preflight.check_output(model, torch.zeros(4, *shape), 10)


def test_a_cnn_needs_images():
    message = refused(networks.build, "networks.cnn:cnn", {}, (64,), 10, 0)
    assert "ValueError: cnn needs inputs of shape [depth, height, width], not [64]: set batch.shape" in message


def test_the_first_weights_are_a_function_of_the_seed():
    def weights(seed):
        torch.rand(3)  # what was drawn before has no part in it
        return networks.to_bytes(build("good", seed=seed).state_dict())

    assert weights(0) == weights(0)
    assert weights(0) != weights(1)


def test_a_module_that_is_not_there():
    assert (
        refused(build, "mlp", module="networks.none")
        == "train.model.factory: networks.none:mlp: can't import networks.none: ModuleNotFoundError: No module named"
        " 'networks.none'"
    )


def test_a_module_that_fails_when_it_is_imported(user_module):
    module = user_module("failing_module", "import torch\n\nraise OSError('no\\nluck')\n")
    message = refused(build, "f", module=module)
    assert "can't import failing_module: OSError: no luck (" in message
    assert message.endswith("failing_module.py, line 3)")


def test_a_module_that_is_no_python(user_module):
    module = user_module("broken_module", "def f(:\n")
    assert "can't import broken_module: SyntaxError: " in refused(build, "f", module=module)


def test_a_module_that_ends_the_process(user_module):
    module = user_module("exiting_module", "import sys\nsys.exit(0)\n")
    assert "can't import exiting_module: SystemExit" in refused(build, "f", module=module)


def test_a_name_that_is_not_there():
    assert (
        refused(build, "nothing") == "train.model.factory: tests.unit.training.networks_for_tests:nothing: module"
        " tests.unit.training.networks_for_tests"
        " has no 'nothing'"
    )


def test_a_factory_that_is_not_callable():
    assert (
        refused(build, "not_a_function")
        == "train.model.factory: tests.unit.training.networks_for_tests:not_a_function is a int; a function is needed"
    )


def test_a_factory_that_returns_no_module():
    assert (
        refused(build, "returns_a_list")
        == "train.model.factory: tests.unit.training.networks_for_tests:returns_a_list returned a list; an nn.Module is"
        " needed"
    )


def test_a_factory_that_fails():
    message = refused(build, "fails")
    assert message.startswith(
        "train.model: tests.unit.training.networks_for_tests:fails(input_shape=(1, 2), outputs=3) failed:"
        " ValueError: no"
        " such width ("
    )
    assert message.endswith(f"networks_for_tests.py, line {line_of('no such')})")


def test_a_factory_with_an_argument_that_it_does_not_have():
    assert "TypeError: good() got an unexpected keyword argument 'depth'" in refused(build, "good", depth=3)


def test_a_network_that_fails_in_forward():
    message = refused(preflight.check_output, build("fails_in_forward"), torch.zeros(4, 2), 3)
    assert message.startswith(
        "train.model: the network fails on a batch of shape (4, 2): RuntimeError: mat1 and mat2 do not fit ("
    )
    assert message.endswith(f"networks_for_tests.py, line {line_of('the line that is named')})")


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("one_output_too_many", "shape (4, 4) and type torch.float32"),
        ("gives_one_row", "shape (1, 3) and type torch.float32"),
        ("gives_classes", "shape (4, 3) and type torch.int64"),
        ("gives_a_tuple", "a tuple"),
    ],
)
def test_an_output_of_the_wrong_shape(name, got):
    assert (
        refused(preflight.check_output, build(name), torch.zeros(4, 2), 3)
        == f"train.model: on a batch of shape (4, 2) the network gives {got}; it must give shape (4, 3): for each row a"
        " number (logit) for each class"
    )


def test_predicting_takes_any_number_of_rows_and_leaves_training_mode_on():
    model = build("good")
    model.append(nn.Dropout(0.9))
    inputs = torch.rand(2 * networks.EVALUATION_ROWS + 5, 2)
    output = networks.outputs_of(model, inputs)
    assert output.shape == (len(inputs), 3)
    assert model.training
    assert (networks.outputs_of(model, inputs) == output).all(), "dropout is off"
    # The rows before it decide nothing about the bits of a row.
    assert (networks.outputs_of(model, inputs[networks.EVALUATION_ROWS :]) == output[networks.EVALUATION_ROWS :]).all()


def test_saved_weights_come_back():
    model, other = build("good"), build("good", seed=1)
    data = networks.to_bytes(model.state_dict())
    networks.load_weights(other, data)
    assert all((tensor == other.state_dict()[name]).all() for name, tensor in model.state_dict().items())
    assert networks.to_bytes(other.state_dict()) == data


def test_buffers_are_saved_too():
    model = networks.build("networks.cnn:cnn", {"channels": 2}, (1, 8, 8), 10, 0)
    model(torch.rand(4, 1, 8, 8))  # moves BatchNorm's averages
    other = networks.build("networks.cnn:cnn", {"channels": 2}, (1, 8, 8), 10, 1)
    networks.load_weights(other, networks.to_bytes(model.state_dict()))
    assert (other[1].running_mean == model[1].running_mean).all()
    assert other[1].num_batches_tracked == 1


def test_the_same_tensors_give_the_same_bytes():
    model = build("good")
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    data = networks.to_bytes(model.state_dict())
    # Neither memory layout nor the order of modules nor sharing has a part in it.
    model[1].weight.data = model[1].weight.data.t().contiguous().t()
    assert networks.to_bytes(model.state_dict()) == data
    assert safetensors.torch.save(dict(reversed(tensors.items()))) == data
    assert networks.to_bytes(model.state_dict()) == data


def test_tied_weights_can_be_saved():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    other = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    networks.load_weights(other, networks.to_bytes(tied.state_dict()))
    assert (other[0].weight == other[1].weight).all()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("lazy", "parameter weight has no values yet"),
        ("meta", "parameter weight has no values yet"),
        ("empty", "nothing to train"),
    ],
)
def test_network_without_weights(made, said, monkeypatch):
    makes = {"lazy": lambda: nn.LazyLinear(2), "meta": lambda: nn.Linear(2, 2, device="meta"), "empty": nn.Flatten}
    monkeypatch.setattr(
        "surefoot.training.network.find_function", lambda key, path: lambda shape, outputs: makes[made]()
    )
    with pytest.raises(UserError, match=said):
        networks.build("some:network", {}, (2,), 2, 0)


def test_network_that_exits():
    class Exits(nn.Module):
        def forward(self, inputs):
            raise SystemExit(3)

    with pytest.raises(UserError, match="SystemExit: 3"):
        preflight.check_output(Exits(), torch.zeros(1, 2), 2)


def test_a_network_that_changes_its_inputs_in_place():
    # Else each epoch would validate it on what the one before left of the rows.
    network = nn.Sequential(nn.LeakyReLU(0.5, inplace=True), nn.Linear(2, 3))
    inputs = -torch.ones(4, 2)
    assert "the network changes the inputs that it is given, in place" in refused(
        preflight.check_output, network, inputs, 3
    )
    assert torch.equal(inputs, -torch.ones(4, 2))
