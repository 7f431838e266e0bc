"""Which processes train together, and how they find each other: TF_CONFIG, Slurm, ports, and who never comes."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml

from dltoolkit import cluster
from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError
from dltoolkit.training.distribute import launch
from dltoolkit.training.distribute import rendezvous as meeting

TWO = {"worker": ["a.net:1000", "b.net:1000"]}


def tf_config(jobs=TWO, kind="worker", index=0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})}


def test_a_process_is_alone_unless_something_says_otherwise():
    assert cluster.current({}) is None
    assert cluster.current({"TF_CONFIG": ""}) is None
    assert cluster.current({"TF_CONFIG": "{}"}) is None
    assert cluster.current(tf_config({"worker": ["a.net:1000"]})) is None


def test_tf_config_names_the_workers_the_chief_first():
    assert cluster.current(tf_config(index=1)) == Cluster(("a.net:1000", "b.net:1000"), 1)
    jobs = {"worker": ["a:1", "b:1"], "chief": ["c:1"]}
    assert cluster.current(tf_config(jobs, "worker", 1)) == Cluster(("c:1", "a:1", "b:1"), 2)
    assert cluster.current(tf_config(jobs, "chief", 0)).index == 0


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{not json", "is no valid JSON"),
        ("[]", "names no cluster"),
        (tf_config({"worker": "a:1"})["TF_CONFIG"], "no list of addresses"),
        (tf_config({"worker": ["a", "b:1"]})["TF_CONFIG"], "'a', which is no host:port"),
        (tf_config({"worker": ["a:70000", "b:1"]})["TF_CONFIG"], "'a:70000', which is no host:port"),
        (tf_config({"worker": ["a:1", "a:1"]})["TF_CONFIG"], "names a:1 twice"),
        (tf_config({"chief": ["a:1", "b:1"]}, "chief")["TF_CONFIG"], "several chiefs"),
        (tf_config({**TWO, "ps": ["c:1"]})["TF_CONFIG"], "names a 'ps'"),
        (tf_config(index=2)["TF_CONFIG"], "has no worker 2"),
        (tf_config(index=None)["TF_CONFIG"], "does not say which task"),
        (tf_config(kind="chief")["TF_CONFIG"], "does not say which task"),
        (json.dumps({"cluster": TWO}), "does not say which task"),
    ],
)
def test_a_malformed_tf_config_is_said_in_words(written, message):
    with pytest.raises(UserError, match=message) as refused:
        cluster.current({"TF_CONFIG": written})
    assert "host1:12345" in str(refused.value), "it shows what one looks like"


def test_a_malformed_tf_config_is_one_line_and_exit_code_2(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{oops")
    words = [sys.executable, "-m", "dltoolkit", "train", "image-classifier", "--out-dir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: TF_CONFIG is no valid JSON") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_slurm_says_which_task_runs_where():
    slurm = {
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "gpu[09-10],big",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_PROCID": "3",
    }
    addresses = ("gpu09:12345", "gpu09:12346", "gpu10:12345", "gpu10:12346", "big:12345")
    assert cluster.current(slurm) == Cluster(addresses, 3)
    assert cluster.current({**slurm, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert cluster.current({**slurm, "TF_CONFIG": ""}) is None, "an empty TF_CONFIG keeps a task by itself"
    with pytest.raises(UserError, match="Slurm's variables"):
        cluster.current({"SLURM_STEP_NUM_TASKS": "2"})


def written_out(name: str) -> str:
    """A file that docs/scaling.md spells out."""
    text = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    return re.search(rf"<!-- file: {name} -->\n```\w+\n(.*?)```", text, re.S)[1]


def test_the_kubernetes_job_of_the_docs_tells_each_pod_who_it_is():
    service, job = yaml.safe_load_all(written_out("train.yaml"))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    for index in range(job["spec"]["completions"]):
        config = environment["TF_CONFIG"].replace("$(INDEX)", str(index))
        found = cluster.current({"TF_CONFIG": config})
        assert found.index == index
        host = f"{job['metadata']['name']}-{index}.{service['metadata']['name']}"
        assert found.addresses[index].startswith(f"{host}:")
    (script,) = container["args"]
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_the_slurm_script_of_the_docs_is_one():
    script = written_out("train.sbatch")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "\nsrun dltoolkit train image-classifier " in script


def meet_all(clusters) -> dict[int, Exception | None]:
    """Let these meet, each in its thread, and return what each of them raised."""
    came: dict[int, Exception | None] = {}

    def go(place, one):
        try:
            meeting.wait_for_workers(one)
            came[place] = None
        except UserError as error:
            came[place] = error

    threads = [threading.Thread(target=go, args=pair) for pair in enumerate(clusters)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    return came


@pytest.fixture
def addresses() -> tuple[str, ...]:
    return tuple(f"localhost:{port}" for port in launch.free_ports(3))


@pytest.fixture
def impatient(monkeypatch) -> None:
    monkeypatch.setenv(meeting.WAIT_VARIABLE, "2s")


def test_workers_find_each_other_in_any_order(addresses):
    assert meet_all(Cluster(addresses, index) for index in (2, 0, 1)) == {0: None, 1: None, 2: None}
    with socket.create_server(("", int(addresses[0].rpartition(":")[2]))):
        pass  # and the ports are free again


def test_a_worker_that_dies_while_it_waits_may_come_again(addresses):
    chief = threading.Thread(target=meeting.wait_for_workers, args=(Cluster(addresses, 0),))
    chief.start()
    hello = json.dumps({"index": 1, "addresses": addresses}).encode() + b"\n"
    for _ in range(50):
        try:
            with socket.create_connection(("localhost", int(addresses[0].rpartition(":")[2]))) as first:
                first.sendall(hello)
                time.sleep(0.3)
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
    assert meet_all(Cluster(addresses, index) for index in (1, 2)) == {0: None, 1: None}
    chief.join(timeout=10)
    assert not chief.is_alive()


def test_a_worker_that_never_comes_is_named(addresses, impatient):
    came = meet_all(Cluster(addresses, index) for index in (0, 2))
    assert f"Worker 1 ({addresses[1]}) has not come" in str(came[0])
    assert str(came[1]) == str(came[0]), "and those who have come hear of it"


def test_a_chief_that_never_comes_is_named(addresses, impatient):
    came = meet_all([Cluster(addresses, 1)])
    assert f"The chief, {addresses[0]}, has not come" in str(came[0])


def test_a_port_in_use_is_named(addresses):
    port = int(addresses[1].rpartition(":")[2])
    with socket.create_server(("", port)), pytest.raises(UserError, match=f"Port {port} of this machine"):
        meeting.wait_for_workers(Cluster(addresses, 1))


def test_who_has_other_addresses_is_turned_away(addresses, impatient):
    stray = Cluster((addresses[0], addresses[2]), 1)
    came = meet_all([Cluster(addresses, 0), Cluster(addresses, 1), stray])
    assert "The chief knows other addresses than this worker" in str(came[2])
    assert f"Worker 2 ({addresses[2]}) has not come" in str(came[0])
