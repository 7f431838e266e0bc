"""Tests of the cluster that TF_CONFIG or Slurm describes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import run_command

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


def text_of(tasks=TWO, task_type: object = "worker", index: object = 0) -> str:
    return tf_config(tasks, task_type, index)["TF_CONFIG"]


@pytest.mark.parametrize(
    ("tf_config", "message"),
    [
        ("{not json", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON \\(nested too deeply"),
        ("[]", "does not describe a cluster"),
        ("3", "does not describe a cluster"),
        ('"x"', "does not describe a cluster"),
        ('{"cluster": null}', "does not describe a cluster"),
        ('{"cluster": {}, "cluster": {}}', "is not valid JSON \\(the key 'cluster' twice\\)"),
        (text_of({"worker": "a:1"}), "does not give a list of addresses"),
        (text_of({"worker": None}), "does not give a list of addresses"),
        (text_of({"worker": {"0": "a:1"}}), "does not give a list of addresses"),
        (text_of({"worker": [1, 2]}), "does not give a list of addresses"),
        (text_of({"worker": ["a:1"] * 5000}), "lists 5000 workers, but at most"),
        (text_of({"worker": ["a", "b:1"]}), "'a', which is not of the form host:port"),
        (text_of({"worker": ["a:0", "b:1"]}), "'a:0', which is not of the form host:port"),
        (text_of({"worker": ["a:70000", "b:1"]}), "'a:70000', which is not of the form host:port"),
        (text_of({"worker": [f"a:{'1' * 5000}", "b:1"]}), "…', which is not of the form host:port"),
        (text_of({"worker": ["a:\u0661", "b:1"]}), "which is not of the form host:port"),
        (text_of({"worker": ["a\x1b[31m:1", "b:1"]}), "which is not of the form host:port"),
        (text_of({"worker": ["[::::]:1", "b:1"]}), "which is not of the form host:port"),
        (text_of({"worker": ["0.0.0.0:1", "b:1"]}), "does not say which machine is meant"),
        (text_of({"worker": ["[::]:1", "b:1"]}), "does not say which machine is meant"),
        (text_of({"worker": ["a:1", "a:1"]}), "lists a:1 twice"),
        (text_of({"worker": ["a.net:1", "A.net:01"]}), "lists A.net:01 twice"),
        (text_of({"worker": ["[::1]:1", "[0:0::1]:1"]}), "lists \\[0:0::1\\]:1 twice"),
        (text_of({"chief": ["a:1"], "worker": ["a:1"]}), "lists a:1 twice"),
        (text_of({"chief": ["a:1", "b:1"]}, "chief"), "more than one chief"),
        (text_of({**TWO, "ps": ["c:1"]}), "the task type 'ps'"),
        (text_of(index=2), "does not list a worker 2"),
        (text_of(index=-1), "does not list a worker -1"),
        (text_of(index=None), "does not say which task"),
        (text_of(index=True), "does not say which task"),
        (text_of(index="0"), "does not say which task"),
        (text_of(index=float("nan")), "is not valid JSON \\(NaN, which is no number of JSON\\)"),
        (text_of().replace('"index": 0', f'"index": {"9" * 5000}'), "a number of 5,000 digits"),
        (text_of(task_type="chief"), "does not say which task"),
        (text_of(task_type=["worker"]), "does not say which task"),
        (text_of(task_type={}), "does not say which task"),
        (json.dumps({"cluster": TWO}), "does not say which task"),
        (json.dumps({"cluster": TWO, "task": None}), "does not say which task"),
    ],
)
def test_current_explains_a_malformed_tf_config(tf_config, message):
    with pytest.raises(UserError, match=message) as refused:
        cluster.current({"TF_CONFIG": tf_config})
    assert "host1:12345" in str(refused.value), "the message shows an example"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TF_CONFIG", "{oops", "TF_CONFIG is not valid JSON"),
        ("SLURM_STEP_NUM_TASKS", "abc", "Slurm's variables do not describe the tasks of this step"),
    ],
)
def test_train_answers_a_malformed_variable_with_one_line_and_exit_code_2(tmp_path, monkeypatch, name, value, message):
    monkeypatch.setenv(name, value)
    words = [sys.executable, "-m", "dltoolkit", "train", "image-classifier", "--out-dir", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {message}") and done.stderr.count("\n") == 1
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
    racks = {**slurm, "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "r[1-2]n[07-08]"}
    racks["SLURM_STEP_TASKS_PER_NODE"] = "1(x4)"
    assert [address[:5] for address in cluster.current(racks).addresses] == ["r1n07", "r1n08", "r2n07", "r2n08"]
    assert cluster.current({"SLURM_STEP_NUM_TASKS": ""}) is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"SLURM_STEP_NUM_TASKS": "abc"}, "SLURM_STEP_NUM_TASKS='abc'"),
        ({"SLURM_STEP_NUM_TASKS": "-2"}, "SLURM_STEP_NUM_TASKS='-2'"),
        ({"SLURM_STEP_NUM_TASKS": "0"}, "SLURM_STEP_NUM_TASKS='0'"),
        ({"SLURM_STEP_NUM_TASKS": "2.0"}, "SLURM_STEP_NUM_TASKS='2.0'"),
        ({"SLURM_STEP_NUM_TASKS": "9" * 5000}, "SLURM_STEP_NUM_TASKS='999"),
        ({"SLURM_STEP_NUM_TASKS": "3"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_TASKS_PER_NODE": None}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x99999999999)"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_TASKS_PER_NODE": "999999999,1"}, "SLURM_STEP_TASKS_PER_NODE"),
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a[0-999999999]"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a[2-1]"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a[0-999999999][2-1]"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": f"a{'[1]' * 5000}"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a[[,b]]"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a\n,b"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_STEP_NODELIST": "a,a"}, "SLURM_STEP_NODELIST"),
        ({"SLURM_PROCID": None}, "SLURM_PROCID"),
        ({"SLURM_PROCID": "2"}, "SLURM_PROCID"),
        ({"SLURM_PROCID": "-1"}, "SLURM_PROCID"),
    ],
)
def test_current_explains_malformed_variables_of_slurm(changes, named):
    slurm = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "a,b",
        "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_PROCID": "0",
    }
    assert cluster.current(slurm).index == 0
    changed = {name: value for name, value in (slurm | changes).items() if value is not None}
    with pytest.raises(UserError, match="Slurm's variables do not describe the tasks") as refused:
        cluster.current(changed)
    assert named in str(refused.value)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("value", ["yes", "2", "true"])
def test_trusts_network_takes_only_0_and_1(value):
    assert cluster.trusts_network({"DLTOOLKIT_TRUST_NETWORK": "1"})
    assert not cluster.trusts_network({"DLTOOLKIT_TRUST_NETWORK": "0"})
    with pytest.raises(UserError, match="must be 1 or 0"):
        cluster.trusts_network({"DLTOOLKIT_TRUST_NETWORK": value})


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


def test_a_leftover_description_does_not_stop_what_trains_nothing(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("TF_CONFIG", "garbage")
    assert cluster.is_chief()
    code, _, message = run_command(capfd, "show", "latest", "--out-dir", str(tmp_path))
    assert code == 2
    assert "There are no runs" in message
    options = ("--epochs", "1", "--limit", "30", "--out-dir", str(tmp_path))
    code, _, message = run_command(capfd, "train", "image-classifier", *options)
    assert code == 2
    assert "TF_CONFIG is not valid JSON" in message
    assert list(tmp_path.iterdir()) == []
