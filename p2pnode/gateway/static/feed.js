// The gateway's feed: followed as long as the page is looked at, and found again when it was lost.

import { askForKey, authorization } from "./key.js";
import { events } from "./sse.js";

const RETRY_MS = [250, 500, 1000, 2000, 4000];
const SILENT_MS = 40_000; // the gateway says something every 15 s

/** Calls `onEvent(name, value)`, and `onState(state, why)`: live, lost or paused. */
export async function follow(onEvent, onState) {
  let failures = 0;
  for (;;) {
    if (document.hidden) {
      onState("paused");
      await shown();
    }
    const why = await followOnce(onEvent, () => {
      failures = 0;
      onState("live");
    });
    if (document.hidden) continue;
    if (why === UNAUTHORIZED) {
      await askForKey();
      continue;
    }
    onState("lost", why);
    await sleep(RETRY_MS[Math.min(failures, RETRY_MS.length - 1)]);
    failures += 1;
  }
}

const UNAUTHORIZED = "unauthorized";

/** Returns why the feed has ended. */
async function followOnce(onEvent, onLive) {
  const ended = new AbortController();
  const hide = () => document.hidden && ended.abort();
  document.addEventListener("visibilitychange", hide);
  let timer = 0;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => ended.abort(), SILENT_MS);
  };
  try {
    alive();
    const headers = authorization();
    const response = await fetch("swarm/events", { headers, signal: ended.signal, cache: "no-store" });
    if (response.status === 401) return UNAUTHORIZED;
    if (!response.ok) return `it answers ${response.status}`;
    onLive();
    for await (const { event, data } of events(response, alive)) onEvent(event, JSON.parse(data));
    return "it has ended the connection";
  } catch (error) {
    if (!(error instanceof TypeError) && error.name !== "AbortError") throw error;
    return ended.signal.aborted ? "it has been silent" : "it cannot be reached";
  } finally {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", hide);
    ended.abort();
  }
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const shown = () =>
  new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => document.hidden || resolve(), { once: true });
  });
