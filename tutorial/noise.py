"""How far the gradient of a minibatch is from that of all rows, by the size of the minibatch."""

from math import sqrt

from tutorial import draw, lab

SIZES = [2**power for power in range(10)]
DRAWS = 200


def main() -> None:
    """Measure it before the first step, and after five epochs."""
    params = lab.params()
    lab.pinned(params)
    import torch

    def gradient(rows: "torch.Tensor") -> "torch.Tensor":
        """Of the mean loss of some rows: a vector with a value for each weight."""
        model.zero_grad()
        loss(model(inputs[rows]), targets[rows]).backward()
        return torch.cat([weights.grad.flatten() for weights in model.parameters()])

    figure, (axes,) = draw.panels(
        "Error of a minibatch's gradient, relative to the gradient of all rows (root mean square)"
    )
    columns = []
    for number, (when, epochs) in enumerate({"before the first step": 0, "after 5 epochs": 5}.items()):
        trainer = lab.trainer(params, epochs)
        model, loss = trainer.model, trainer.objective.loss
        inputs, targets = trainer.training.inputs[:], trainer.training.targets[:]
        full = gradient(torch.arange(len(targets)))
        generator = torch.Generator().manual_seed(0)
        errors = []
        for size in SIZES:
            draws = [gradient(torch.randperm(len(targets), generator=generator)[:size]) for _ in range(DRAWS)]
            errors.append(sqrt(sum(float((drawn - full).norm() / full.norm()) ** 2 for drawn in draws) / DRAWS))
        axes.loglog(SIZES, errors, label=f"measured {when}", **draw.style(number))
        axes.loglog(
            SIZES,
            [errors[0] / sqrt(size) for size in SIZES],
            color="0.6",
            linestyle=":",
            label="1 / √rows" if number else None,
        )
        columns.append(errors)
    draw.table(
        ("rows", "error before", "x root of rows", "error after 5 epochs", "x root of rows"),
        *(
            (f"{size}", f"{before:.2f}", f"{before * sqrt(size):.2f}", f"{after:.2f}", f"{after * sqrt(size):.2f}")
            for size, before, after in zip(SIZES, *columns, strict=True)
        ),
    )
    axes.set(xlabel="rows in the minibatch", ylabel="relative error")
    axes.set_xticks(SIZES, [str(size) for size in SIZES])
    axes.set_yticks([0.1, 0.3, 1, 3, 10], ["0.1", "0.3", "1", "3", "10"])
    axes.minorticks_off()
    axes.legend()
    draw.save(figure, "noise")
