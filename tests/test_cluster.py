"""Tests of the cluster that TF_CONFIG or Slurm describes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dltoolkit import cluster
from dltoolkit.cluster import Cluster
from dltoolkit.errors import UserError

TWO = {"worker": ["a.net:1000", "b.net:1000"]}


def tf_config(tasks=TWO, kind="worker", index=0) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": tasks, "task": {"type": kind, "index": index}})}


def test_current_is_none_without_a_cluster():
    assert cluster.current({}) is None
    assert cluster.current({"TF_CONFIG": ""}) is None
    assert cluster.current({"TF_CONFIG": "{}"}) is None
    assert cluster.current(tf_config({"worker": ["a.net:1000"]})) is None


def test_current_reads_tf_config_with_the_chief_first():
    assert cluster.current(tf_config(index=1)) == Cluster(("a.net:1000", "b.net:1000"), 1)
    tasks = {"worker": ["a:1", "b:1"], "chief": ["c:1"]}
    assert cluster.current(tf_config(tasks, "worker", 1)) == Cluster(("c:1", "a:1", "b:1"), 2)
    assert cluster.current(tf_config(tasks, "chief", 0)).index == 0


@pytest.mark.parametrize(
    ("tf_config", "message"),
    [
        ("{not json", "is not valid JSON"),
        ("[]", "does not describe a cluster"),
        (tf_config({"worker": "a:1"})["TF_CONFIG"], "does not give a list of addresses"),
        (tf_config({"worker": ["a", "b:1"]})["TF_CONFIG"], "'a', which is not of the form host:port"),
        (tf_config({"worker": ["a:70000", "b:1"]})["TF_CONFIG"], "'a:70000', which is not of the form host:port"),
        (tf_config({"worker": ["a:1", "a:1"]})["TF_CONFIG"], "lists a:1 twice"),
        (tf_config({"chief": ["a:1", "b:1"]}, "chief")["TF_CONFIG"], "more than one chief"),
        (tf_config({**TWO, "ps": ["c:1"]})["TF_CONFIG"], "the task type 'ps'"),
        (tf_config(index=2)["TF_CONFIG"], "does not list a worker 2"),
        (tf_config(index=None)["TF_CONFIG"], "does not say which task"),
        (tf_config(kind="chief")["TF_CONFIG"], "does not say which task"),
        (json.dumps({"cluster": TWO}), "does not say which task"),
    ],
)
def test_current_explains_a_malformed_tf_config(tf_config, message):
    with pytest.raises(UserError, match=message) as refused:
        cluster.current({"TF_CONFIG": tf_config})
    assert "host1:12345" in str(refused.value), "the message shows an example"


def test_train_answers_a_malformed_tf_config_with_one_line_and_exit_code_2(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{oops")
    words = [sys.executable, "-m", "dltoolkit", "train", "image-classifier", "--out-dir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: TF_CONFIG is not valid JSON") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_current_reads_the_variables_of_slurm():
    slurm = {
        "SLURM_STEP_NUM_TASKS": "5",
        "SLURM_STEP_NODELIST": "gpu[09-10],big",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
        "SLURM_PROCID": "3",
    }
    addresses = ("gpu09:12345", "gpu09:12346", "gpu10:12345", "gpu10:12346", "big:12345")
    assert cluster.current(slurm) == Cluster(addresses, 3)
    assert cluster.current({**slurm, "SLURM_STEP_NUM_TASKS": "1"}) is None
    assert cluster.current({**slurm, "TF_CONFIG": ""}) is None, "an empty TF_CONFIG means no cluster"
    with pytest.raises(UserError, match="Slurm's variables"):
        cluster.current({"SLURM_STEP_NUM_TASKS": "2"})


def file_in_docs(name: str) -> str:
    """Return a file that docs/scaling.md contains."""
    text = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")
    return re.search(rf"<!-- file: {name} -->\n```\w+\n(.*?)```", text, re.S)[1]


def test_kubernetes_manifest_in_the_docs_gives_each_pod_its_index():
    service, indexed_job = yaml.safe_load_all(file_in_docs("train.yaml"))
    pod = indexed_job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert pod["subdomain"] == service["metadata"]["name"]
    for index in range(indexed_job["spec"]["completions"]):
        config = environment["TF_CONFIG"].replace("$(INDEX)", str(index))
        pod_cluster = cluster.current({"TF_CONFIG": config})
        assert pod_cluster.index == index
        host = f"{indexed_job['metadata']['name']}-{index}.{service['metadata']['name']}"
        assert pod_cluster.addresses[index].startswith(f"{host}:")
    (script,) = container["args"]
    subprocess.run(["sh", "-n", "-c", script], check=True)


def test_slurm_script_in_the_docs_is_valid():
    script = file_in_docs("train.sbatch")
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "\nsrun dltoolkit train image-classifier " in script
