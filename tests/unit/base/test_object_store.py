"""The three functions behind which machines share files: on S3 (moto), in a directory, in fsspec's memory."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from werkzeug.wrappers import Response

from surefoot.base import object_store, paths
from surefoot.base.errors import UserError
from surefoot.base.object_store import TooLarge, Unavailable, open_object_store
from surefoot.reproduction.own_checkout import environment_there
from tests.s3_server import BUCKET, SECRET, URL, refusal


@pytest.fixture(params=["s3", "file", "memory"])
def url(request, tmp_path):
    """Of an empty store of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return URL
    (tmp_path / "there").mkdir()
    return f"file://{tmp_path}/there" if request.param == "file" else f"memory://{uuid4().hex}"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    return path


def test_what_is_put_is_listed_and_got(url, file, tmp_path):
    store = open_object_store(f"{url}/")
    assert store.list() == store.list("a") == {}
    assert store.put_if_absent("a/one.json", file)
    assert store.put_if_absent("a/two", file)
    assert store.put_if_absent("ab/three", file)
    assert store.list() == {"a/one.json": 10, "a/two": 10, "ab/three": 10}
    assert store.list("a") == {"a/one.json": 10, "a/two": 10}
    assert open_object_store(url).get("a/one.json", tmp_path / "got", 10)
    assert (tmp_path / "got").read_bytes() == b"some bytes"
    assert not store.get("a/none", tmp_path / "none", 10)


def test_who_comes_first_stands(url, file, tmp_path):
    store, other = open_object_store(url), tmp_path / "other"
    other.write_bytes(b"other bytes")
    assert store.put_if_absent("a/one", file)
    assert not store.put_if_absent("a/one", other)
    assert store.get("a/one", tmp_path / "got", 10_000)
    assert (tmp_path / "got").read_bytes() == b"some bytes"


@pytest.mark.parametrize("url", ["s3", "file"], indirect=True)
def test_what_has_more_bytes_than_it_may_is_not_got(url, file, tmp_path):
    store = open_object_store(url)
    assert store.put_if_absent("a/one", file)
    with pytest.raises(TooLarge):
        store.get("a/one", tmp_path / "got", 9)
    assert not (tmp_path / "got").exists() or (tmp_path / "got").stat().st_size <= 10


def test_a_server_that_does_not_say_how_much_comes_is_cut_off(s3, tmp_path):
    """Whatever the listing said, and though it sends without end."""
    sent = []

    def answer(request):
        if request.method == "GET" and "list-type" not in request.args:
            return Response((sent.append(1) or bytes(1 << 16) for _ in range(1 << 12)), 200)
        return None

    s3.answer = answer
    with pytest.raises(TooLarge):
        open_object_store(URL).get("a/one", tmp_path / "got", 1 << 18)
    assert (tmp_path / "got").stat().st_size <= 1 << 19
    assert len(sent) < 1 << 12


@pytest.mark.parametrize("url", ["s3", "file"], indirect=True)  # fsspec's memory lets two be first
def test_of_many_at_once_one_stands(url, tmp_path):
    files = [tmp_path / f"{number}" for number in range(8)]
    for path in files:
        path.write_text(path.name * 1000)
    stores = [open_object_store(url) for _ in files]
    with ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda store, path: store.put_if_absent("a/one", path), stores, files))
    assert sum(first) == 1
    assert stores[0].get("a/one", tmp_path / "got", 10_000)
    assert (tmp_path / "got").read_text() == files[first.index(True)].read_text()
    assert stores[0].list() == {"a/one": 1000}, "nothing half-written is left"


