// The status page: follows the feed and hands what it says to the parts.

import { startChat, useModel } from "./chat.js";
import { showCoverage } from "./coverage.js";
import { $, el, keyed, put, safe, set } from "./dom.js";
import { follow } from "./feed.js";
import { showPeers } from "./peers.js";
import { showRequests, shownRun } from "./requests.js";
import { noteTokens, showSummary, tickRate } from "./summary.js";
import { kinds } from "./swarm.js";
import { startTheme } from "./theme.js";

let swarm = null;
let runs = [];

const ON_EVENT = {
  swarm(said) {
    swarm = said;
    useModel(said.gateway);
    draw();
  },
  requests(said) {
    runs = said.requests;
    noteTokens(said.num_tokens);
    draw();
  },
};

function draw() {
  if (!swarm) return;
  const all = kinds(swarm);
  const kind = all.find((each) => each.key === $("models").value) ?? all[0] ?? null;
  showChoice(all, kind);
  showNotice();
  showSummary(swarm, kind);
  showRequests(runs, draw);
  showCoverage(swarm, kind, shownRun(runs)?.hops ?? []);
  showPeers(swarm, kind);
  put($("software"), safe(swarm.gateway.software, 40));
}

function showChoice(all, kind) {
  $("pick-model").hidden = all.length < 2;
  keyed($("models"), all, (each) => each.key, (each) => el("option", { value: each.key }), (node, each) =>
    put(node, `${safe(each.model.model, 40)} · ${safe(each.dtype, 20)}`));
  if (kind) $("models").value = kind.key;
}

let lostBecause = "";

function showNotice() {
  const why = swarm?.gateway.why_not;
  const text = lostBecause || (why ? `The gateway is in no swarm: ${safe(why, 300)}` : "");
  $("notice").hidden = !text;
  put($("notice"), text);
}

const LIVE = { live: "Live", lost: "No connection", paused: "Paused" };

function onState(state, why) {
  set($("live"), "data-state", state);
  put($("live-text"), LIVE[state]);
  set(document.body, "data-stale", state === "lost");
  const since = new Date().toLocaleTimeString();
  if (state !== "lost") lostBecause = "";
  else lostBecause ||= `No news from the gateway since ${since}: ${why}. What you see is how it was then; trying again.`;
  showNotice();
}

startTheme();
startChat();
$("models").onchange = draw;
setInterval(tickRate, 1000);
tickRate();
follow((name, value) => ON_EVENT[name]?.(value), onState);
