"""The files under examples/deploy say the same as the code: they are parsed, not run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from p2pnode.cli.main import app
from p2pnode.cli.unit import STATE

DEPLOY = Path(__file__).parents[1] / "examples" / "deploy"


def documents(name: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all((DEPLOY / name).read_text()) if each]


def test_every_node_of_compose_serves_on_the_hosts_network_with_no_rights() -> None:
    (compose,) = documents("docker-compose.yml")
    assert set(compose["services"]) == {"node", "cuda"}
    for service in compose["services"].values():
        assert service["command"].startswith("serve --layers ")
        assert service["network_mode"] == "host"
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert service["volumes"] == [f"home:{STATE}"]
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_the_manifests_nodes_serve_as_nobody_in_particular() -> None:
    *_, daemons = documents("kubernetes.yaml")
    pod = daemons["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert daemons["spec"]["selector"]["matchLabels"].items() <= (
        daemons["spec"]["template"]["metadata"]["labels"].items()
    )
    assert container["args"][:2] == ["serve", "--layers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["hostNetwork"] is True
    mounted = {each["name"] for each in container["volumeMounts"]}
    assert mounted == {each["name"] for each in pod["volumes"]}


def test_the_image_copies_what_there_is_and_starts_a_command_that_there_is() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (DEPLOY.parents[1] / name).exists()] == []
    (command,) = [line.removeprefix("CMD ") for line in lines if line.startswith("CMD ")]
    arguments = yaml.safe_load(command)
    assert app.registered_commands
    assert arguments[0] == "serve"