def test_a_large_object_goes_in_parts_and_is_refused_in_parts(s3, tmp_path):
    path, other = tmp_path / "large", tmp_path / "other"
    path.write_bytes(bytes(range(256)) * 500_000)
    other.write_bytes(bytes(500_000 * 256))
    store = open_object_store(URL)
    assert store.put_if_absent("a/one", path)
    assert not store.put_if_absent("a/one", other)
    assert sum("uploads" in request or request.startswith("POST") for request in s3.requests) >= 4
    assert store.get("a/one", tmp_path / "got", store.list()["a/one"])
    assert (tmp_path / "got").read_bytes() == path.read_bytes()


def test_a_server_that_knows_no_condition_is_asked_first(s3, file, tmp_path):
    def answer(request):
        return refusal("NotImplemented", 501) if "If-None-Match" in request.headers else None

    s3.answer = answer
    store, other = open_object_store(URL), tmp_path / "other"
    other.write_bytes(b"other bytes")
    assert store.put_if_absent("a/one", file)
    assert not store.put_if_absent("a/one", other)
    assert s3.objects() == {"surefoot/a/one": b"some bytes"}


def test_a_conflict_with_another_trainer_is_no_trouble(s3, file, monkeypatch):
    """S3 answers so while somebody else is just bringing the same; whoever asks again comes first, or second."""
    monkeypatch.setattr(object_store, "SECONDS_OF_CONFLICT", 0.0)
    conflicts = [refusal("ConditionalRequestConflict", 409) for _ in range(3)]
    s3.answer = lambda request: conflicts.pop() if conflicts and request.method == "PUT" else None
    assert open_object_store(URL).put_if_absent("a/one", file)
    assert (conflicts, s3.objects()) == ([], {"surefoot/a/one": b"some bytes"})
    s3.answer = lambda request: refusal("ConditionalRequestConflict", 409)
    assert said(lambda: open_object_store(URL).put_if_absent("a/one", file))[0].startswith("ConditionalRequestConflict")


# --- Who can't be reached, or refuses ------------------------------------------------------------


def said(call):
    with pytest.raises(Unavailable) as caught:
        call()
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value), caught.value.refused


def test_a_bucket_that_is_not_there_is_not_made(s3, file):
    store = open_object_store("s3://nobody/surefoot")
    expected = ("there is no such bucket or directory", True)
    assert said(store.list) == said(lambda: store.put_if_absent("a/one", file)) == expected
    assert [about["Name"] for about in s3.client().list_buckets()["Buckets"]] == [BUCKET]


def test_a_directory_that_is_not_there_is_not_made(tmp_path, file):
    store = open_object_store(f"file://{tmp_path}/unmounted")
    expected = ("there is no such bucket or directory", True)
    assert said(store.list) == said(lambda: store.put_if_absent("a/one", file)) == expected
    assert not (tmp_path / "unmounted").exists()


@pytest.mark.parametrize(
    "code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "RequestTimeTooSkewed"]
)
def test_who_may_not_is_told_why(s3, file, code):
    s3.answer = lambda request: refusal(code, 403)
    store = open_object_store(URL)
    assert said(store.list) == said(lambda: store.put_if_absent("a/one", file)) == (f"{code}: no", True)


def test_without_credentials_nobody_is_asked(s3, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert said(open_object_store(URL).list) == ("Unable to locate credentials", True)
    assert s3.requests == []


def test_nobody_answers(s3, file):
    s3.stop()
    store = open_object_store(URL)
    text = f'Could not connect to the endpoint URL: "http://127.0.0.1:{s3.port}"'
    assert said(store.list) == said(lambda: store.put_if_absent("a/one", file)) == (text, False)


def test_a_server_with_trouble_is_no_refusal(s3):
    s3.answer = lambda request: refusal("InternalError", 500)
    text, refused = said(open_object_store(URL).list)
    assert text.startswith("InternalError")
    assert not refused


def test_a_server_that_hangs_is_waited_for_no_longer_than_the_bound(s3, monkeypatch):
    monkeypatch.setattr(object_store, "SECONDS", 0.2)
    s3.seconds = 5
    start = time.monotonic()
    assert said(open_object_store(URL).list) == ("it doesn't answer within 0 s", False)
    assert time.monotonic() - start < 4
    s3.seconds = 0


# --- URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("s3://", "it names no bucket"),
        ("s3:///prefix", "it names no bucket"),
        ("file://", "a directory is given as file:///DIRECTORY, with its whole path"),
        ("file://there", "a directory is given as file:///DIRECTORY, with its whole path"),
        ("nothing://bucket", "Protocol not known: nothing"),
        ("dir://bucket", "'NoneType' object has no attribute 'startswith'"),
        ("ftp://127.0.0.1:1/prefix", "Connection refused"),
        ("gs://bucket/prefix", "Please install gcsfs to access Google Storage"),
    ],
)
def test_a_bad_url_is_refused(given, expected):
    with pytest.raises(UserError) as caught:
        open_object_store(given)
    assert str(caught.value) == f"SUREFOOT_STORE: {given}: {expected}"


