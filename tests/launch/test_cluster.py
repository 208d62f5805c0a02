"""The cluster templates, as far as they go without a cluster."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import time

import pytest
import yaml

_ROOT = pathlib.Path(__file__).parent.parent.parent
_FOLDER = _ROOT / "launch" / "cluster"
_SCRIPTS = sorted(_FOLDER.glob("*.sh"))

# A stand-in for Python, `srun` and others: it notes its name, its arguments
# and some of its environment, then does what STAND_IN says.
_STAND_IN = """#!/bin/bash
{
    echo "call $(basename "$0")"
    for argument in "$@"; do echo "argument $argument"; done
    for name in TF_CONFIG CUDA_VISIBLE_DEVICES KERASTUNER_TUNER_ID \
        KERASTUNER_ORACLE_IP KERASTUNER_ORACLE_PORT; do
        [ -z "${!name+x}" ] || echo "variable $name=${!name//$'\\n'/ }"
    done
    echo end
} > "$STAND_IN_CALLS/$BASHPID"
eval "$STAND_IN"
"""


@pytest.fixture
def cluster(tmp_path):
    made = _Cluster(tmp_path)
    yield made
    made.clean_up()


class _Cluster:
    """Runs a template with stand-ins for all that it calls."""

    def __init__(self, folder):
        self._processes = []
        self._calls = folder / "calls"
        self._calls.mkdir()
        binaries = folder / "bin"
        binaries.mkdir()
        for name in "python", "srun", "scontrol", "nvidia-smi":
            path = binaries / name
            path.write_text(_STAND_IN)
            path.chmod(0o755)
        self._environment = {
            "PATH": f"{binaries}:{os.environ['PATH']}",
            "PYTHON": "python",
            "STAND_IN_CALLS": str(self._calls),
            "RESTART_DELAY": "0",
        }

    def start(self, command, behaviour="exit 0", **variables):
        process = subprocess.Popen(
            command,
            env={**self._environment, "STAND_IN": behaviour, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def clean_up(self):
        """Ends what a template has left, also where a test failed."""
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def run(self, command, behaviour="exit 0", **variables):
        process = self.start(command, behaviour, **variables)
        stdout, stderr = process.communicate(timeout=60)
        return process.returncode, stdout, stderr

    def calls(self):
        """Gives name, arguments and variables of each call, in order."""
        calls = []
        for path in sorted(
            self._calls.iterdir(), key=lambda path: path.stat().st_mtime_ns
        ):
            lines = [
                line.split(" ", 1) for line in path.read_text().split("\n")
            ]
            if ["end"] not in lines:
                continue
            values = {"call": [], "argument": [], "variable": []}
            for line in lines:
                if len(line) == 2:
                    values[line[0]].append(line[1])
            variables = dict(v.split("=", 1) for v in values["variable"])
            calls.append((values["call"][0], values["argument"], variables))
        return calls

    def wait_for_calls(self, count):
        deadline = time.monotonic() + 60.0
        while len(self.calls()) < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.parametrize("path", _SCRIPTS, ids=lambda path: path.name)
def test_shell_syntax(path):
    done = subprocess.run(
        ["bash", "-n", path], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text().startswith("#!/bin/bash\n# ")
    assert os.access(path, os.X_OK)


def test_all_templates_are_here():
    names = {path.name for path in _FOLDER.iterdir()}
    assert names == {"gpus.sh", "kubernetes.yaml", "slurm.sh", "tune.sh"}


def test_slurm_gives_its_flags_to_every_worker(cluster):
    code, _, _ = cluster.run(
        [_FOLDER / "slurm.sh", "--method=clip(1.0) + mgda", "--run_dir=a b"],
        SLURM_CPUS_PER_TASK="8",
        SLURM_JOB_ID="17",
    )
    assert code == 0
    ((name, arguments, _),) = cluster.calls()
    assert name == "srun"
    assert "--cpus-per-task=8" in arguments
    start = arguments.index("python")
    assert all(flag.startswith("--") for flag in arguments[:start])
    assert arguments[start + 1 :] == [
        "-m",
        "launch.train",
        "--strategy=multi_worker",
        "--method=clip(1.0) + mgda",
        "--run_dir=a b",
    ]


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [
        (0, 0, False),
        (1, 0, False),
        (2, 0, False),
        (75, 0, True),
        (75, 99, True),
        (137, 9, True),
        (137, 10, False),
    ],
)
def test_slurm_requeues_what_was_cut_off(cluster, code, restarts, requeued):
    returned, _, _ = cluster.run(
        [_FOLDER / "slurm.sh"],
        f"[ $(basename $0) = scontrol ] || exit {code}",
        SLURM_CPUS_PER_TASK="8",
        SLURM_RESTART_COUNT=str(restarts),
        SLURM_JOB_ID="17",
    )
    others = [call[:2] for call in cluster.calls() if call[0] != "srun"]
    assert others == ([("scontrol", ["requeue", "17"])] if requeued else [])
    assert returned == (0 if requeued else code)


def test_slurm_directives_come_before_the_first_command():
    lines = (_FOLDER / "slurm.sh").read_text().splitlines()
    directives = [
        index for index, line in enumerate(lines) if line.startswith("#SBATCH ")
    ]
    commands = [
        index for index, line in enumerate(lines) if line and line[0] != "#"
    ]
    assert len(directives) > 5
    assert max(directives) < min(commands)
    assert "#SBATCH --signal=TERM@120" in lines
    assert "#SBATCH --ntasks-per-node=1" in lines


def _manifests():
    text = (_FOLDER / "kubernetes.yaml").read_text()
    service, job = yaml.safe_load_all(text)
    return service, job


def _check(value, schema, where):
    """Compares a manifest with names and types of the Kubernetes API."""
    if isinstance(schema, dict):
        assert isinstance(value, dict), where
        required = {k.rstrip("?") for k in schema if not k.endswith("?")}
        known = {k.rstrip("?"): v for k, v in schema.items()}
        assert required <= value.keys() <= known.keys(), where
        for key, entry in value.items():
            _check(entry, known[key], f"{where}.{key}")
    elif isinstance(schema, list):
        assert isinstance(value, list) and value, where
        for index, entry in enumerate(value):
            _check(entry, schema[0], f"{where}[{index}]")
    elif isinstance(schema, set):
        assert value in schema, where
    else:
        assert type(value) is schema, where


_SERVICE = {
    "apiVersion": {"v1"},
    "kind": {"Service"},
    "metadata": {"name": str},
    "spec": {
        "clusterIP": {"None"},
        "publishNotReadyAddresses": {True},
        "selector": {"batch.kubernetes.io/job-name": str},
        "ports": [{"name": str, "port": int}],
    },
}
_JOB = {
    "apiVersion": {"batch/v1"},
    "kind": {"Job"},
    "metadata": {"name": str},
    "spec": {
        "completionMode": {"Indexed"},
        "completions": int,
        "parallelism": int,
        "backoffLimit": int,
        "podFailurePolicy": {
            "rules": [
                {
                    "action": {"FailJob", "Ignore", "Count"},
                    "onExitCodes?": {
                        "containerName": str,
                        "operator": {"In", "NotIn"},
                        "values": [int],
                    },
                    "onPodConditions?": [{"type": str}],
                }
            ]
        },
        "template": {
            "spec": {
                "subdomain": str,
                # What a podFailurePolicy asks for.
                "restartPolicy": {"Never"},
                "terminationGracePeriodSeconds": int,
                "containers": [
                    {
                        "name": str,
                        "image": str,
                        "env": [{"name": str, "value": str}],
                        "command": [str],
                        "args": [str],
                        "ports": [{"containerPort": int}],
                        "resources": {"limits": {"nvidia.com/gpu": int}},
                        "volumeMounts": [{"name": str, "mountPath": str}],
                    }
                ],
                "volumes": [
                    {
                        "name": str,
                        "persistentVolumeClaim?": {"claimName": str},
                        "emptyDir?": {"medium": {"Memory"}},
                    }
                ],
            }
        },
    },
}


def test_kubernetes_manifests_follow_the_schema():
    service, job = _manifests()
    _check(service, _SERVICE, "service")
    _check(job, _JOB, "job")


def test_kubernetes_names_and_numbers_agree():
    service, job = _manifests()
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name = job["metadata"]["name"]
    assert service["spec"]["selector"]["batch.kubernetes.io/job-name"] == name
    assert pod["subdomain"] == service["metadata"]["name"]
    count = job["spec"]["completions"]
    assert job["spec"]["parallelism"] == count
    assert container["env"] == [{"name": "NUM_WORKERS", "value": str(count)}]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    actions = {}
    for rule in job["spec"]["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"containerName": container["name"]})
        assert codes["containerName"] == container["name"]
        actions.update(dict.fromkeys(codes.get("values", []), rule["action"]))
    assert actions == {2: "FailJob", 75: "Ignore"}


@pytest.mark.parametrize(("num_workers", "index"), [(1, 0), (2, 1), (12, 10)])
def test_kubernetes_workers_know_each_other(cluster, num_workers, index):
    service, job = _manifests()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    code, _, stderr = cluster.run(
        [*container["command"], *container["args"]],
        NUM_WORKERS=str(num_workers),
        JOB_COMPLETION_INDEX=str(index),
    )
    assert code == 0, stderr
    ((name, arguments, variables),) = cluster.calls()
    # An Indexed Job's pods are JOB-INDEX, below the service's name.
    port = service["spec"]["ports"][0]["port"]
    assert json.loads(variables["TF_CONFIG"]) == {
        "cluster": {
            "worker": [
                f"graddrop-{i}.graddrop:{port}" for i in range(num_workers)
            ]
        },
        "task": {"type": "worker", "index": index},
    }
    assert name == "python"
    assert arguments == [
        "-m",
        "launch.train",
        "--strategy=multi_worker",
        *container["args"],
    ]


def test_kubernetes_leaves_the_shell_its_dollars():
    _, job = _manifests()
    (container,) = job["spec"]["template"]["spec"]["containers"]
    # `$(NAME)` would be replaced by Kubernetes.
    assert not any("$(" in text for text in container["command"])


@pytest.mark.parametrize("code", [0, 1, 2])
def test_gpus_returns_what_a_run_returns(cluster, code):
    command = [_FOLDER / "gpus.sh", "--method=clip(1.0) + mgda"]
    assert cluster.run(command, f"exit {code}")[0] == code
    assert [call[:2] for call in cluster.calls()] == [
        (
            "python",
            [
                "-m",
                "launch.train",
                "--strategy=mirrored",
                "--method=clip(1.0) + mgda",
            ],
        )
    ]


@pytest.mark.parametrize(
    ("ending", "code"), [("exit 75", 75), ("kill -KILL $BASHPID", 137)]
)
def test_gpus_starts_a_broken_run_again(cluster, ending, code):
    once = f"[ $(ls $STAND_IN_CALLS | wc -l) -gt 1 ] || {ending}"
    returned, _, stderr = cluster.run([_FOLDER / "gpus.sh"], once)
    assert returned == 0
    assert len(cluster.calls()) == 2
    assert f"The run ended with {code}; starting it again.\n" in stderr


def test_gpus_gives_up_in_the_end(cluster):
    command = [_FOLDER / "gpus.sh"]
    assert cluster.run(command, "exit 75", MAX_RESTARTS="2")[0] == 75
    assert len(cluster.calls()) == 3


def test_gpus_lets_a_run_save_and_stops(cluster, tmp_path):
    saves = (
        f"trap 'sleep 0.2; touch {tmp_path}/saved; exit 75' TERM;"
        "echo ready; while :; do sleep 0.05; done"
    )
    process = cluster.start([_FOLDER / "gpus.sh"], saves)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75
    assert (tmp_path / "saved").exists()
    assert len(cluster.calls()) == 1


def test_tune_starts_a_chief_and_a_worker_for_each_gpu(cluster):
    behaviour = (
        "if [ $(basename $0) = nvidia-smi ]; then echo GPU 0; echo GPU 1; fi"
    )
    command = [_FOLDER / "tune.sh", "--method=clip(1.0) + mgda"]
    code, _, stderr = cluster.run(command, behaviour)
    assert (code, stderr) == (0, "")
    started = {}
    for name, arguments, variables in cluster.calls():
        if name == "python":
            assert arguments == [
                "-m",
                "launch.tune",
                "--method=clip(1.0) + mgda",
            ]
            assert variables["KERASTUNER_ORACLE_IP"] == "127.0.0.1"
            assert variables["KERASTUNER_ORACLE_PORT"] == "8011"
            started[variables["KERASTUNER_TUNER_ID"]] = variables[
                "CUDA_VISIBLE_DEVICES"
            ]
    assert started == {"chief": "", "worker0": "0", "worker1": "1"}


def test_tune_has_a_worker_without_gpus_too(cluster):
    code, _, _ = cluster.run([_FOLDER / "tune.sh"], PORT="9000")
    names = [
        variables["KERASTUNER_TUNER_ID"]
        for name, _, variables in cluster.calls()
        if name == "python"
    ]
    assert code == 0
    assert sorted(names) == ["chief", "worker0"]


@pytest.mark.parametrize(
    ("script", "variables"),
    [
        ("gpus.sh", ["PYTHON", "MAX_RESTARTS"]),
        ("tune.sh", ["PYTHON", "NUM_WORKERS", "PORT"]),
    ],
)
def test_the_help_names_the_variables_of_a_script(cluster, script, variables):
    code, stdout, _ = cluster.run([_FOLDER / script, "--help"])
    assert code == 0 and "#" not in stdout
    for name in variables:
        assert name in stdout
    ((_, arguments, _),) = cluster.calls()
    assert arguments[-1] == "--help"


def test_slurm_needs_srun(tmp_path):
    done = subprocess.run(
        ["/bin/bash", _FOLDER / "slurm.sh"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no srun here")
    assert done.stderr.count("\n") == 1


def test_tune_prints_the_error_of_all_once(cluster):
    behaviour = "echo 'error: no data' >&2; echo note >&2; sleep 1; exit 2"
    code, _, stderr = cluster.run(
        [_FOLDER / "tune.sh"], behaviour, NUM_WORKERS="2"
    )
    assert code == 2
    assert sorted(stderr.splitlines()) == ["error: no data", *["note"] * 3]


def test_tune_ends_all_when_one_fails(cluster):
    behaviour = (
        "[ $KERASTUNER_TUNER_ID != worker1 ] || exit 3;"
        "while :; do sleep 0.05; done"
    )
    code, _, _ = cluster.run([_FOLDER / "tune.sh"], behaviour, NUM_WORKERS="2")
    assert code == 3


def test_tune_ends_with_its_processes(cluster):
    process = cluster.start(
        [_FOLDER / "tune.sh"],
        "trap 'exit 75' TERM; while :; do sleep 0.05; done",
        NUM_WORKERS="2",
    )
    cluster.wait_for_calls(3)
    process.send_signal(signal.SIGTERM)
    # Ends once the last of them has closed the pipes.
    process.communicate(timeout=60)
    assert process.returncode == 75
