"""Scenario files: what they say is what is run, and what they cannot say is one plain line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from p2pnode.errors import BadRequest
from p2pnode.lab.presets import PRESETS, Link, way
from p2pnode.lab.scenario import CLIENT, Fault, FaultKind, Moment, Nat, Where
from p2pnode.lab.scenario_file import load_scenario, read_scenario
from p2pnode.lab.table import MAX_FILE_BYTES
from p2pnode.types import LayerRange

FILES = sorted((Path(__file__).parent / "scenarios").glob("*.toml"))
IN_MEMORY = [file for file in FILES if file.stem not in ("nat", "punch")]
"""NAT is real, in namespaces only."""

TEXT = """
name = "one"
seed = 3
[client]
prompt_tokens = 8
max_tokens = 20
link = "5g"
[links]
preset = "cable"
delay_ms = 40
[[links.between]]
pair = ["b", "client"]
preset = "far"
[[nodes]]
name = "a"
layers = "0-2"
nat = "cone"
clock_offset_s = -2.5
[[nodes]]
name = "b"
layers = "3-5"
count = 2
link = "fiber"
[[faults]]
kind = "partition"
hop = 1
token = 5
for_s = 3
"""


def error_of(text: str) -> str:
    with pytest.raises(BadRequest) as caught:
        read_scenario(text, "f.toml")
    message = str(caught.value)
    assert message.startswith("f.toml")
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_a_file_says_all_of_a_scenario() -> None:
    scenario = read_scenario(TEXT, "f.toml")
    assert (scenario.name, scenario.seed, scenario.model) == ("one", 3, "tiny")
    assert list(scenario.members) == ["a", "b-1", "b-2"]
    assert scenario.members["a"].nat is Nat.CONE
    assert scenario.members["a"].clock_offset_s == -2.5
    assert scenario.members["b-2"].layers == LayerRange(3, 6)
    assert (scenario.client.prompt_tokens, scenario.client.max_tokens) == (8, 20)
    moment = Moment(where=Where.DECODE, token=5)
    assert scenario.faults == (Fault(kind=FaultKind.PARTITION, at=moment, hop=1, for_s=3.0),)


def test_a_way_is_half_of_each_ends_link() -> None:
    scenario = read_scenario(TEXT, "f.toml")
    assert scenario.way("a", "a").delay_ms == 40
    assert scenario.way("a", "b-1").delay_ms == (40 + 10) / 2
    up, down = scenario.way("a", "b-1"), scenario.way("b-1", "a")
    assert (up.mbit, down.mbit) == (20, 100)
    assert scenario.way("a", CLIENT).jitter == pytest.approx(0.5 * 15 / 35)


def test_a_pair_of_names_overrides_the_links_of_all_its_members_both_ways() -> None:
    scenario = read_scenario(TEXT, "f.toml")
    for sender, receiver in (("b-1", CLIENT), ("b-2", CLIENT), (CLIENT, "b-2")):
        assert scenario.way(sender, receiver).delay_ms == PRESETS["far"].delay_ms


def test_losses_of_both_ends_multiply() -> None:
    lossy = Link(loss=0.19)
    assert way(lossy, lossy).loss == pytest.approx(0.19)
    assert way(lossy, Link()).loss == pytest.approx(0.1)
    assert way(Link(), Link()).mbit == math.inf


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_examples_can_be_read(file: Path) -> None:
    scenario = load_scenario(file)
    assert scenario.faults or any(node.nat is not Nat.NONE for node in scenario.nodes)


def test_a_file_without_a_name_is_called_like_itself(tmp_path: Path) -> None:
    file = tmp_path / "nameless.toml"
    file.write_text('[[nodes]]\nname = "a"\nlayers = "0-2"\n')
    assert load_scenario(file).name == "nameless"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("seed = 3", "seed = -3", "seed = -3: write a whole number from 0"),
        ("seed = 3", "seed = true", "seed = True: write a whole number"),
        ("seed = 3", "sed = 3", "sed is unknown: the keys here are name, seed"),
        ("hop = 1", 'node = "zz"', "there is no 'zz'; the nodes are a, b-1, b-2"),
        ("hop = 1", 'node = "b"', "there is no 'b'"),
        ("hop = 1", "", "write either node or hop"),
        ("hop = 1", 'hop = 1\nnode = "a"', "write either node or hop"),
        ("token = 5", "token = 20", "must be below max_tokens = 20"),
        ("token = 5", "token = 0", "faults[1].token = 0: write a whole number from 1"),
        ("token = 5", "", "write one of token = N, in_flight = N, prefill = true"),
        ("token = 5", "token = 5\nprefill = true", "write one of token = N"),
        ("token = 5", "prefill = false", "faults[1].prefill = False: write true"),
        ("for_s = 3", "for_s = 0", "faults[1].for_s = 0: write a number from 0.001"),
        ("for_s = 3", "offset_s = 5", 'it belongs to kind = "clock"'),
        ("for_s = 3", "steps = 5", 'it belongs to kind = "oom"'),
        ('"partition"', '"kil"', "faults[1].kind = 'kil': write one of kill, kill-agent"),
        ('"partition"', '"kill"', "a kill does not end; leave it away"),
        ('"0-2"', '"2-0"', "nodes[1].layers = '2-0': write the first and the last one"),
        ('"0-2"', "3", "nodes[1].layers = 3: write a text"),
        ('name = "b"', 'name = "a"', "give each a name of its own: a is taken"),
        ('name = "b"', 'name = "client"', "client is taken"),
        ('name = "b"', 'name = "../b"', "write small letters, digits and dashes"),
        ("count = 2", "count = 64", "write at most 64, counts included"),
        ('"cone"', "3", "nodes[1].nat = 3: write one of none, cone, symmetric"),
        ('["b", "client"]', '["b", "x"]', "there is no 'x'"),
        ('["b", "client"]', '["b", "b"]', "write two different names"),
        ('["b", "client"]', '["b"]', "write 2 names"),
        ("delay_ms = 40", "delay_ms = nan", "links.delay_ms = nan: write a number"),
        ("delay_ms = 40", "loss = 1.0", "links.loss = 1.0: write a number from 0 to 0.99"),
        ("delay_ms = 40", "latency = 3", "links.latency is unknown"),
        ('"fiber"', '"fibre"', "nodes[2].link = 'fibre': write one of lan, fiber, cable, 5g, far"),
        ("prompt_tokens = 8", 'prompt = ""', "client.prompt = '': write a text"),
        ("prompt_tokens = 8", 'prompt_tokens = 8\nprompt = "x"', "not both"),
        ("prompt_tokens = 8", "temperature = -1", "client.temperature = -1"),
        ("[client]", "[client", "is not TOML"),
        ("[client]", "[[client]]", "write it as a table [client]"),
    ],
)
def test_a_mistake_is_one_line_with_the_key_and_the_remedy(
    old: str, new: str, expected: str
) -> None:
    assert TEXT.count(old) == 1
    assert expected in error_of(TEXT.replace(old, new))


def test_a_scenario_without_nodes_is_refused() -> None:
    assert "write at least one [[nodes]]" in error_of("")
    assert "write it as tables [[nodes]]" in error_of("nodes = 3")


def test_a_file_that_is_not_there_or_not_text_or_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="No such file or directory; name a scenario file"):
        load_scenario(tmp_path / "nothing.toml")
    with pytest.raises(BadRequest, match="cannot be read"):
        load_scenario(tmp_path)
    odd = tmp_path / "odd.toml"
    odd.write_bytes(b"\xff\xfe")
    with pytest.raises(BadRequest, match="it is not UTF-8 text"):
        load_scenario(odd)
    odd.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(BadRequest, match="longer than"):
        load_scenario(odd)
