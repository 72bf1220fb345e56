"""What people write without a pipeline: the run of params.yaml in one process, with torch, MLflow and scikit-learn, by
`python plain_script.py data/raw/digits.csv LR EPOCHS`. Metrics go to SQLite each epoch, a checkpoint each ten; eight
plots and the model in the end.
"""

import sys

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import mlflow
import mlflow.pytorch
import numpy as np
import pandas as pd
import torch
from mlflow.models import infer_signature
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    ConfusionMatrixDisplay,
    accuracy_score,
    average_precision_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
)
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main(path: str, lr: float, epochs: int) -> None:
    torch.manual_seed(0)
    table = pd.read_csv(path)
    targets = table.pop("digit").to_numpy()
    train, other, train_targets, other_targets = train_test_split(
        table.to_numpy("float32"), targets, test_size=0.3, stratify=targets, random_state=0
    )
    scaler = StandardScaler().fit(train)
    inputs = [torch.from_numpy(scaler.transform(rows).astype("float32")) for rows in (train, *np.array_split(other, 2))]
    labels = [torch.from_numpy(rows) for rows in (train_targets, *np.array_split(other_targets, 2))]

    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loader = DataLoader(TensorDataset(inputs[0], labels[0]), batch_size=64, shuffle=True)
    mlflow.set_tracking_uri("sqlite:///plain.db")
    mlflow.set_experiment("plain")
    with mlflow.start_run():
        mlflow.log_params({"lr": lr, "momentum": 0.9, "batch_size": 64, "epochs": epochs, "hidden": 256})
        history = fit(model, optimizer, loader, inputs[1], labels[1], epochs)
        model.eval()
        with torch.no_grad():
            outputs = model(inputs[2])
            loss = nn.functional.cross_entropy(outputs, labels[2]).item()
        report(history, outputs.softmax(1).numpy(), labels[2].numpy(), loss, inputs[2].numpy())
        mlflow.pytorch.log_model(
            model,
            name="model",
            signature=infer_signature(inputs[2].numpy(), outputs.numpy()),
            pip_requirements=[f"torch=={torch.__version__.partition('+')[0]}", f"mlflow=={mlflow.__version__}"],
            serialization_format="pickle",  # the quicker one
        )


def fit(model, optimizer, loader, inputs, targets, epochs) -> list[dict[str, float]]:
    """Train; returns the metrics of each epoch."""
    history = []
    for epoch in range(1, epochs + 1):
        model.train()
        total = rows = 0.0
        for some, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(some), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            rows += len(labels)
        model.eval()
        with torch.no_grad():
            outputs = model(inputs)
        found = {
            "train/loss": total / rows,
            "validation/loss": nn.functional.cross_entropy(outputs, targets).item(),
            "validation/accuracy": (outputs.argmax(1) == targets).float().mean().item(),
            "lr": optimizer.param_groups[0]["lr"],
        }
        history.append(found)
        mlflow.log_metrics(found, step=epoch)
        print(f"epoch {epoch}", found)
        if epoch % 10 == 0:
            torch.save(model.state_dict(), f"epoch-{epoch}.pt")
            mlflow.log_artifact(f"epoch-{epoch}.pt", "checkpoints")
    return history


def report(history, probabilities, actual, loss, inputs) -> None:
    """Test metrics and plots."""
    predicted, hit = probabilities.argmax(1), np.eye(10)[actual]
    precision, recall, f1, _ = precision_recall_fscore_support(actual, predicted, average="macro")
    found = {"loss": loss, "accuracy": accuracy_score(actual, predicted), "precision": precision, "recall": recall}
    found |= {"f1": f1, "roc_auc": roc_auc_score(actual, probabilities, multi_class="ovr")}
    mlflow.log_metrics({f"test/{name}": value for name, value in found.items()})
    frame = pd.DataFrame(history)

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    frame[["train/loss", "validation/loss"]].plot(ax=axes[0], logy=True, grid=True)
    frame[["validation/accuracy"]].plot(ax=axes[1], grid=True)
    save(figure, "training")
    figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
    frame[["lr"]].plot(ax=axis, grid=True)
    save(figure, "schedule")
    figure, axis = plt.subplots(figsize=(7, 7), layout="constrained")
    ConfusionMatrixDisplay.from_predictions(actual, predicted, ax=axis, cmap="Blues")
    save(figure, "confusion")
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    each = precision_recall_fscore_support(actual, predicted)[:2]
    pd.DataFrame(dict(zip(("precision", "recall"), each, strict=True))).plot.bar(ax=axis)
    save(figure, "classes")
    figure, axis = plt.subplots(figsize=(6, 6), layout="constrained")
    share, given = calibration_curve(predicted == actual, probabilities.max(1), n_bins=15)
    axis.plot(given, share, marker="o")
    save(figure, "calibration")
    for name, curve, area in (
        ("roc", roc_curve, roc_auc_score),
        ("precision_recall", precision_recall_curve, average_precision_score),
    ):
        figure, axis = plt.subplots(figsize=(6, 6), layout="constrained")
        for number in range(10):
            first, second, _ = curve(hit[:, number], probabilities[:, number])
            size = area(hit[:, number], probabilities[:, number])
            axis.plot(first, second, label=f"{number}: {size:.3f}")
        axis.legend()
        save(figure, name)
    figure, axes = plt.subplots(2, 6, figsize=(10, 4), layout="constrained")
    worst = np.argsort(probabilities[np.arange(len(actual)), actual])[:12]
    for axis, row in zip(axes.ravel(), worst, strict=True):
        axis.imshow(inputs[row].reshape(8, 8), cmap="gray")
        axis.set(title=f"{actual[row]}, not {predicted[row]}", xticks=[], yticks=[])
    save(figure, "mistakes")


def save(figure, name) -> None:
    figure.savefig(f"{name}.png", dpi=95)
    plt.close(figure)
    mlflow.log_artifact(f"{name}.png", "plots")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
