// Light, dark, or as the system: kept in this browser.

import { $, put, set } from "./dom.js";

const NAME = "p2pnode-theme";
const THEMES = { system: "◐", light: "○", dark: "●" };

export function startTheme() {
  use(localStorage.getItem(NAME) ?? "system");
  $("theme").onclick = () => {
    const names = Object.keys(THEMES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % names.length];
    localStorage.setItem(NAME, next);
    use(next);
  };
}

function use(name) {
  const known = name in THEMES ? name : "system";
  set(document.documentElement, "data-theme", known);
  put($("theme").firstElementChild, THEMES[known]);
  set($("theme"), "aria-label", `Colours: ${known === "system" ? "as the system" : known}`);
}
