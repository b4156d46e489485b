"""Commands as processes: one node that serves the whole built-in model, and what asks of it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from p2pnode.model.reference import greedy
from p2pnode.model.source import find_model
from p2pnode.model.text import TextCodec
from tests.support.commands import (
    END_WITHIN_S,
    Command,
    environment,
    json_lines,
    p2pnode,
    run,
    sockets_in,
)

pytestmark = pytest.mark.processes

PROMPT = "Once upon a time"
NUM_TOKENS = 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def node(home: Path) -> Iterator[Command]:
    """Serves layers 0-26 of the built-in model, in float32 on the CPU."""
    options = ("--device", "cpu", "--dtype", "float32", "--host", "127.0.0.1")
    with Command("serve", "--layers", "0-26", "--home", str(home), *options) as command:
        command.wait_for("serving")
        yield command


def test_a_node_says_where_it_listens_and_what_it_serves(node: Command) -> None:
    listening, serving = node.seen[:2]
    assert listening["event"] == "listening"
    assert serving["event"] == "serving"
    assert listening["peer"] == serving["peer"]
    assert listening["addresses"][0].startswith("/ip4/127.0.0.1/tcp/")
    assert listening["addresses"][0].endswith(f"/p2p/{listening['peer']}")
    assert serving["layers"] == "0-26"
    assert {"model", "fingerprint"} <= set(serving)


def test_generate_finds_the_node_of_its_home_and_writes_what_the_unsplit_model_writes(
    node: Command, home: Path, cache: Path
) -> None:
    made = run("generate", PROMPT, "--max-tokens", str(NUM_TOKENS), "--json", "--home", str(home))
    assert made.returncode == 0, made.stderr
    chain, *others, done = json_lines(made.stdout)
    tokens = [each for each in others if each["event"] == "token"]  # a busy machine has more to say
    assert chain["chain"] == [{"peer": node.seen[0]["peer"], "layers": "0-26"}]
    folder = find_model(None, cache=cache).folder
    prompt_ids = TextCodec.load(folder).encode(PROMPT)
    assert done["token_ids"] == greedy(folder, prompt_ids, NUM_TOKENS)
    assert [token["position"] for token in tokens] == [
        len(prompt_ids) + index for index in range(NUM_TOKENS)
    ]
    assert node.wait_for("session_opened")["layers"] == "0-26"
    assert node.wait_for("session_closed")["layers"] == "0-26"


def test_status_shows_the_node(node: Command, home: Path) -> None:
    made = run("status", "--json", "--home", str(home))
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert [peer["peer"] for peer in found["peers"]] == [node.seen[0]["peer"]]
    assert found["models"][0]["uncovered"] == []
    assert found["models"][0]["num_layers"] == 27


def test_top_draws_the_node_and_q_ends_it(node: Command, home: Path) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
    with subprocess.Popen(
        p2pnode("top", "--home", str(home)),
        stdin=theirs,
        stdout=theirs,
        env=environment(TERM="xterm-256color"),
    ) as top:
        os.close(theirs)
        drawn = b""
        while node.seen[0]["peer"][-8:].encode() not in drawn:
            drawn += os.read(ours, 4096)
        os.write(ours, b"q")
        with contextlib.suppress(OSError):  # its end has closed the terminal
            while os.read(ours, 4096):
                pass
        assert top.wait(END_WITHIN_S) == 0
    os.close(ours)
    assert b"all covered" in drawn


def test_a_plan_for_the_swarm_names_its_peer(node: Command, home: Path) -> None:
    made = run("plan", "builtin", "--swarm", "--json", "--home", str(home), "--dtype", "float32")
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["fits"] is True
    assert [each["peer"] for each in found["ranges"]] == [node.seen[0]["peer"]]
    assert found["assumed"]["source"] == "swarm"


def test_ctrl_c_ends_generate_with_the_answer_so_far(node: Command, home: Path) -> None:
    with Command("generate", PROMPT, "--max-tokens", "400", "--home", str(home)) as asking:
        asking.wait_for("token")
        assert asking.end(signal.SIGINT) == 130
        done = asking.wait_for("done")
    assert done["finish_reason"] == "cancelled"
    assert 1 <= len(done["token_ids"]) < 400
    assert node.wait_for("session_closed", within_s=10.0)["layers"] == "0-26"


def test_a_reader_that_has_read_enough_ends_generate_quietly(node: Command, home: Path) -> None:
    command = p2pnode("generate", PROMPT, "--max-tokens", "400", "--json", "--home", str(home))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stderr is not None
        assert json.loads(asking.stdout.readline())["event"] == "chain"
        asking.stdout.close()
        assert asking.stderr.read() == b""
        assert asking.wait(60) == 0
    assert node.wait_for("session_closed", within_s=10.0)["layers"] == "0-26"


def test_chat_answers_each_line_and_leaves_at_the_end_of_input(node: Command, home: Path) -> None:
    options = ("--max-tokens", "12", "--temperature", "0", "--home", str(home))
    made = run("chat", *options, stdin="Tell me a story.\n\nGo on.\n")
    assert made.returncode == 0, made.stderr
    assert node.wait_for("session_closed")
    assert node.wait_for("session_closed")
    assert made.stdout.strip()


def test_a_second_node_takes_the_next_port_and_an_explicit_busy_one_is_an_error(
    node: Command, home: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        options = ("--host", "127.0.0.1", "--home", str(home), "--json")
        made = run("bootstrap", "--port", port, *options)
    assert made.returncode == 1
    assert json_lines(made.stdout)[-1]["kind"] == "PortBusy"
    assert made.stderr.splitlines()[-1].startswith("PortBusy: ")
    assert port in made.stderr
    with Command("bootstrap", *options[:-1]) as second:
        listening = second.wait_for("listening")
        assert listening["peer"] != node.seen[0]["peer"]
        assert not listening["founded"]
        assert second.end(signal.SIGINT) == 130


def test_layers_that_the_model_does_not_have_are_refused_with_what_was_meant(
    node: Command, home: Path
) -> None:
    options = ("--host", "127.0.0.1", "--home", str(home), "--json")
    made = run("serve", "--layers", "18-27", *options)
    assert made.returncode == 1
    assert json_lines(made.stdout)[-1]["kind"] == "BadLayerRange"
    assert "18-26" in made.stderr.splitlines()[-1]


def test_nobody_to_join_is_status_3_and_starts_no_swarm(tmp_path: Path) -> None:
    made = run("generate", PROMPT, "--json", "--home", str(tmp_path), cwd=tmp_path)
    assert made.returncode == 3
    assert json_lines(made.stdout)[-1]["kind"] == "JoinFailed"
    peer = "12D3KooWAQLw39YCYFXa9zQZ8Nc2ufYCNN5yxNpmt6rF4D6Dww6t"
    join = ("--join", f"/ip4/127.0.0.1/tcp/9/p2p/{peer}")
    made = run("bootstrap", *join, "--host", "127.0.0.1", "--json", "--home", str(tmp_path))
    assert made.returncode == 3
    assert json_lines(made.stdout)[-1]["kind"] == "JoinFailed"
    assert made.stderr.count("\n") == 1


def test_sigterm_ends_the_node_well_and_leaves_nothing(node: Command, home: Path) -> None:
    daemons = node.children()
    assert daemons
    assert node.end(signal.SIGTERM) == 0
    assert node.wait_for("stopping")
    _, alive = psutil.wait_procs(daemons, timeout=1.0)
    assert alive == []
    assert sockets_in(home) == []
