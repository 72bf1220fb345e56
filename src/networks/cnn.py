"""A small convolutional network."""

from torch import nn


def cnn(input_shape: tuple[int, ...], outputs: int, channels: int = 16) -> nn.Module:
    """Two convolutions with BatchNorm: inputs (rows, depth, height, width) to (rows, outputs)."""
    if len(input_shape) != 3:
        raise ValueError(f"cnn needs inputs of shape [depth, height, width], not {list(input_shape)}: set batch.shape")
    depth, height, width = input_shape
    return nn.Sequential(
        nn.Conv2d(depth, channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(2 * channels),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * (height // 2) * (width // 2), outputs),
    )
