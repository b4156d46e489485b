"""`p2pnode plan`: from a config alone to a table, an object, or one line about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from p2pnode.cli import main
from p2pnode.cli.exits import FAILED, USAGE, WELL
from p2pnode.cli.plan_face import Asked, machine_of, rtt_between, setting_of
from p2pnode.errors import BadRequest
from p2pnode.model import tiny
from p2pnode.model.memory import read_sizes
from p2pnode.model.spec import spec_of
from p2pnode.types import LayerRange, Liveness, SwarmView
from tests.support.peers import announced, at, view

FIELDS = {"weights_bytes", "kv_bytes_per_token", "ranges", "fits", "tokens_per_s", "ttft_s"}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a tiny model, and nothing else of it."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    tiny.default_config("llama").save_pretrained(folder)
    return folder / "config.json"


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code, _ = main.run(["plan", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_config_alone_is_enough_as_a_folder_or_a_file(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--vram", "1MB,100MB", "--json", "--home", str(tmp_path), "--dtype", "float32")
    code, by_file, _ = plan(capsys, str(config_file), *options)
    _, by_folder, _ = plan(capsys, str(config_file.parent), *options)
    found = json.loads(by_file)
    assert code == WELL
    assert found == json.loads(by_folder)
    assert found.keys() >= FIELDS | {"advice"}
    sizes = read_sizes(tiny.default_config("llama"), "float32")
    assert found["weights_bytes"] == sizes.weights_bytes(sizes.whole)
    assert found["kv_bytes_per_token"] == sizes.kv_bytes_per_token(sizes.whole)
    assert [each["layers"] for each in found["ranges"]] == ["0-3"]
    assert found["ranges"][0]["vram_bytes"] == 100_000_000
    assert found["ranges"][0]["peer"] is None
    assert found["fits"] is True
    assert found["advice"].startswith("run it on one machine")


def test_the_built_in_model_on_this_machine_is_told_to_people(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--home", str(tmp_path), "--watts", "65", "--price-kwh", "0.3")
    code, text, _ = plan(capsys, "builtin", *arguments)
    assert code == WELL
    assert text.startswith("stories-27: 27 layers in bfloat16, 1 session of 512 tokens")
    assert "electricity" in text
    assert text.splitlines()[-1].startswith("advice: run it on one machine: this machine")


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--vram", "8,x"], "'x' is not a number of GB"),
        (["--vram", ""], "is not a number of GB"),
        (["--vram", ",".join(["8"] * 65)], "at most 64 machines"),
        (["--vram", "8,8", "--bandwidth", "1,2,3"], "one figure, or one for each"),
        (["--swarm", "--vram", "8"], "--swarm asks the swarm"),
        (["--watts", "5"], "--watts and --price-kwh"),
        (["--quant", "q4"], "--quant"),
    ],
)
def test_a_misused_plan_is_a_usage_error(
    arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = plan(capsys, "builtin", *arguments)
    assert (code, out) == (USAGE, "")
    assert what in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["builtin", "--context", "600"], "BadRequest: context 600: "),
        (["builtin", "--context", "0"], "BadRequest: context must be"),
        (["builtin", "--batch", "-1"], "BadRequest: batch must be"),
        (["builtin", "--rtt", "-1"], "BadRequest: a round trip takes"),
        (["builtin", "--uplink", "nan"], "BadRequest: an uplink of nan"),
        (["./no-such-folder"], "UnknownModel: "),
    ],
)
def test_what_cannot_be_planned_is_one_line(
    arguments: list[str], kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = plan(capsys, *arguments, "--home", str(tmp_path), "--vram", "8")
    assert (code, out) == (FAILED, "")
    assert err.startswith(kind)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model_type": "bert"}, "ModelUnsupported: "),
        ({"quantization_config": {"bits": 4}}, "ModelUnsupported: "),
        ({"num_hidden_layers": -3}, "ModelFilesError: "),
        ({"auto_map": {"AutoModel": "x.py"}}, "ModelUnsupported: "),
    ],
)
def test_a_model_that_nobody_could_serve_is_refused(
    config_file: Path,
    fields: dict[str, object],
    kind: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps({**json.loads(config_file.read_text()), **fields}))
    code, _, err = plan(capsys, str(file), "--vram", "8", "--home", str(tmp_path))
    assert code == FAILED
    assert err.startswith(kind)
    assert err.count("\n") == 1


# --- the machines of a swarm


def asked(**options: object) -> Asked:
    given: dict[str, object] = {"dtype": "float32", "quant": "", "rtt_s": None}
    given |= {"model": "tiny", "context_tokens": None, "batch": 1, "memories_bytes": ()}
    given |= {"memory_bytes_per_s": (), "up_bytes_per_s": None}
    given |= {"watts": None, "price_kwh": None, "cloud_price": None, **options}
    return Asked(**given)  # type: ignore[arg-type]


def test_a_peer_that_serves_the_model_could_hold_what_is_free_and_what_it_holds() -> None:
    config = tiny.default_config("llama")
    spec, sizes = spec_of(config, "tiny", ""), read_sizes(config, "float32")
    a = announced(
        "A",
        "0-1",
        num_layers=4,
        vram_free_bytes=10**6,
        vram_total_bytes=10**9,
        latency_s=0.01,
        memory_bytes_per_s=1e10,
        flops_per_s=1e12,
    )
    ours = machine_of(a, spec, sizes, "float32")
    assert ours.memory_bytes == 10**6 + sizes.weights_bytes(LayerRange(0, 2))
    assert ours.slowness > 1
    other = machine_of(a, spec, sizes, "bfloat16")
    assert other.memory_bytes == 10**6
    assert other.slowness == 1


def test_round_trips_are_the_median_of_what_gossip_says() -> None:
    swarm = view(A={"coordinate": at(0.0)}, B={"coordinate": at(0.06)}, C={"coordinate": at(-0.02)})
    assert rtt_between(swarm) == pytest.approx(0.06)
    assert rtt_between(SwarmView(())) == 0.04


def test_of_a_large_swarm_the_largest_that_are_alive_count() -> None:
    config = tiny.default_config("llama")
    spec, sizes = spec_of(config, "tiny", ""), read_sizes(config, "float32")
    many = [
        announced(f"P{n}", "0-8", vram_total_bytes=10**9, vram_free_bytes=n) for n in range(1, 80)
    ]
    swarm = view(*many, P79={"liveness": Liveness.DEAD})
    found = setting_of(swarm, spec, sizes, asked(model="other"))
    assert [each.memory_bytes for each in found.machines] == [*range(78, 14, -1)]


def test_an_empty_swarm_is_no_machine() -> None:
    config = tiny.default_config("llama")
    spec, sizes = spec_of(config, "tiny", ""), read_sizes(config, "float32")
    with pytest.raises(BadRequest, match="nobody serves in this swarm"):
        setting_of(SwarmView(()), spec, sizes, asked())
