import pytest

from surefoot.base.wording import without_password


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:sec/ret+x=@bucket/prefix", "s3://bucket/prefix"),
        ("https://anna:secret@host:5000/a@b and s3://K:s@c/d", "https://host:5000/a@b and s3://c/d"),
        ("http://host:5000/a@b", "http://host:5000/a@b"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("postgresql://anna@host/mlflow", "postgresql://host/mlflow"),
    ],
)
def test_what_an_address_shows(text, shown):
    assert without_password(text) == shown
