"""What test_processors.py runs on each processor: `python -m tests.slow.layers PROFILE` prints a digest for each
network and optimizer, as JSON.
"""

import hashlib
import json
import sys

from surefoot.training import numerics

STEPS, ROWS = 4, 37


def main(profile: str) -> dict[str, str]:
    """Digests of all weights, buffers and momenta after a few steps, and of the validation."""
    numerics.pin(profile, threads=1)
    import torch
    from torch import nn

    from networks.cnn import cnn
    from networks.mlp import mlp
    from surefoot.training.loop import Progress, Rows, Trainer
    from surefoot.training.network import to_bytes

    class Apply(nn.Module):
        """A function of a module, such as one of its outputs."""

        def __init__(self, module, function):
            super().__init__()
            self.module, self.function = module, function

        def forward(self, inputs):
            return self.function(self.module, inputs)

    def dense(*layers):
        return nn.Sequential(nn.Flatten(), nn.Linear(108, 33), *layers, nn.Linear(33, 10))

    def image(*layers):
        return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10))

    def sequence(layer, function):
        """On rows of 12 vectors of 9 numbers."""
        return nn.Sequential(
            nn.Unflatten(1, (3,)), nn.Flatten(), nn.Unflatten(1, (12, 9)), Apply(layer, function), nn.LazyLinear(10)
        )

    networks = {
        "mlp": lambda: mlp((3, 6, 6), 10, [128, 64], dropout=0.1),
        "cnn": lambda: cnn((3, 6, 6), 10),
        "linear": lambda: dense(),
        "root": lambda: dense(Apply(nn.Identity(), lambda _, x: (x * x + 0.1).sqrt() - (x * x + 0.2) ** 0.5)),
        "dropout": lambda: dense(nn.Dropout(0.3)),
        **{
            name: (lambda layer=layer: dense(layer()))
            for name, layer in {
                "GELU": nn.GELU, "GELU (tanh)": lambda: nn.GELU("tanh"), "Tanh": nn.Tanh, "Sigmoid": nn.Sigmoid,
                "SiLU": nn.SiLU,
                "Softplus": nn.Softplus, "ELU": nn.ELU, "Mish": nn.Mish, "LogSoftmax": lambda: nn.LogSoftmax(1),
                "LayerNorm": lambda: nn.LayerNorm(33), "RMSNorm": lambda: nn.RMSNorm(33),
                "BatchNorm1d": lambda: nn.BatchNorm1d(33),
            }.items()
        },
        "bilinear": lambda: nn.Sequential(nn.Flatten(), Apply(nn.Bilinear(108, 108, 10), lambda layer, x: layer(x, x))),
        "Conv2d": lambda: image(nn.Conv2d(3, 8, 3)),
        "Conv2d, depthwise": lambda: image(nn.Conv2d(3, 6, 3, groups=3)),
        "ConvTranspose2d": lambda: image(nn.ConvTranspose2d(3, 5, 3, stride=2)),
        "Conv1d": lambda: nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 7, 5, dilation=2), nn.Flatten(), nn.LazyLinear(10)),
        "Conv3d": lambda: nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3), nn.Flatten(), nn.LazyLinear(10)),
        "BatchNorm2d": lambda: image(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()),
        "GroupNorm": lambda: image(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU()),
        "pooling": lambda: image(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Conv2d(8, 8, 1), nn.AvgPool2d(2),
                                 nn.AdaptiveAvgPool2d(1)),
        "upsampling": lambda: image(nn.Conv2d(3, 4, 3), nn.Upsample(scale_factor=2, mode="bilinear")),
        "embedding": lambda: image(nn.Flatten(),
                                   Apply(nn.Embedding(16, 7), lambda layer, x: layer((x.abs() * 5).long() % 16))),
        "RNN": lambda: sequence(nn.RNN(9, 17, batch_first=True), lambda layer, x: layer(x)[0][:, -1]),
        "GRU": lambda: sequence(nn.GRU(9, 17, batch_first=True), lambda layer, x: layer(x)[0][:, -1]),
        "LSTM": lambda: sequence(nn.LSTM(9, 17, batch_first=True), lambda layer, x: layer(x)[0][:, -1]),
        "attention": lambda: sequence(nn.MultiheadAttention(9, 3, batch_first=True),
                                      lambda layer, x: layer(x, x, x)[0].mean(1)),
        "transformer": lambda: sequence(nn.TransformerEncoderLayer(9, 3, 32, activation="gelu", batch_first=True),
                                        lambda layer, x: layer(x).mean(1)),
    }  # fmt: skip

    numerics.seed_step(1, 0)
    rows = Rows(torch.randn(4 * ROWS, 3, 6, 6), torch.arange(4 * ROWS) % 10)
    nesterov = {"momentum": 0.9, "nesterov": True, "dampening": 0.0, "weight_decay": 1e-4}
    trainings = [(name, make, torch.optim.SGD, nesterov) for name, make in networks.items()]
    trainings += [
        (kind.__name__, networks["mlp"], kind, {})
        for kind in (
            torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adamax,
            torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adafactor, torch.optim.Rprop,
        )
    ]  # fmt: skip
    trainings += [
        ("Adam, amsgrad", networks["mlp"], torch.optim.Adam, {"amsgrad": True}),
        ("RMSprop, centered", networks["mlp"], torch.optim.RMSprop, {"centered": True}),
    ]
    digests = {}
    for name, make, optimizer, arguments in trainings:
        numerics.seed_step(0, 0)
        model = make()
        model(rows.inputs[:2])  # lazy layers take their shape
        trainer = Trainer(model, optimizer(model.parameters(), lr=0.0, **arguments), rows, rows, ROWS, seed=0)
        trainer.train(torch.arange(STEPS * ROWS), [[0.05]] * STEPS, Progress(), 0)
        digest = hashlib.sha256(to_bytes(trainer.state()))
        digest.update(repr(trainer.end_epoch(1, STEPS)).encode())
        digests[name] = digest.hexdigest()
    return {"fingerprint": numerics.fingerprint(), **digests}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))
