"""An S3 server on loopback (moto), which a test can slow down, break, or make forbid things."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from threading import Thread

from moto.moto_api._internal import moto_api_backend
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

BUCKET = "team"
URL = f"s3://{BUCKET}/surefoot"
ONLOOKER = "onlooker"
SECRET = "a-secret-that-nobody-may-see"


class _Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


def refusal(code: str, status: int) -> Response:
    """As S3 refuses."""
    return Response(
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>", status, mimetype="text/xml"
    )


class S3Server:
    """`answer` may give a response of its own to a request; `seconds` pass before each answer. Neither goes for what
    the test itself asks here.
    """

    def __init__(self) -> None:
        self.answer: Callable[[Request], Response | None] = lambda request: None
        self.seconds = 0.0
        self.requests: list[str] = []
        moto_api_backend.reset()
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._serve, threaded=True, request_handler=_Quiet)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "NO_PROXY": "127.0.0.1",
        }

    def client(self):
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id=ONLOOKER,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
        )

    def names(self, ending: str = "") -> list[str]:
        """What lies in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        found = [about["Key"] for page in pages for about in page.get("Contents", [])]
        return sorted(name for name in found if name.endswith(ending))

    def objects(self) -> dict[str, bytes]:
        """All that lies in the bucket."""
        client = self.client()
        return {name: client.get_object(Bucket=BUCKET, Key=name)["Body"].read() for name in self.names()}

    def put(self, name: str, data: bytes) -> None:
        self.client().put_object(Bucket=BUCKET, Key=name, Body=data)

    def remove_bucket(self) -> None:
        for name in self.objects():
            self.client().delete_object(Bucket=BUCKET, Key=name)
        self.client().delete_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        """Be gone: nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()

    def _serve(self, environ, start_response):
        request = Request(environ)
        if ONLOOKER in request.headers.get("Authorization", ""):
            return self._moto(environ, start_response)
        self.requests.append(f"{request.method} {request.path}")
        own = self.answer(request)
        if own:
            request.get_data()
        time.sleep(self.seconds)
        return (own or self._moto)(environ, start_response)


@contextmanager
def s3_server():
    """A server with an empty bucket."""
    server = S3Server()
    server.client().create_bucket(Bucket=BUCKET)
    server.requests.clear()
    try:
        yield server
    finally:
        server.stop()
