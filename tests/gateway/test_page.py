"""The status page in a browser: what people see while a swarm changes, and while it does not."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from p2pnode.gateway.keys import KeyFile
from p2pnode.types import LayerRange
from tests.gateway import scenes
from tests.gateway.contrast import too_faint
from tests.gateway.pages import PHONE, Looking, Serving, SwarmApp, chromium, scene_app
from tests.gateway.screenshot import take

ROOT = Path(__file__).parents[2]
DEATH_SEEN_WITHIN_S = 2.0
MAX_PICTURE_BYTES = 200_000

HOSTILE = {
    "markup": "<img src=x onerror=alert(1)><script>alert(2)</script>",
    "right to left": "abc\u202e\u2066gpj.exe\u200f",
    "long": "W" * 5000,
    "controls": "a\x00\x1b[2J\r\nb\u2028c\ufeff",
    "piled up": "z" + "\u0335\u0336\u0337" * 60,
    "wide spaces": "a\u3000\u00a0b\u200b",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def test_the_page_follows_nodes_that_join_and_die(
    browser: Browser, tiny: Path, cache: Path
) -> None:
    app = SwarmApp(tiny, cache, "0-4", "5-8")
    with Serving(app.open()) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        looking.wait_text("#sum-layers", "9 of 9")
        looking.wait_text("#coverage-says", "One peer alone holds layers 0-8")

        async def join() -> str:
            node = app.swarm.add(LayerRange(0, 9))
            await node.is_serving.wait()
            return node.peer.short

        newcomer = serving.run(join())
        looking.wait_text("#bars li", newcomer)
        looking.wait_text("#coverage-says", "two peers or more")
        assert looking.text("#sum-peers") == "3"

        async def kill() -> str:
            node = app.swarm.nodes[0]
            app.swarm.kill(node)
            return node.peer.short

        killed, at = serving.run(kill()), time.monotonic()
        row = looking.page.locator("#bars li", has_text=killed)
        row.locator("xpath=self::*[@data-state='silent' or @data-state='gone']").wait_for()
        assert time.monotonic() - at < DEATH_SEEN_WITHIN_S
        looking.wait_text("#coverage-says", "One peer alone holds layers 0-4")
        assert looking.text("#sum-peers") == "2"
        assert looking.complaints == []


def test_the_chat_streams_and_the_page_shows_which_way_it_takes(
    browser: Browser, tiny: Path, cache: Path
) -> None:
    app = SwarmApp(tiny, cache, "0-4", "5-8")
    with Serving(app.open()) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        page = looking.page
        page.get_by_label("Tokens", exact=True).fill("100")
        page.get_by_label("Temperature").fill("0")  # what is drawn may end the text sooner
        page.get_by_label("Your message").fill("Once upon a time")
        page.keyboard.press("Enter")
        words = page.locator("#talk .words")
        looking.wait_text("#talk .words", re.compile(".{9}"))
        assert page.get_by_role("button", name="Stop").is_visible()
        first = len(words.text_content() or "")
        looking.wait_text("#talk .turn[data-state='done'] .under", "100 tokens")
        assert len(words.text_content() or "") > first
        looking.wait_text("#request-says", "Done, 100 tokens")
        hops = page.get_by_role("list", name="The chain, hop by hop").get_by_role("listitem")
        assert hops.count() == 2
        assert [hops.nth(index).locator(".layers").text_content() for index in range(2)] == [
            "0-4",
            "5-8",
        ]
        assert "network" in looking.text("#hops-sum")
        looking.wait_text("#sum-rate-under", "at most")
        assert page.locator("#bars li[data-hop]").count() == 2
        assert looking.complaints == []


def test_what_strangers_wrote_is_only_text(browser: Browser) -> None:
    source = scenes.scene("0-9", "10-19", "20-29", "30-39", "0-19", "20-39")
    for index, name in enumerate(HOSTILE.values()):
        source.announcements[index] = dataclasses.replace(
            source.announcements[index],
            device_name=name,
            model=name,
            numerics=name if index % 2 else "int8",
        )
        peer = source.announcements[index].peer
        health = source.health[peer].health
        source.health[peer] = dataclasses.replace(
            source.health[peer], health=dataclasses.replace(health, errors=((name, 3),))
        )
    source.why_not = HOSTILE["markup"] + HOSTILE["right to left"]
    with Serving(scene_app(source)) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        page = looking.page
        for key in page.locator("#models option").evaluate_all("all => all.map(o => o.value)"):
            page.locator("#models").select_option(key)
            page.locator("#peer-rows tr").first.wait_for()
            shown = page.evaluate("document.body.innerText")
            assert not [c for c in "\u202e\u2066\u200f\x1b\u2028\u200b\u3000" if c in shown]
            assert page.locator("main script, main img").count() == 0
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert "<img src=x" in looking.text("#notice")
        assert "\\u{202e}" in looking.text("#notice")
        assert looking.complaints == []


@pytest.mark.parametrize("name", ["large", "nobody", "a gap"])
def test_the_page_is_readable_at_any_width_in_light_and_dark(browser: Browser, name: str) -> None:
    source = {
        "large": scenes.large(),
        "nobody": scenes.SceneSource(),
        "a gap": scenes.scene("0-9", "20-39"),
    }[name]
    with Serving(scene_app(source)) as serving:
        for scheme in ("light", "dark"):
            with Looking(browser, serving.url, viewport=PHONE, color_scheme=scheme) as looking:
                looking.wait_live()
                assert looking.page.evaluate("document.documentElement.scrollWidth") == 390
                looking.page.set_viewport_size({"width": 1280, "height": 832})
                assert looking.page.evaluate("document.documentElement.scrollWidth") == 1280
                assert too_faint(looking.page) == []
                assert looking.complaints == []


def test_missing_layers_are_named_with_what_to_do(browser: Browser) -> None:
    source = scenes.scene("0-9", "20-39")
    with Serving(scene_app(source)) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        looking.wait_text("#coverage-says", "p2pnode serve --layers 10-19")
        assert looking.text("#sum-layers") == "30 of 40"
        source.announcements.clear()
        looking.wait_text("#coverage-says", "Nobody serves a model here yet")
        looking.wait_text("#peers-none", "No peer is here yet")


def test_everything_that_can_be_used_has_a_name(browser: Browser) -> None:
    with Serving(scene_app(scenes.large())) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        session = looking.page.context.new_cdp_session(looking.page)
        nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
        named = {"button", "textbox", "spinbutton", "combobox", "link", "table", "region", "log"}
        found = [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in named
        ]
        assert {role for role, _ in found} >= {"button", "textbox", "spinbutton", "table", "log"}
        assert [role for role, name in found if not name] == []
        rows = looking.page.get_by_role("list", name="Peers and their layers")
        first = rows.get_by_role("listitem").first
        assert "layers 0-9, alive" in (first.text_content() or "")
        assert looking.page.get_by_role("table", name="Peers").get_by_role("row").count() == 13


def test_a_gateway_that_goes_and_comes_back_is_said_and_found_again(browser: Browser) -> None:
    with Serving(scene_app(scenes.large())) as serving:
        port, looking = serving.port, Looking(browser, serving.url)
        looking.wait_live()
    with looking:
        looking.page.wait_for_selector('#live[data-state="lost"]')
        assert "No news from the gateway since" in looking.text("#notice")
        assert looking.text("#sum-layers") == "40 of 40"
        with Serving(scene_app(scenes.scene("0-39")), port):
            looking.wait_text("#sum-peers", "1")
            assert looking.text("#live") == "Live"
            assert looking.page.locator("#notice").is_hidden()
        refused = [text for text in looking.complaints if "ERR_" not in text]
        assert refused == []


@pytest.mark.parametrize(
    ("has_template", "label", "path"),
    [
        (True, "Your message", "v1/chat/completions"),
        (False, "The beginning of a text", "v1/completions"),
    ],
)
def test_a_question_goes_where_its_model_takes_it_and_a_refusal_says_why(
    browser: Browser, has_template: bool, label: str, path: str
) -> None:
    source = scenes.large()
    source.has_chat_template = has_template
    with Serving(scene_app(source)) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        looking.page.get_by_label(label).fill("Hello?")
        with looking.page.expect_request(f"**/{path}"):
            looking.page.get_by_role("button", name="Send").click()
        looking.wait_text("#talk .turn[data-state='failed'] .under", "the gateway is in no swarm")
        assert looking.page.get_by_role("button", name="Send").is_visible()


def test_an_answer_that_a_fault_has_cut_goes_on(browser: Browser) -> None:
    cut = {"error": {"message": "no live peer", "code": "answer_cut", "resume_id": "resume-1"}}
    parts: dict[str, list[dict[str, Any]]] = {
        "chat/completions": [{"choices": [{"delta": {"content": " Once upon"}}]}, cut],
        "resume": [{"choices": [{"delta": {"content": " a time"}}]}],
    }
    with Serving(scene_app(scenes.large())) as serving, Looking(browser, serving.url) as looking:
        looking.wait_live()
        for path, events in parts.items():
            told = "".join(f"data: {json.dumps(each)}\n\n" for each in events)
            end = "" if cut in events else "data: [DONE]\n\n"
            looking.page.route(f"**/v1/{path}", answer_with(told + end))
        looking.page.get_by_label("Your message").fill("Go on")
        with looking.page.expect_request("**/v1/resume") as asked:
            looking.page.keyboard.press("Enter")
        assert asked.value.post_data_json == {"id": "resume-1", "stream": True}
        looking.wait_text("#talk .turn[data-state='done'] .words", "Once upon a time")
        assert looking.complaints == []


def answer_with(body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(body=body, content_type="text/event-stream")


def test_the_readmes_picture_can_be_made_anew(
    browser: Browser, tmp_path: Path, cache: Path
) -> None:
    take(browser, tmp_path / "page.png", cache)
    assert 20_000 < (tmp_path / "page.png").stat().st_size < MAX_PICTURE_BYTES
    assert (ROOT / ".github/images/status-page.png").stat().st_size < MAX_PICTURE_BYTES


def test_a_gateway_with_keys_asks_for_one(browser: Browser, tmp_path: Path) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    _, secret = keys.add("me")
    app = scene_app(scenes.large(), keys_file=keys.path)
    with Serving(app) as serving, Looking(browser, serving.url) as looking:
        looking.page.get_by_label("This gateway asks for an API key").fill("wrong")
        looking.page.get_by_role("button", name="Use it").click()
        looking.page.get_by_label("This gateway asks for an API key").fill(secret)
        looking.page.get_by_role("button", name="Use it").click()
        looking.wait_live()
        assert looking.text("#sum-layers") == "40 of 40"


def test_the_colours_are_kept_when_they_were_chosen(browser: Browser) -> None:
    with Serving(scene_app(scenes.large())) as serving, Looking(browser, serving.url) as looking:
        background = "getComputedStyle(document.documentElement).backgroundColor"
        light = looking.page.evaluate(background)
        button = looking.page.get_by_role("button", name="Colours")
        button.click()
        button.click()
        assert button.get_attribute("aria-label") == "Colours: dark"
        dark = looking.page.evaluate(background)
        assert dark != light
        looking.page.reload()
        assert looking.page.evaluate(background) == dark
