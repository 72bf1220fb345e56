"""What MLflow calls: a logged model that takes raw rows. Loading it unpickles nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from surefoot.base.errors import UserError
from surefoot.base.wording import listed_names
from surefoot.data.features import transform
from surefoot.serving.logged_network import load_logged_network, predict_rows
from surefoot.serving.model_description import notation_of_model
from surefoot.serving.rows_to_predict import as_arrow, check_finite, cleaner_of, may_be_missing

if TYPE_CHECKING:
    import pandas as pd


class Predictor:
    """What MLflow calls: a network with the preparation of its inputs."""

    def __init__(self, model: Any, description: dict[str, Any]) -> None:
        # Once: requests come in several threads, and `training.network.predict` would bring one's network back to
        # training under another's hands.
        self._model = model.eval()
        self._description = description
        self._notation = notation_of_model(description)
        self._cleaner = cleaner_of(description["features"], self._notation)

    def predict(self, rows: "pd.DataFrame | np.ndarray") -> "pd.DataFrame":
        """For each raw row the class (`prediction`) and the probability of each class; in regression the number.

        Args:
            rows: a data frame with the columns of the raw data, as pandas reads them, or an array (rows, *shape) where
                the raw data are arrays. A column of which values may be missing may be left out.

        Raises:
            MlflowException: a column is missing, or holds what it can't; a server answers it with status 400.
        """
        import pandas as pd

        try:
            return pd.DataFrame(predict_rows(self._model, self._description, self._inputs(rows)))
        except UserError as error:
            from mlflow.exceptions import MlflowException

            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _inputs(self, rows: "pd.DataFrame | np.ndarray") -> np.ndarray:
        import pyarrow as pa

        features = self._description["features"]
        if isinstance(rows, np.ndarray):
            return check_finite(transform({features[0]["column"]: rows}, features), features, _row)
        rows = _nameless_as_here(_one_a_row(rows), features)
        if not any(feature["column"] in rows for feature in features):
            raise UserError(
                f"none of the model's columns is there: {listed_names(feature['column'] for feature in features)}"
            )
        if not len(rows):
            return np.empty((0, *self._description["input_shape"]), np.float32)
        given = {
            feature["column"]: as_arrow(rows[feature["column"]], feature, self._notation)
            for feature in features
            if feature["column"] in rows
        }
        given |= {
            feature["column"]: pa.nulls(len(rows))
            for feature in features
            if feature["column"] not in rows and may_be_missing(feature)
        }
        columns = {column.name: given[column.name] for column in self._cleaner.columns if column.name in given}
        if len(columns) == len(self._cleaner.columns) > 0:  # else `transform` says which isn't there
            batch, _ = self._cleaner.clean(pa.RecordBatch.from_pydict(columns), 0, _row)
            given |= zip(batch.schema.names, batch.columns, strict=True)
        return check_finite(transform(given, features), features, _row)


def _row(number: int) -> str:
    return f"row {number} (from 0)"


def _one_a_row(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Of columns that are lists of texts, `{"inputs": {"a": ["x", "y"]}}`, MLflow makes one row that
    holds the lists.
    """
    import pandas as pd

    if rows.columns.has_duplicates:
        raise UserError(f"column {rows.columns[rows.columns.duplicated()][0]!r} is there more than once")
    if len(rows) == 1 and len(rows.columns) and all(isinstance(cell, list) for cell in rows.iloc[0]):
        lengths = {name: len(cell) for name, cell in rows.iloc[0].items()}
        if len(set(lengths.values())) > 1:
            raise UserError(
                "columns have different numbers of rows:"
                f" {', '.join(f'{name!r} {length}' for name, length in lengths.items())}"
            )
        return pd.DataFrame(rows.iloc[0].to_dict())
    return rows


def _nameless_as_here(rows: "pd.DataFrame", features: list[dict[str, Any]]) -> "pd.DataFrame":
    """A column without a name, which pandas' reader calls `Unnamed: 0`, under its own empty one."""
    if "" in rows or all(feature["column"] for feature in features):
        return rows
    called = [name for name in rows.columns if isinstance(name, str) and name.startswith("Unnamed: ")]
    return rows.rename(columns={called[0]: ""}) if len(called) == 1 else rows


def load_pyfunc(path: str) -> Predictor:
    """MLflow's entry point (`loader_module`)."""
    _let_csv_be_read()
    return Predictor(*load_logged_network(Path(path)))


def _let_csv_be_read() -> None:
    """MLflow's server asks a signature by which types to read CSV, and fails where they may be any: then they are
    texts, as in the file (01234).
    """
    from mlflow.types.schema import AnyType, Schema

    types = Schema.pandas_types
    if types.__module__ == __name__:
        return

    def texts_for_any(schema: Schema) -> list[Any]:
        any_ = not schema.is_tensor_spec() and all(isinstance(column.type, AnyType) for column in schema.inputs)
        return [np.dtype(object)] * len(schema.inputs) if any_ else types(schema)

    Schema.pandas_types = texts_for_any  # type: ignore[method-assign,assignment]
