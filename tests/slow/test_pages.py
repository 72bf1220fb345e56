"""MLflow's pages as a person sees them, in a real browser: the comparison that `surefoot ui` opens, a run's page, its
model's.
"""

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from shutil import which

import pytest

from surefoot.base.locks import Locks
from surefoot.tracking import run_model
from surefoot.tracking.metric_points import Point
from surefoot.tracking.tracker import Tracker
from tests.helpers import PROJECT, description

pytestmark = pytest.mark.slow

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--disable-background-networking",
    "--window-size=1600,3600",
)
SECONDS = 90
LRS, SIZES = (0.005, 0.02, 0.08, 0.3), (32, 64, 128)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = which("chromium") or which("google-chrome"), which("chromedriver")
    if not (chromium and driver):
        pytest.skip(
            "no browser: chromium and chromedriver aren't installed; on Debian: apt-get install chromium"
            " chromium-driver"
        )
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium isn't installed: make setup-dev")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@contextmanager
def ui(here):
    """The address that `surefoot ui` prints, served."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "surefoot", "ui", "--no-browser", "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    with (
        (here / "ui.log").open("w") as log,
        subprocess.Popen(
            command, cwd=here.path, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as server,
    ):
        try:
            said = server.stdout.readline()
            yield re.search(r"http://127\.0\.0\.1:\S+", said)[0]
        finally:
            server.terminate()
            server.communicate()


def opened(browser, address, seen):
    """Open an address, wait until `seen` of the page's text is true; returns the text."""
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.support.ui import WebDriverWait

    def text(driver):
        return driver.execute_script("return document.body.innerText")

    def connected(driver):  # the server takes seconds to start
        driver.get(address)
        return True

    WebDriverWait(browser, SECONDS, 0.5, [WebDriverException]).until(connected)
    try:
        WebDriverWait(browser, SECONDS, 0.5).until(lambda driver: seen(text(driver)))
    except WebDriverException:
        pytest.fail(f"{address} shows: {text(browser)}")
    return text(browser)


def charts(browser):
    """What is drawn: by the title of its card, for each trace of a chart the number of points."""
    found = browser.execute_script("""
        return [...document.querySelectorAll('.js-plotly-plot')].map(plot => {
            let card = plot;
            while (card.parentElement && !card.querySelector('[role=heading], h4, h5')) card = card.parentElement;
            return [card.innerText.split('\\n')[0], (plot.data || []).map(trace => (trace.x || trace.y || []).length)];
        })""")
    return dict(found)


def sweep(here, tag):
    """12 runs in MLflow, lr x batch size, as 12 trainings leave them."""
    locks = Locks(here / "lock")
    for lr in LRS:
        for size in SIZES:
            described = description(
                name=f"mlp lr={lr:g} batch={size}",
                params={"train.lr": lr, "batch.size": size, "train.epochs": 5, "train.save_every": size},
                tags={"surefoot.sweep": tag},
            )
            tracker = Tracker(f"{lr}-{size}", described, locks)
            tracker.open("RUNNING")
            for epoch in range(1, 6):
                values = {
                    "train/loss": lr + 1 / epoch,
                    "validation/loss": lr + 2 / epoch,
                    "validation/accuracy": 0.9 - lr / epoch,
                    "lr": lr,
                }
                tracker.add_points(Point(name, value, epoch, 1_700_000_000 + epoch) for name, value in values.items())
            run_model.log_results(tracker, {"test/accuracy": 0.9 - abs(lr - 0.02) - size / 1e4, "test/loss": lr})
            tracker.end("FINISHED")
            assert tracker.run_id


@pytest.fixture
def tiny(tracked):
    """One real training, evaluated."""
    tracked.csv()
    for stage in ("prepare", "batch", "train", "evaluate"):
        done = tracked.stage(stage)
        assert done.code == 0, done
    return tracked


def test_a_sweep_is_compared_without_a_click(browser, tracked):
    sweep(tracked, "lr x batch's size")
    other = tracked.client().create_run(tracked.runs()[0].info.experiment_id, start_time=1, run_name="another run")
    assert other.info.run_id
    with ui(tracked) as address:
        text = opened(browser, address, lambda text: "12 matching runs" in text)
        assert "another run" not in text
        from selenium.webdriver.support.ui import WebDriverWait

        # A line chart has a line of 5 epochs for each run; the others a point or a bar.
        WebDriverWait(browser, SECONDS, 0.5).until(lambda driver: len(charts(driver)) == 8)
        drawn = charts(browser)
        scattered = (
            "batch.size vs. test/accuracy",
            "train.lr vs. test/accuracy",
            "batch.size vs. train.lr vs. test/accuracy",
            "test/accuracy",
        )
        assert all(12 in drawn[title] for title in scattered), drawn
        assert all(
            drawn[title].count(5) >= 12 for title in ("train/loss", "validation/loss", "validation/accuracy", "lr")
        ), drawn
        text = browser.execute_script("return document.body.innerText")
        assert "Parallel Coordinates" in text
        assert "Show differences only" in text
        browser.save_screenshot(str(tracked / "sweep.png"))


def test_the_list_shows_the_columns_that_matter_and_a_sweep_below_its_parent(browser, tracked):
    sweep(tracked, "lr x batch")
    with ui(tracked) as address:
        text = opened(browser, address.replace("=CHART", "=TABLE"), lambda text: "12 matching runs" in text)
        assert all(name in text for name in ("test/accuracy", "batch.size", "train.lr")), text
        assert "train.save_every" not in text, "it changes no result"
        browser.get("about:blank")  # another address of the same page wouldn't be loaded anew
        every = f"{address.partition('?')[0]}?compareRunsMode=TABLE&workflowType=machine_learning"
        text = opened(browser, every, lambda text: "13 matching runs" in text)
        names = [line for line in text.splitlines() if line.startswith(("lr x batch", "mlp lr="))]
        assert names == ["lr x batch"], "the others are folded below it"


def test_one_run_opens_on_its_page(browser, tiny):
    (run,) = tiny.runs()
    accuracy = run.data.metrics["test/accuracy"]
    with ui(tiny) as address:
        assert f"/runs/{run.info.run_id}" in address
        text = opened(browser, address, lambda text: "surefoot verify" in text and "Logged models" in text)
        assert f"surefoot verify {run.info.run_id}" in text
        assert "networks.mlp:mlp on raw.csv, to predict kind (classification, 3 classes;" in text
        assert f"accuracy {accuracy:.4g}" in text
        assert "written by surefoot" not in text, "the mark in the description is no text"
        model = run.data.tags["surefoot.model_id"]
        page = f"{address.partition('/runs/')[0]}/models/{model}?workflowType=machine_learning"
        text = opened(browser, page, lambda text: "test/accuracy" in text)
        assert "validation/loss" in text
        assert "raw.csv" in text
        browser.save_screenshot(str(tiny / "model.png"))
        text = opened(browser, address.replace("?", "/model-metrics?"), lambda text: "validation" in text)
        assert "interval" not in text
