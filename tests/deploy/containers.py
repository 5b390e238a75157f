"""Runs a container of a Kubernetes manifest as far as is possible on one machine, without an engine or an image.

The container's command becomes PID 1 in its own namespaces, with the manifest's user, capabilities, read-only root,
environment, volumes and probes. The contents of the image (Python, the dependencies and this code) are mounted from
this machine, whose network is shared.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from tests.support.paths import ROOT

IS_ROOT = os.geteuid() == 0
"""Otherwise the namespace has one user, so the container's user is not available."""


class Image(NamedTuple):
    """The settings of the last stage of deploy/docker/Dockerfile."""

    entrypoint: list[str]
    environment: dict[str, str]
    user: int


def image() -> Image:
    stage = (ROOT / "deploy/docker/Dockerfile").read_text().rpartition("\nFROM ")[2]
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.+)$", stage, re.MULTILINE)
    (variables,) = re.findall(r"^ENV (.+)$", stage, re.MULTILINE)
    (user,) = re.findall(r"^USER (\d+):\d+$", stage, re.MULTILINE)
    environment = dict(pair.split("=", 1) for pair in variables.split())
    environment["PATH"] = environment["PATH"].replace("/opt/tallystick", sys.prefix)
    return Image(
        json.loads(entrypoint), {**environment, "PYTHONPATH": "/code/shared:/code/services"}, int(user)
    )


def pod(part: str) -> dict[str, Any]:
    """The pod of a deployment in the manifests."""
    documents = yaml.safe_load_all((ROOT / f"deploy/kubernetes/base/{part}.yaml").read_text())
    (deployment,) = (document for document in documents if document["kind"] == "Deployment")
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


class Container:
    """Args:
    spec: the container in the manifest.
    process: the process that created its namespaces.
    port: the port on which it listens, instead of the only port that it declares.
    """

    def __init__(self, spec: Mapping[str, Any], process: "subprocess.Popen[bytes]", port: int) -> None:
        self.spec = spec
        self.process = process
        self.port = port

    @property
    def pid(self) -> int:
        """The PID of its PID 1 on this machine."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children)

    def status(self) -> dict[str, str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def run(self, *command: str) -> int:
        """The exit code of a command in the container, as ``kubectl exec`` runs it."""
        user = [] if IS_ROOT else ["--user", "--preserve-credentials"]
        enter = ["nsenter", "--target", str(self.pid), *user, "--mount", "--pid", "--root", "--wd"]
        return subprocess.run([*enter, *command], check=False, capture_output=True, timeout=10).returncode

    def passes(self, probe: str) -> bool:
        """Whether one of its probes, by its name in the manifest, passes now."""
        declared = self.spec[probe]
        if "exec" in declared:
            return self.run(*declared["exec"]["command"]) == 0
        try:
            url = f"http://127.0.0.1:{self.port}{declared['httpGet']['path']}"
            # As a kubelet sends it; one second is its default.
            status = httpx.get(url, timeout=declared.get("timeoutSeconds", 1), trust_env=False).status_code
        except httpx.TransportError:
            return False
        return 200 <= status < 400

    def stop(self, within_s: float) -> int:
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(within_s)


@contextmanager
def container(
    part: str, folder: Path, secrets: Mapping[str, str], port: int, **settings: str
) -> Iterator[Container]:
    """A running container of a part.

    Args:
        part: a deployment with one container.
        folder: an empty folder for this container.
        secrets: the files of its secret.
        port: the port on which it listens.
        settings: settings that depend on the machine and not on the manifest.
    """
    pod_spec, built = pod(part), image()
    (spec,) = pod_spec["containers"]
    assert spec["image"] == "tallystick"
    security = {**pod_spec["securityContext"], **spec["securityContext"]}
    assert security["runAsUser"] == built.user
    for name, content in secrets.items():
        (folder / "secrets").mkdir(exist_ok=True)
        path = folder / "secrets" / name
        path.write_text(content)
        if IS_ROOT:
            os.chown(path, 0, security["fsGroup"])
        path.chmod(0o440)
    environment = {
        **built.environment,
        **{variable["name"]: variable["value"] for variable in spec.get("env", [])},
        **{f"TALLYSTICK_{name.upper()}": value for name, value in settings.items()},
        "TALLYSTICK_HOST": "127.0.0.1",
        "TALLYSTICK_PORT": str(port),
    }
    if "TALLYSTICK_PREPARED_TOKEN_FILE" in environment and "prepared_token" not in secrets:
        del environment["TALLYSTICK_PREPARED_TOKEN_FILE"]
    (folder / "root").mkdir()
    script = "\n".join(
        [
            "set -e",
            *_mounts(pod_spec, spec, folder),
            shlex.join(
                [
                    *["exec", "chroot", str(folder / "root"), "setpriv", *_privileges(security)],
                    *["env", "-i", *(f"{name}={value}" for name, value in environment.items())],
                    *spec.get("command", built.entrypoint),
                    *spec.get("args", []),
                ]
            ),
        ]
    )
    namespaces = [] if IS_ROOT else ["--user", "--map-root-user"]
    namespaces += ["--mount", "--pid", "--fork", "--kill-child"]
    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            ["unshare", *namespaces, "sh", "-c", script],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield Container(spec, process, port)
    except BaseException:
        print((folder / "output").read_text())
        raise
    finally:
        process.kill()
        process.wait()


def _mounts(pod_spec: Mapping[str, Any], spec: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """The commands that create the container's files."""
    root = folder / "root"
    yield f"mount -t tmpfs -o mode=755 tmpfs {root}"
    yield f"mkdir {root}/proc {root}/dev"
    yield f"mount -t proc proc {root}/proc"
    yield f"mount --rbind /dev {root}/dev"
    volumes = {volume["name"]: volume for volume in pod_spec["volumes"]}
    for mount in spec["volumeMounts"]:
        volume, target = volumes[mount["name"]], f"{root}{mount['mountPath']}"
        yield f"mkdir -p {target}"
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440
            yield _bind(folder / "secrets", target)
        else:
            size = volume["emptyDir"]["sizeLimit"].removesuffix("i").lower()
            yield f"mount -t tmpfs -o mode=1777,size={size} tmpfs {target}"
    for path in ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc"):
        if Path(path).is_symlink():
            yield f"cp -P {path} {root}{path}"
        elif Path(path).is_dir():
            yield f"mkdir -p {root}{path}"
            yield _bind(Path(path), f"{root}{path}")
    for source, target in {
        (ROOT, "/code"),
        (Path(sys.prefix), sys.prefix),
        (Path(sys.base_prefix), sys.base_prefix),
    }:
        if not target.startswith("/usr"):
            yield f"mkdir -p {root}{target}"
            yield _bind(source, f"{root}{target}")
    if spec["securityContext"]["readOnlyRootFilesystem"]:
        yield f"mount -o remount,bind,ro {root}"


def _bind(source: Path, target: str) -> str:
    return f"mount --rbind {source} {target} && mount -o remount,bind,ro {target}"


def _privileges(security: Mapping[str, Any]) -> Iterator[str]:
    """The options of `setpriv`."""
    if IS_ROOT:
        yield from (f"--reuid={security['runAsUser']}", f"--regid={security['runAsGroup']}")
        yield f"--groups={security['fsGroup']}"
    if security["capabilities"]["drop"] == ["ALL"]:
        yield from ("--bounding-set=-all", "--inh-caps=-all")
    if not security["allowPrivilegeEscalation"]:
        yield "--no-new-privs"
