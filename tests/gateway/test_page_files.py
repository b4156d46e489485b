"""What browsers are handed: the page's own files, with a policy that lets nothing else in."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi import FastAPI

from p2pnode.gateway.errors import answer_errors
from p2pnode.gateway.feed import Feed
from p2pnode.gateway.page import STATIC, make_router
from tests.gateway.scenes import scene

FILES = sorted(file.name for file in STATIC.iterdir())


def asking() -> httpx.AsyncClient:
    app = FastAPI()
    answer_errors(app)
    app.include_router(make_router(Feed(scene("0-39"))))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


async def test_every_file_comes_with_its_type_and_the_policy() -> None:
    async with asking() as http:
        for path in ("/", *(f"/static/{name}" for name in FILES)):
            answer = await http.get(path)
            assert answer.status_code == 200
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "require-trusted-types-for 'script'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"].startswith("text/javascript")


async def test_a_file_that_the_browser_has_is_not_sent_again() -> None:
    async with asking() as http:
        first = await http.get("/static/page.css")
        again = await http.get("/static/page.css", headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["../page.py", "..%2fpage.py", "%2e%2e/page.py", "no.js", ""])
async def test_nothing_else_is_handed_out(name: str) -> None:
    async with asking() as http:
        assert (await http.get(f"/static/{name}")).status_code == 404


def test_the_page_needs_nothing_from_anywhere_else() -> None:
    for file in STATIC.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.[a-z]|@import|url\(", text), file.name


def test_the_page_has_no_inline_code_and_makes_no_markup_from_text() -> None:
    html = (STATIC / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", html)
    for file in STATIC.glob("*.js"):
        made = re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|"
            r"\beval\b|new Function|createContextualFragment|setHTML",
            file.read_text(),
        )
        assert made is None, file.name
