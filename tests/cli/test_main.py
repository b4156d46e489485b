"""The command line: help at once, one line per error, and the exit statuses that are documented."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from p2pnode.cli import main
from p2pnode.cli.exits import FAILED, NO_CHAIN, USAGE, WELL, Failed
from p2pnode.cli.main import Report
from p2pnode.cli.output import Output
from p2pnode.errors import BadRequest, JoinFailed, NoChain, P2PNodeError
from p2pnode.types import LayerRange

COMMANDS = {
    "serve": "--model --layers --join --invite --lan --host --port --announce --key --device "
    "--dtype --wire --quant --until --max-sessions --vram --uplink --pause-when-busy --http "
    "--home --json",
    "bootstrap": "--join --invite --lan --host --port --announce --key --home --json",
    "generate": "--model --join --invite --lan --max-tokens --temperature --top-p --top-k --min-p "
    "--repetition-penalty --presence-penalty --frequency-penalty --json-schema --logprobs "
    "--stop --seed --head --draft --max-token-ms --min-tokens-per-s --explain --home --json",
    "chat": "--model --join --invite --lan --system --max-tokens --temperature --top-p "
    "--repetition-penalty --seed --head --draft --max-token-ms --min-tokens-per-s --home",
    "gateway": "--model --join --invite --lan --host --port --tls-cert --tls-key --allow-anyone "
    "--otel --draft --home --json",
    "gateway keys add": "--rate --concurrent --home --json",
    "gateway keys list": "--home --json",
    "gateway keys remove": "--home --json",
    "batch": "--model --join --invite --lan --concurrent --draft --home --json",
    "demo": "--json",
    "status": "--join --invite --lan --home --json",
    "doctor": "--model --join --invite --lan --rtt-ms --home --json",
    "keys show": "--key --home --json",
    "swarm create": "--home --json",
    "swarm invite": "--swarm --use --serve --admin --expires --quota --for --join --home --json",
    "swarm revoke": "--swarm --join --home --json",
    "swarm show": "--swarm --home --json",
    "model check": "--wire --quant --text --home --json",
    "plan": "--vram --bandwidth --rtt --uplink --context --batch --dtype --quant --swarm --watts "
    "--price-kwh --cloud-price --join --home --json",
    "top": "--join --invite --lan --home --json",
    "service install": "--system --dry-run --home --json",
    "service status": "--system --json",
    "service remove": "--system --json",
    "completion": "",
    "bench": "--quick --compare --plot --json",
    "version": "--json",
}
HEAVY = (
    *("torch", "transformers", "hivemind", "libp2p", "fastapi"),
    *("rich", "numpy", "asyncio", "uvloop"),
)


def error_event(text: str) -> dict[str, object]:
    """The last line of stdout, which must be an error event."""
    event: dict[str, object] = json.loads(text.splitlines()[-1])
    assert event.pop("event") == "error"
    return event


def test_help_imports_nothing_heavy() -> None:
    script = "import sys, p2pnode, p2pnode.cli.main; print(*sys.modules)"
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = {name.partition(".")[0] for name in made.stdout.split()}
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_offers_its_documented_options_and_no_others(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run([*command.split(), "--help"]) == (WELL, True)
    text = capsys.readouterr().out
    offered = {word.rstrip("`:") for word in text.split() if word.startswith("--")}
    assert offered == {*COMMANDS[command].split(), "--help"}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["--help"]) == (WELL, True)
    text = capsys.readouterr().out
    assert all(f"\n  {command.split()[0]} " in text for command in COMMANDS)
    assert "..." not in text.replace("COMMAND [ARGS]...", "")


def test_no_command_is_a_usage_error_that_shows_the_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main.run([]) == (USAGE, True)
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve"],
        ["serve", "--layers", "5-3"],
        ["serve", "--layers", "0-26", "--port", "70000"],
        ["serve", "--layers", "0-26", "--dtype", "int3"],
        ["serve", "--layers", "0-26", "--join", "/ip4/127.0.0.1/tcp/4001"],
        ["serve", "--layers", "0-26", "--join", "no-such-file"],
        ["bootstrap", "--model", "stories"],
        ["generate"],
        ["generate", "x", "--top-p", "2"],
        ["generate", "x", "--temperature", "-1"],
        ["generate", "x", "--max-tokens", "0"],
        ["generate", "x", "--seed", "-1"],
        ["generate", "x", "--logprobs", "21"],
        ["generate", "x", "--presence-penalty", "3"],
        ["generate", "x", "--json-schema", "no such file"],
        ["generate", "x", "--head", "lokal"],
        ["fly"],
    ],
)
def test_a_misused_command_gets_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == (USAGE, True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("Usage: ")
    assert captured.err.count("\n") == 1


def test_scripts_hear_of_misuse_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["serve", "--json"]) == (USAGE, True)
    event = error_event(capsys.readouterr().out)
    assert event["kind"] == "Usage"
    assert "--layers" in str(event["message"])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NoChain("no live peer serves layers 14-26"), NO_CHAIN),
        (JoinFailed("no bootstrap peer answered"), NO_CHAIN),
        (BadRequest("the prompt is empty"), FAILED),
    ],
)
def test_an_error_is_one_line_and_an_event(
    error: P2PNodeError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert Report(Output(as_json=True), is_debug=False).failed(error, {}) == status
    captured = capsys.readouterr()
    assert captured.err == f"{error.kind}: {error}\n"
    assert error_event(captured.out) == {"kind": error.kind, "message": str(error)}


def test_what_a_stranger_wrote_into_an_error_cannot_reach_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = BadRequest("peer said \x1b[2J\nfake line\u202e")
    Report(Output(), is_debug=False).failed(error, {})
    text = capsys.readouterr().err
    assert text == "BadRequest: peer said \\x1b[2J fake line\\u202e\n"


def test_a_failure_carries_what_scripts_need_besides() -> None:
    failed = Failed(NoChain("none", (LayerRange(0, 3),)), layers="0-2", text="so far")
    assert failed.fields == {"layers": "0-2", "text": "so far"}


def test_a_bug_is_one_line_and_debug_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    for is_debug in (False, True):
        try:
            dict[str, str]()["missing"]
        except KeyError as error:
            assert Report(Output(), is_debug).bug(error) == FAILED
    short, *trace = capsys.readouterr().err.split("\n", 1)
    assert short.startswith("Bug: KeyError: 'missing'; please report")
    assert "Traceback" in trace[0]


def test_a_typed_usage_error_names_its_option(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(Output(), is_debug=False)
    assert report.misused(typer.BadParameter("no", param_hint="--seed")) == USAGE
    assert "--seed" in capsys.readouterr().err


def test_version_is_told_to_people_and_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["version"]) == (WELL, True)
    assert main.run(["version", "--json"]) == (WELL, True)
    people, scripts = capsys.readouterr().out.splitlines()
    assert people.startswith(f"p2pnode {json.loads(scripts)['version']} ")


def test_keys_show_makes_a_key_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main.run(["keys", "show", "--json", "--home", str(tmp_path)]) == (WELL, True)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == second
    assert first["peer"].startswith("12D3KooW")
    assert Path(first["file"]) == tmp_path / "keys" / "node.key"


def test_a_loose_key_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "node.key"
    key.write_bytes(b"x")
    key.chmod(0o644)
    assert main.run(["keys", "show", "--key", str(key)]) == (FAILED, True)
    assert capsys.readouterr().err.startswith("KeyFileError: ")


def test_a_family_that_splits_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["model", "check", "llama", "--json"]) == (WELL, True)
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"family", "ok", "splits", "max_delta_logit", "reason"}
    assert found["ok"] is True
    assert found["max_delta_logit"] < 1e-5


def test_a_family_that_does_not_exist_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["model", "check", "no-such-family", "--json"]) == (FAILED, True)
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert "no-such-family" in found["reason"]
    assert found["max_delta_logit"] is None


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m p2pnode generate --help | head -n 1; echo ${{PIPESTATUS[0]}}"
    made = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert made.stderr == ""
    assert made.stdout.splitlines()[-1] == "0"
