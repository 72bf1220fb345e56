"""The data sets that come with scikit-learn: `sklearn:wine`."""

import numpy as np
import pyarrow as pa

from surefoot.base.errors import UserError
from surefoot.base.installation import install_command
from surefoot.data.readers.array_columns import target_column, target_field
from surefoot.data.readers.source import RowSource, naming_all, needed_columns
from surefoot.params.prepare_section import PrepareParams

CLASSES = ("breast_cancer", "digits", "iris", "wine")
NUMBERS = ("diabetes", "linnerud")


def open_bundled(prepare: PrepareParams, name: str) -> RowSource:
    """A data set as a table: its features by their names, and the target, under the name prepare.target: a class's
    name; in regression a number.

    `linnerud` has three targets, of which prepare.target names one.

    Raises:
        UserError: there is no such set; a set of numbers is to be classified; the target has the name of a feature.
    """
    if name not in CLASSES + NUMBERS:
        raise UserError(
            f"sklearn:{name}: there is no such data set; scikit-learn comes with {', '.join(sorted(CLASSES + NUMBERS))}"
        )
    if name in NUMBERS and prepare.task != "regression":
        raise UserError(f"sklearn:{name}: its target is a number; set prepare.task to regression")
    try:
        import sklearn.datasets  # takes seconds
    except ImportError:
        raise UserError(f"sklearn:{name}: scikit-learn isn't installed: {install_command('sklearn')}") from None
    data = getattr(sklearn.datasets, f"load_{name}")()
    place = f"sklearn:{name}"
    target = data.target
    if target.ndim > 1:
        if prepare.target not in data.target_names:
            raise UserError(
                f"{place}: has the targets {', '.join(data.target_names)}; prepare.target must name one of them"
            )
        target = target[:, list(data.target_names).index(prepare.target)]
    elif prepare.task != "regression":
        target = np.asarray(data.target_names).astype(str)[target]
    else:
        target = target.astype(np.float64)
    names = [str(feature) for feature in data.feature_names]
    if prepare.target in names:
        raise UserError(
            f"{place}: {prepare.target!r} is a feature; prepare.target must be another name, under which the target"
            " comes"
        )
    field = target_field(prepare.target, target.dtype)
    columns = {
        feature: target_column(data.data[:, place], pa.field(feature, pa.float64()))
        for place, feature in enumerate(names)
    }
    columns[prepare.target] = target_column(target, field)
    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns)).select(
        needed_columns(prepare, list(columns), place)
    )
    return RowSource(
        naming_all(batch.schema, list(columns)), iter([batch]), lambda row: f"{place}: row {row + 1}", None, lambda: 0
    )
