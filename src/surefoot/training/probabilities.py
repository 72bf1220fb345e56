"""Probabilities of classes from what a classifier gives."""

import torch
from torch import Tensor


def class_probabilities(outputs: Tensor, task: str) -> Tensor:
    """The probability of each class, (rows, classes), also of two that have one logit, (rows, 1); (rows, 0) in
    regression.

    By torch, whose kernels are pinned: NumPy's exp has other last digits on other processors.
    """
    if task == "classification":
        return torch.softmax(outputs, 1)
    if task == "binary":
        positive = torch.sigmoid(outputs[:, 0])
        return torch.stack([1 - positive, positive], 1)
    return outputs[:, :0]
