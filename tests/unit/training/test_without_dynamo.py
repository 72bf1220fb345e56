"""Optimizers import no compiler, compute the same bits, and leave `torch.compile` to the user."""

import ast
import subprocess
import sys

from tests.helpers import PROJECT

PATHS = {"PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"}

TRAIN = """
import sys, torch
from surefoot.training.preflight import optimizer_class

NAMES = {name for name, kind in vars(torch.optim).items() if isinstance(kind, type) and hasattr(kind, "step")}
NAMES -= {"Optimizer", "LBFGS", "SparseAdam"}

def torch_class(name):
    return getattr(torch.optim, name)

def train(kind, **settings):
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(3, 3))
    optimizer = kind([parameter], lr=0.1, **settings)
    seen = []
    optimizer.register_step_pre_hook(lambda *given: seen.append(torch.is_grad_enabled()))
    for _ in range(3):
        optimizer.zero_grad()
        ((parameter - 1) ** 2).sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 2))]})
    assert seen == [True] * 3, seen
    return parameter.detach()

"""
TELL = """
found = {name: train(class_of(name)) for name in sorted(NAMES)}
found["nesterov"] = train(class_of("SGD"), momentum=0.9, nesterov=True)
assert ("torch._dynamo" in sys.modules) == (class_of is not optimizer_class)
print({name: parameter.tolist() for name, parameter in found.items()})
"""
COMPILED = """
import sys, torch
from surefoot.training.preflight import optimizer_class

network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU())
optimizer = optimizer_class("Adam")(network.parameters(), lr=0.1)
graphs = []

def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward

def take_step(run):
    optimizer.zero_grad()
    run(torch.ones(2, 4)).sum().backward()
    optimizer.step()

take_step(network)
assert "torch._dynamo" not in sys.modules
take_step(torch.compile(network, backend=backend))
take_step(torch.compile(network, backend=backend))
print(len(graphs))
"""


def run(code):
    quick = "import gc; gc.disable()\n"  # there is nothing to collect in what is imported
    return subprocess.run([sys.executable, "-c", quick + code], env=PATHS, capture_output=True, text=True)


def test_every_optimizer_computes_the_same_bits():
    ours, theirs = (run(f"{TRAIN}{TELL}".replace("class_of", how)) for how in ("optimizer_class", "torch_class"))
    assert ours.stdout, ours.stderr
    assert ours.stdout == theirs.stdout, theirs.stderr
    assert len(ast.literal_eval(ours.stdout)) > 10


def test_a_network_can_still_be_compiled():
    done = run(COMPILED)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1