def test_where_s3fs_is_not_installed_the_line_says_what_brings_it(monkeypatch):
    import fsspec

    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    assert "s3" not in fsspec.registry
    for name in [name for name in sys.modules if name.partition(".")[0] == "s3fs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(UserError, match=r"^SUREFOOT_STORE: s3://a/b: it takes packages .* -e '\.\[s3\]'$"):
        open_object_store("s3://a/b")


def test_a_password_in_a_url_is_shown_nowhere(tmp_path):
    with pytest.raises(UserError) as caught:
        open_object_store("nothing://somebody:secret@host/prefix")
    assert str(caught.value).startswith("SUREFOOT_STORE: nothing://host/prefix: ")
    assert said(open_object_store("s3://KEY:sec/ret@bucket/prefix").list) == ("no bucket can have this name", True)
    assert open_object_store("s3://KEY:sec/ret@bucket/prefix").url == "s3://bucket/prefix"
    (tmp_path / "there").mkdir()
    assert open_object_store("memory://somebody:secret@host/prefix/").url == "memory://host/prefix"


@pytest.mark.parametrize("given", ["s3:/bucket/prefix", "s3:bucket", "simplecache::s3://bucket"])
def test_what_is_neither_a_url_nor_a_directory_is_refused(monkeypatch, given):
    monkeypatch.setenv("SUREFOOT_STORE", given)
    for which in (paths.trajectory_store, paths.shared_store):
        with pytest.raises(UserError, match=r"^SUREFOOT_STORE: .* is neither a URL, as s3://BUCKET/PREFIX, nor a dire"):
            which()


def test_a_file_is_no_store(monkeypatch, file):
    monkeypatch.setenv("SUREFOOT_STORE", str(file))
    with pytest.raises(UserError, match=r"^SUREFOOT_STORE: .* is a file, not a directory$"):
        paths.trajectory_store()


@pytest.mark.parametrize("given", ["", "there", "/there", "./a:b", "a/b:c"])
def test_a_directory_is_the_store_itself(monkeypatch, tmp_path, given):
    monkeypatch.setenv("SUREFOOT_STORE", given)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert paths.shared_store() is None
    assert str(paths.trajectory_store()) == (given.removeprefix("./") or str(tmp_path / ".surefoot"))


def test_beside_a_shared_store_is_the_local_one(monkeypatch, tmp_path):
    monkeypatch.setenv("SUREFOOT_STORE", URL)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert paths.shared_store() == URL
    assert paths.trajectory_store() == tmp_path / ".surefoot"


def test_a_checkout_of_ones_own_has_the_same_store(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("SUREFOOT_STORE", URL)
    environment = environment_there()
    assert (environment["SUREFOOT_STORE"], environment["DVC_ROOT"]) == (URL, str(tmp_path))
    monkeypatch.setenv("SUREFOOT_STORE", "there")
    assert environment_there()["SUREFOOT_STORE"] == str((tmp_path.cwd() / "there").resolve())
