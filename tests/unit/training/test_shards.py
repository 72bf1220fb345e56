"""Minibatches cut into shards: the sums are those of the whole, and one digest comes of any cut among processes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from surefoot.data.order import RowOrder
from surefoot.training.divergence import Diverged
from surefoot.training.loop import Progress
from surefoot.training.minibatches import Rows
from surefoot.training.network import to_bytes
from surefoot.training.objective import make_objective
from surefoot.training.sharded import tree
from surefoot.training.sharded.sharded_step import shard_seed, shard_sizes
from surefoot.training.sharded.sharded_trainer import ShardedTrainer, sharded_minibatches
from surefoot.training.step import StepSettings
from tests.unit.run.chains import OPTIMIZER, SEED, TRAINING, VALIDATION, make, make_model


def sharded(model, options, shards, size=8, objective=None, **settings):
    given = {"objective": objective} if objective else {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, **options)
    return ShardedTrainer(model, optimizer, TRAINING, VALIDATION, size, SEED, shards=shards, **given, **settings)


def smooth():
    """Every row of a minibatch counts for itself in it: neither BatchNorm nor dropout."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3))


# --- The tree ------------------------------------------------------------------------------------


def by_levels(numbers):
    """The sum as DESIGN.md tells it: neighbours are added, level by level."""
    while len(numbers) > 1:
        pairs = [numbers[at : at + 2] for at in range(0, len(numbers), 2)]
        numbers = [pair[0] + pair[1] if len(pair) == 2 else pair[0] for pair in pairs]
    return numbers[0]


