// The API key, where the gateway asks for one: kept for this tab only.

import { $ } from "./dom.js";

const NAME = "p2pnode-key";

export function authorization() {
  const key = sessionStorage.getItem(NAME);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Shows the form and returns when a key was given. */
export function askForKey() {
  const form = $("ask-key");
  form.hidden = false;
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      sessionStorage.setItem(NAME, $("key").value.trim());
      $("key").value = "";
      form.hidden = true;
      resolve();
    };
  });
}
