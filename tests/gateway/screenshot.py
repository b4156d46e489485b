"""The picture of the status page in the README: a swarm in memory, which tells a story meanwhile.

python -m tests.gateway.screenshot FILE
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from tests.gateway.pages import Looking, Serving, SwarmApp, chromium
from tests.support.models import BUILTIN

SIZE = {"width": 1280, "height": 832}
RANGES = ("0-8", "9-17", "18-26", "0-13", "9-22", "14-26")
NUM_TOKENS = 80


def take(browser: Browser, file: Path, cache: Path) -> None:
    """Six nodes of the built-in model, the last of which dies; a story through the others."""
    app = SwarmApp(BUILTIN, cache, *RANGES)
    with Serving(app.open()) as serving, Looking(browser, serving.url, viewport=SIZE) as looking:
        looking.wait_live()

        async def kill() -> None:
            app.swarm.kill(app.swarm.nodes[-1])

        serving.run(kill())
        looking.page.get_by_label("Tokens", exact=True).fill(f"{NUM_TOKENS}")
        looking.page.get_by_label("Temperature").fill("0")
        looking.page.get_by_label("Your message").fill("Once upon a time, a little girl")
        looking.page.get_by_role("button", name="Send").click()
        looking.wait_text("#talk .turn[data-state='done'] .under", "tokens")
        looking.wait_text("#request-says", "Done")
        looking.wait_text("#bars li", "gone")
        looking.page.mouse.move(0, 0)
        looking.page.evaluate("document.activeElement.blur()")
        looking.page.screenshot(path=file, animations="disabled")


if __name__ == "__main__":
    with chromium() as browser, tempfile.TemporaryDirectory() as cache:
        take(browser, Path(sys.argv[1]), Path(cache))
