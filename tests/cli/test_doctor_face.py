"""What people and scripts see of an examination."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from p2pnode.cli.doctor_face import sentence, show
from p2pnode.cli.output import Output
from p2pnode.doctor.measured import ChainMeasured, HopMeasured, Ways
from p2pnode.doctor.report import Cause, Check, Grade, PeerTold, Report, Verdict
from p2pnode.types import LayerRange
from tests.support.peers import peer

A = peer("A")
REPORT = Report(
    verdict=Verdict(cause=Cause.SLOW_DEVICE, peer=A, evidence="peer A is slow", remedy="cool it"),
    checks=(
        Check(name="disk", grade=Grade.OK, evidence="9 GB free"),
        Check(name="clock", grade=Grade.BAD, evidence="4 s ahead", remedy="set it"),
    ),
    chain=ChainMeasured(
        hops=(
            HopMeasured(
                peer=A, layers=LayerRange(0, 9), ways=Ways(rtts_s=(0.04, 0.05, 0.06), num_lost=1)
            ),
        ),
        num_tokens=8,
        ttft_s=0.2,
        token_s=0.1,
    ),
    peers=(PeerTold(peer=A, layers=LayerRange(0, 9), liveness="alive", errors=(("device", 2),)),),
    took_s=3.5,
)


def test_scripts_get_cause_peer_evidence_and_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    show(REPORT, Output(as_json=True))
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert [told[key] for key in ("cause", "peer", "evidence", "remedy", "doctor_s")] == [
        "slow_device",
        A,
        "peer A is slow",
        "cool it",
        3.5,
    ]
    assert [check["grade"] for check in told["checks"]] == ["ok", "bad"]
    (hop,) = told["chain"]["hops"]
    assert (hop["layers"], hop["rtt_s"], hop["num_pings"], hop["num_lost"]) == ("0-8", 0.05, 4, 1)
    assert told["peers"][0]["errors"] == {"device": 2}


def test_people_get_checks_hops_peers_and_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    show(REPORT, Output())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ok", "disk", "9", "GB", "free"]
    assert lines[1].startswith("BAD     clock           4 s ahead; set it")
    assert any(line.split()[:4] == [A.short, "0-8", "-", "50.0"] for line in lines)
    assert any(line.endswith("device 2") for line in lines)
    assert lines[-1] == "slow_device: peer A is slow. Remedy: cool it."


def test_nothing_in_the_way_is_said_so() -> None:
    healthy = replace(REPORT, verdict=Verdict(cause=Cause.NONE, evidence="3 hops"))
    assert sentence(healthy) == "Nothing is in the way: 3 hops."
