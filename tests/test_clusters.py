"""The files of tools/cluster against the schemas that Kubernetes, Kubeflow Trainer and SkyPilot publish."""

import copy
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from dist_train import config

pytestmark = pytest.mark.cluster
VERSION = "1.33"  # of Kubernetes
SKY = "import sys, sky; task = sky.Task.from_yaml(sys.argv[1]); print(task.num_nodes, task.run, sep='\\n')"


@pytest.fixture
def objects(root: Path) -> dict[str, dict[str, Any]]:
    """The objects of kubernetes.yaml by kind."""
    text = (root / "tools/cluster/kubernetes.yaml").read_text()
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def _core(found: dict[str, Any]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    validator.validate(found, VERSION, strict=True)


def _pod(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    (job,) = objects["ClusterTrainingRuntime"]["spec"]["template"]["spec"]["replicatedJobs"]
    template = job["template"]["spec"]["template"]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": template["spec"]}


def _kept(found: dict[str, Any]) -> bool:
    """Kubeflow's model of this kind has a place for every key and value."""
    models = pytest.importorskip("kubeflow_trainer_api.models")
    model = getattr(models, f"TrainerV1alpha1{found['kind']}")
    return bool(model.from_dict(copy.deepcopy(found)).to_dict() == found)


def test_kubernetes_takes_the_secret_the_claim_and_the_pods(objects: dict[str, dict[str, Any]]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for found in (objects["Secret"], objects["PersistentVolumeClaim"], _pod(objects)):
        _core(found)
    wrong = _pod(objects)
    wrong["spec"]["terminationGracePeriod"] = 60
    with pytest.raises(validator.ValidationError):
        _core(wrong)


def test_kubeflow_trainer_takes_the_runtime_and_the_job(objects: dict[str, dict[str, Any]]) -> None:
    assert _kept(objects["ClusterTrainingRuntime"])
    assert _kept(objects["TrainJob"])
    wrong = copy.deepcopy(objects["TrainJob"])
    wrong["spec"]["trainer"]["nodes"] = 2
    assert not _kept(wrong)


def test_what_the_job_names_is_there(objects: dict[str, dict[str, Any]], root: Path) -> None:
    runtime, job = objects["ClusterTrainingRuntime"], objects["TrainJob"]["spec"]
    assert job["runtimeRef"]["name"] == runtime["metadata"]["name"]
    pod = _pod(objects)["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "node"  # Kubeflow Trainer gives the job's settings to the container of this name
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()
    assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == objects["PersistentVolumeClaim"]["metadata"]["name"]
    assert container["envFrom"][0]["secretRef"]["name"] == objects["Secret"]["metadata"]["name"]
    assert f"-t {container['image']} ." in (root / "tools/cluster/Dockerfile").read_text()
    recipe, *overrides = job["trainer"]["args"]
    assert config.load(root / recipe, overrides).run.dir in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_image_copies_what_is_there_and_starts_launch_sh(root: Path) -> None:
    text = (root / "tools/cluster/Dockerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]]
    allowed = (root / "tools/cluster/Dockerfile.dockerignore").read_text().splitlines()
    assert sources and all((root / name).exists() and f"!{name}" in allowed for name in sources)
    assert './launch.sh"]' in text


def test_skypilot_takes_the_task(root: Path, tmp_path: Path) -> None:
    python = os.environ.get("SKY_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("SkyPilot is not installed: SKY_PYTHON names no Python that has it")
    file = root / "tools/cluster/skypilot.yaml"

    def load(path: Path) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
        return subprocess.run([python, "-c", SKY, str(path)], env=environment, capture_output=True, text=True, cwd=root)

    done = load(file)
    assert done.returncode == 0, done.stderr
    nodes, start, *_ = done.stdout.splitlines()
    assert int(nodes) == 2
    task = yaml.safe_load(file.read_text())
    words = [re.sub(r"\$(\w+)", lambda name: task["envs"][name[1]], word) for word in shlex.split(start)]
    assert words[0] == "./launch.sh"
    assert config.load(root / words[1], words[2:])
    (tmp_path / "wrong.yaml").write_text(file.read_text().replace("num_nodes:", "nodes:"))
    assert load(tmp_path / "wrong.yaml").returncode != 0
