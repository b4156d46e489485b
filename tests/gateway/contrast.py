"""How well text stands out, by the formula of WCAG 2: every text on the page against what is behind
it.
"""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

LEAST = 4.5
"""For text of ordinary size (WCAG 2.2, 1.4.3)."""

_TEXTS = Path(__file__).with_suffix(".js").read_text()


def too_faint(page: Page) -> list[str]:
    """The texts below `LEAST`; patterns and gradients count as what is behind them."""
    found: list[str] = page.evaluate(_TEXTS, LEAST)
    return found
