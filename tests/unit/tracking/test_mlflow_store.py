"""Where MLflow keeps runs."""

import os

import pytest

from surefoot.tracking import mlflow_store


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        (None, "sqlite:///ROOT/mlflow.db"),
        ("sqlite:///x.db", "sqlite:///ROOT/x.db"),
        ("sqlite:///sub/x.db?timeout=20", "sqlite:///ROOT/sub/x.db?timeout=20"),
        ("sqlite+pysqlite:///./x.db", "sqlite+pysqlite:///ROOT/x.db"),
        ("sqlite:////tmp/x.db", "sqlite:////tmp/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("sqlite://", "sqlite://"),
        ("./mlruns", "ROOT/mlruns"),
        ("file:mlruns", "file:ROOT/mlruns"),
        ("file:///tmp/mlruns", "file:///tmp/mlruns"),
        ("/tmp/mlruns", "/tmp/mlruns"),
        *(
            (uri, uri)
            for uri in (
                "http://127.0.0.1:5000",
                "https://x/y",
                "postgresql://u:p@h/d",
                "mysql+pymysql://h/d",
                "databricks",
                "databricks://profile",
            )
        ),
    ],
)
def test_a_relative_store_is_at_the_root_that_dvc_names(monkeypatch, tmp_path, uri, meant):
    """As in the copies of `dvc exp run --temp` and of the queue."""
    root = tmp_path / "root"
    (
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        if uri is None
        else monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    )
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.chdir(tmp_path)
    assert mlflow_store.store_uri() == meant.replace("ROOT", str(root))
    assert mlflow_store.configure() == mlflow_store.store_uri() == os.environ["MLFLOW_TRACKING_URI"]
