// The four figures at the top.

import { $, put, safe, set, svg } from "./dom.js";
import { count, NONE, plural, rate } from "./format.js";
import { healthOf, heldBy, length } from "./swarm.js";

export function showSummary(swarm, kind) {
  put($("model"), kind ? `${safe(kind.model.model, 60)}, ${plural(kind.model.num_layers, "layer")}` : "");
  showLayers(kind);
  showPeers(swarm);
  const sessions = swarm.peers.map((peer) => peer.health?.num_sessions ?? 0);
  put($("sum-sessions"), count(Math.max(0, ...sessions)));
  const waiting = swarm.peers.reduce((sum, peer) => sum + (peer.health?.queue_depth ?? 0), 0);
  put($("sum-sessions-under"), waiting ? `${plural(waiting, "step")} waiting` : "on the busiest peer");
}

function showLayers(kind) {
  const total = kind ? kind.model.num_layers : 0;
  const missing = kind ? length(heldBy(kind, 0)) : 0;
  const thin = kind ? length(heldBy(kind, 1)) : 0;
  put($("sum-layers"), kind ? `${count(total - missing)} of ${count(total)}` : NONE);
  const least = kind ? Math.min(...kind.coverage.map((each) => each.num)) : 0;
  const calm = kind ? `${least} peers or more for each` : "no model is served";
  put($("sum-layers-under"), missing ? `${count(missing)} missing` : thin ? `${count(thin)} on one peer only` : calm);
  set($("sum-layers-under"), "data-state", missing ? "bad" : thin ? "thin" : null);
}

function showPeers(swarm) {
  const states = swarm.peers.map((peer) => healthOf(peer).name);
  const num = (...names) => states.filter((name) => names.includes(name)).length;
  const there = num("alive", "new") + swarm.num_peers - swarm.peers.length;
  put($("sum-peers"), count(there));
  const others = [
    [num("leaving"), "leaving"],
    [num("silent"), "not answering"],
    [num("gone"), "gone"],
  ].filter(([number]) => number);
  const said = others.map(([number, word]) => `${number} ${word}`).join(", ");
  put($("sum-peers-under"), said || (there ? "all are there" : "nobody is here"));
  set($("sum-peers-under"), "data-state", num("silent", "gone") ? "bad" : null);
}

const WINDOW_S = 2;
const SECONDS = 60;
const samples = []; // [seconds, tokens so far]
const history = new Array(SECONDS).fill(0);

/** The tokens that this gateway has given out so far. */
export function noteTokens(total) {
  const now = performance.now() / 1000;
  if (samples.length && total < samples.at(-1)[1]) samples.length = 0; // the gateway was started anew
  samples.push([now, total]);
}

/** Once per second: the rate now, and the line of the last minute. */
export function tickRate() {
  const now = performance.now() / 1000;
  while (samples.length > 1 && samples[1][0] <= now - WINDOW_S) samples.shift();
  const gained = samples.length ? samples.at(-1)[1] - samples[0][1] : 0;
  const perSecond = gained / WINDOW_S;
  history.shift();
  history.push(perSecond);
  put($("sum-rate"), rate(perSecond));
  const most = Math.max(...history);
  put($("sum-rate-under"), most > 0 ? `${rate(most)} at most in a minute` : "nothing in the last minute");
  drawLine(most);
}

function drawLine(most) {
  const chart = $("spark");
  set(chart, "data-flat", most === 0);
  const height = (value) => 40 - 36 * (most > 0 ? value / most : 0);
  const points = history.map((value, index) => `${index},${height(value).toFixed(1)}`).join(" ");
  set(chart, "viewBox", `0 0 ${SECONDS - 1} 42`);
  if (!chart.firstChild) chart.append(svg("polygon", { class: "area" }), svg("polyline", { class: "line" }));
  set(chart.firstChild, "points", `0,42 ${points} ${SECONDS - 1},42`);
  set(chart.lastChild, "points", points);
}