class Rank:
    """A process among several that take turns: what they exchange is kept here."""

    def __init__(self, rank, size, lent):
        self.rank, self.size, self._lent = rank, size, lent

    def exchange(self, parts, counts):
        length = -(-len(parts[0]) // self.size)
        padded = [torch.cat([part, part.new_zeros(self.size * length - len(part))]) for part in parts]
        self._lent[self.rank] = padded
        if len(self._lent) < self.size:
            raise NotYet
        assert [len(self._lent[rank]) for rank in range(self.size)] == list(counts)
        own = slice(self.rank * length, (self.rank + 1) * length)
        return [part[own].clone() for rank in range(self.size) for part in self._lent[rank]]

    def collect(self, part, length):
        raise Slice(part, length)


class NotYet(Exception):
    pass


class Slice(Exception):
    pass


def total_by(processes, leaves):
    """The total that processes come to which exchange slices."""
    shards = len(leaves)
    lent, slices = {}, {}
    for rank in [*range(processes), *range(processes)]:
        own = tree.shards_of(rank, processes, shards)
        sums = [
            tree.sum_of(node, shards, lambda node: None if node[0] else [leaves[node[1]].clone()])
            for node in tree.nodes_of(own, shards)
        ]
        try:
            return tree.total_of([some[0] for some in sums], shards, Rank(rank, processes, lent))
        except NotYet:
            pass
        except Slice as found:
            slices[rank], length = found.args
    return torch.cat([slices[rank] for rank in range(processes)])[:length]


@given(st.integers(1, 40), st.data())
def test_the_total_is_one_whatever_the_processes(shards, data):
    processes = data.draw(st.integers(1, shards))
    leaves = list(torch.randn(shards, 5, generator=torch.Generator().manual_seed(shards)) * 10.0 ** torch.arange(-2, 3))
    assert torch.equal(total_by(processes, leaves), by_levels(leaves))


@given(st.integers(1, 200), st.data())
def test_every_shard_has_one_process(shards, data):
    processes = data.draw(st.integers(1, shards))
    parts = [tree.shards_of(rank, processes, shards) for rank in range(processes)]
    assert [shard for part in parts for shard in part] == list(range(shards))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for part in parts:
        nodes = tree.nodes_of(part, shards)
        leaves = [leaf for level, place in nodes for leaf in range(place << level, min((place + 1) << level, shards))]
        assert leaves == list(part)


def test_leaves_are_added_in_their_order_and_few_are_held():
    asked, held = [], 0

    def leaf(node):
        nonlocal held
        if node[0]:
            return None
        asked.append(node[1])
        return [torch.ones(1)]

    assert tree.sum_of(tree.root_of(11), 11, leaf)[0] == 11
    assert asked == list(range(11))


@given(st.integers(0, 300), st.integers(1, 64))
def test_shards_differ_by_one_row_at_most(rows, shards):
    sizes = shard_sizes(rows, shards)
    assert sizes == [len(part) for part in torch.arange(rows).tensor_split(shards)]


# --- Rows ----------------------------------------------------------------------------------------


@given(
    st.integers(1, 80),
    st.integers(1, 12),
    st.sampled_from([None, 4]),
    st.data(),
)
def test_processes_read_their_rows_and_all_targets(rows, size, block, data):
    shards = data.draw(st.integers(1, size))
    processes = data.draw(st.integers(1, shards))
    inputs = torch.arange(rows)
    order = RowOrder(rows, 3, 1, block, 2)
    expected = [part.split(shard_sizes(len(part), shards)) for part in torch.from_numpy(order.indices()).split(size)]
    for given_order in (order, torch.from_numpy(order.indices())):
        found = [{} for _ in expected]
        for rank in range(processes):
            own = tree.shards_of(rank, processes, shards)
            cut = list(sharded_minibatches(Rows(inputs, 2 * inputs), given_order, size, shards, own, "cpu"))
            assert [each.targets.tolist() for each in cut] == [(2 * torch.cat(parts)).tolist() for parts in expected]
            for at, each in enumerate(cut):
                assert list(each.own) == list(own)
                found[at] |= each.own
        for parts, of_all in zip(expected, found, strict=True):
            assert [mine[0].tolist() for mine in of_all.values()] == [part.tolist() for part in parts]
            assert all(torch.equal(2 * mine[0], mine[1]) for mine in of_all.values())


# --- The gradient --------------------------------------------------------------------------------


@pytest.mark.parametrize("shards", [2, 3, 8])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("weights", [None, [1.0, 5.0, 0.2], [0.0, 1.0, 2.0]])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_gradient_is_that_of_the_whole(shards, accumulate, weights, reduction):
    objective = make_objective("classification", "CrossEntropyLoss", {"reduction": reduction}, weights, [15, 15, 15])
    settings = {"step": StepSettings(accumulate=accumulate, clip_norm=0.5)}
    one, many = smooth(), smooth()
    whole = make()
    whole = replace(
        whole, model=one, optimizer=torch.optim.SGD(one.parameters(), lr=0.0), objective=objective, **settings
    )
    parts = sharded(many, {}, shards, objective=objective, **settings)
    order = torch.arange(45)  # 5 rows in the last minibatch, so some of 8 shards have none
    steps = -(-45 // (8 * accumulate))
    before = whole.train(order, [[0.1]] * steps, Progress(), 0)
    after = parts.train(order, [[0.1]] * steps, Progress(), 0)
    assert (after.steps, after.rows) == (before.steps, before.rows)
    assert after.loss_sum == pytest.approx(before.loss_sum, rel=1e-5)
    assert after.norm_sum == pytest.approx(before.norm_sum, rel=1e-5)
    for mine, theirs in zip(many.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_each_shard_draws_for_itself():
    drawn = []

    class Draws(nn.Module):
        def forward(self, inputs):
            drawn.append(torch.rand(()).item())
            return inputs

    model = nn.Sequential(Draws(), smooth())
    sharded(model, {}, 4).train(torch.arange(16), [[0.1]] * 2, Progress(), 0)
    assert len(set(drawn)) == 8
    again = list(drawn)
    drawn.clear()
    sharded(model, {}, 4).train(torch.arange(8, 16), [[0.1]], Progress(1, 8), 1)
    assert drawn == again[4:]
    assert len({shard_seed(seed, shard) for seed in range(20) for shard in range(20)}) == 400


# --- Buffers -------------------------------------------------------------------------------------


class Keeps(nn.Module):
    """Keeps the mean of what it was given last, its calls, and a number that it never changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor(100.0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("biggest", torch.zeros((), dtype=torch.int64))
        self.register_buffer("third", torch.tensor([0.1, float("-inf"), 1 / 3]))

    def forward(self, inputs):
        with torch.no_grad():
            self.mean.mul_(0.5).add_(inputs.mean())
            self.calls += 1
            self.biggest.copy_(inputs.abs().max() * 1000)
        return inputs


def test_buffers_are_the_mean_of_what_shards_made_of_them():
    model = nn.Sequential(Keeps(), smooth())
    third = model[0].third.clone()
    sharded(model, {}, 3).train(torch.arange(8), [[0.1]], Progress(), 0)
    parts = TRAINING.inputs[:8].tensor_split(3)
    made = [torch.tensor(100.0).mul(0.5).add(part.mean()) for part in parts]
    assert torch.equal(model[0].mean, by_levels(made) / 3)
    assert model[0].calls == 1
    assert model[0].biggest == int(parts[0].abs().max() * 1000)
    assert torch.equal(model[0].third, third)


# --- What goes wrong -----------------------------------------------------------------------------


def test_divergence_is_named_by_step_and_layer():
    inputs = TRAINING.inputs.clone()
    inputs[20] = float("inf")
    trainer = replace(sharded(smooth(), {}, 4), training=Rows(inputs, TRAINING.targets))
    with pytest.raises(Diverged, match=r"the loss became nan at step 3, with lr 0.1; it began in layer '0'"):
        trainer.train(torch.arange(45), [[0.1]] * 6, Progress(), 0)


def test_gradients_that_are_not_finite_are_named():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.root = nn.Parameter(torch.zeros(()))

        def forward(self, inputs):
            return inputs + self.root.sqrt()

    trainer = sharded(nn.Sequential(smooth(), Root()), {}, 4)
    with pytest.raises(Diverged, match=r"the norm of the gradient became (inf|nan) at step 1, .* gradient of 1\.root"):
        trainer.train(torch.arange(45), [[0.1]] * 6, Progress(), 0)


def test_a_network_that_fails_on_one_shard_is_named(recwarn):
    class Fails(nn.Module):
        def forward(self, inputs):
            if inputs[0, 0] == TRAINING.inputs[10, 0]:
                raise ValueError("this row again")
            return inputs

    trainer = sharded(nn.Sequential(Fails(), smooth()), {}, 4)
    with pytest.raises(
        Exception,
        match=r"fails in training, at step 2 of the epoch, on shard 2 of 4 \(train.shards\): .*this row again",
    ):
        trainer.train(torch.arange(45), [[0.1]] * 6, Progress(), 0)
    assert not recwarn


def test_sparse_gradients_are_refused():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3)

        def forward(self, inputs):
            return self.out(self.words(inputs[:, 0].abs().long() % 9))

    with pytest.raises(Exception, match=r"train.shards: sparse gradients"):
        sharded(Words(), {}, 2).train(torch.arange(8), [[0.1]], Progress(), 0)


def test_a_parameter_that_no_shard_uses_has_no_gradient():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle, self.inner = nn.Linear(5, 3), nn.Linear(5, 3), nn.Linear(5, 5)

        def forward(self, inputs):
            if inputs[0, 0] == TRAINING.inputs[0, 0]:  # of the first shard alone
                inputs = self.inner(inputs)
            return self.used(inputs)

    model = Half()
    before = to_bytes({"idle": model.idle.weight})
    sharded(model, {"weight_decay": 0.1}, 4).train(torch.arange(8), [[0.1]], Progress(), 0)
    assert to_bytes({"idle": model.idle.weight}) == before
    assert model.idle.weight.grad is None
    assert model.inner.weight.grad.abs().sum() > 0


# --- Going on from a state -----------------------------------------------------------------------


@pytest.mark.parametrize("shards", [2, 3, 8])
def test_cut_off_anywhere_it_goes_on_to_the_same(shards):
    def make_sharded():
        return sharded(make_model(), OPTIMIZER, shards, size=24)

    # 18 rows in the last of 4 minibatches: no shard has a single one, of which BatchNorm has no variance.
    order, scheduled = torch.randperm(90, generator=torch.Generator().manual_seed(1)) % 45, [[0.1]] * 3 + [[0.05]]
    whole = make_sharded()
    last = whole.train(order, scheduled, Progress(), 0)
    for cut in range(1, 4):
        first, second = make_sharded(), make_sharded()
        so_far = first.train(order[: 24 * cut], scheduled[:cut], Progress(), 0)
        second.load(first.state())
        assert second.train(order[24 * cut :], scheduled[cut:], so_far, cut) == last
        assert to_bytes(second.state()) == to_bytes(whole.state())
