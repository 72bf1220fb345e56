"""A model behind `mlflow models serve`, asked over a real connection; and what the network says by our own code."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import numpy as np


class Connection:
    """Kept alive from one request to the next."""

    def __init__(self, port):
        self._http = HTTPConnection("127.0.0.1", port, timeout=60)

    def close(self):
        self._http.close()

    def post(self, body, kind="application/json"):
        """The status and what came with it; `body` is sent as JSON, or as it is where it is text or bytes."""
        self._http.request(
            "POST", "/invocations", body if isinstance(body, str | bytes) else json.dumps(body), {"Content-Type": kind}
        )
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read())

    def predictions(self, body, kind="application/json"):
        status, answer = self.post(body, kind)
        assert status == 200, answer
        return answer["predictions"]

    def answers(self):
        """Whether there is a server yet."""
        try:
            self._http.request("GET", "/ping")
            answer = self._http.getresponse()
            answer.read()
            return answer.status == 200
        except ConnectionRefusedError:
            self._http.close()
            return False


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextmanager
def mlflow_serves(uri, cwd, log, **environment):
    """`mlflow models serve`, in a directory, until the block ends."""
    port = free_port()
    # It looks for uvicorn on the PATH, as it is where .venv is activated.
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "models",
        "serve",
        "-m",
        uri,
        "--env-manager",
        "local",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    with log.open("w") as out:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "PATH": path, **environment},
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        with closing(Connection(port)) as connection:
            while not connection.answers():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield connection
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def network_says(store, network, weights):
    """What evaluate computes of the test rows: the classes' probabilities (rows, classes), float64; in regression the
    numbers (rows,).
    """
    from surefoot.training import network as networks
    from surefoot.training.minibatches import Stored

    model = networks.build(network.factory, network.arguments, store.input_shape, store.index.outputs, 0, store.schema)
    networks.load_weights(model, weights)
    outputs = networks.outputs_of(model, Stored(store.test.inputs, store.index.scale)).double().numpy()
    if store.task == "regression":
        return outputs[:, 0] * store.target_scale["divide"] + store.target_scale["subtract"]
    if store.task == "binary":
        positive = 1 / (1 + np.exp(-outputs[:, 0]))
        return np.stack([1 - positive, positive], 1)
    powers = np.exp(outputs - outputs.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def check(predictions, store, said):
    """That answers of a server are what the network says, to 1e-6."""
    assert len(predictions) == len(said)
    if store.task == "regression":
        assert np.allclose([row["prediction"] for row in predictions], said, rtol=1e-6, atol=1e-6)
        return
    given = np.array([[row[f"probability_{label}"] for label in store.classes] for row in predictions])
    assert np.abs(given - said).max() <= 1e-6
    assert [row["prediction"] for row in predictions] == [store.classes[number] for number in said.argmax(1)]
