// The table of peers. Names that peers gave themselves are isolated and cut.

import { $, el, keyed, put, safe, set } from "./dom.js";
import { bytes, count, layers, NONE, plural, range, rate, short, time } from "./format.js";
import { healthOf } from "./swarm.js";

const COLUMNS = ["Peer", "Layers", "Health", "Memory", "Tokens/s", "Step", "Round trip", "Sessions", "Reputation"];
const NUMBERS = new Set(["Tokens/s", "Step", "Round trip", "Sessions"]);

export function showPeers(swarm, kind) {
  const peers = kind?.peers ?? [];
  keyed($("peer-rows"), peers, (peer) => peer.peer, row, update);
  $("peers").querySelector("table").hidden = !peers.length;
  $("peers-none").hidden = peers.length > 0;
  put($("peers-none"), swarm.gateway.why_not ? "Who is there is not known now." : "No peer is here yet.");
  const more = swarm.num_peers - swarm.peers.length;
  put($("peers-more"), more > 0 ? `and ${plural(more, "peer")} more` : "");
}

function row() {
  const cells = COLUMNS.map((name) =>
    el("td", { role: "cell", "data-name": name, class: NUMBERS.has(name) ? "number" : null }));
  const [peer, , health, memory, , , , sessions] = cells;
  peer.append(el("span", { class: "id" }), el("bdi", { class: "under" }));
  health.append(el("span", { class: "pill" }), el("bdi", { class: "under" }));
  memory.append(el("span", { class: "meter", "aria-hidden": "true" }, el("span")), el("span", { class: "under" }));
  sessions.append(el("span"), el("span", { class: "under" }));
  return el("tr", { role: "row" }, ...cells);
}

function update(node, peer) {
  const [who, held, health, memory, speed, step, trip, sessions, reputation] = node.children;
  const state = healthOf(peer);
  set(node, "data-state", state.name);
  set(who, "title", peer.peer);
  put(who.firstChild, short(peer.peer));
  put(who.lastChild, safe(peer.device_name || peer.device, 34));
  put(held, layers(range(peer.layers)));
  put(health.firstChild, state.text);
  put(health.lastChild, troubles(peer));
  showMemory(memory, peer);
  put(speed, rate(peer.tokens_per_s));
  put(step, time(peer.health?.step_s ?? peer.latency_s));
  put(trip, time(peer.rtt_s));
  put(sessions.firstChild, count(peer.health?.num_sessions));
  const load = peer.health?.device_load;
  put(sessions.lastChild, load > 0 ? `${Math.round(100 * load)} % busy` : "");
  const [text, name] = standing(peer.reputation);
  put(reputation, text);
  set(reputation, "data-state", name);
}

function troubles(peer) {
  const errors = Object.entries(peer.health?.errors ?? {}).slice(0, 2);
  return errors.map(([kind, number]) => `${count(number)} × ${safe(kind, 24)}`).join(", ");
}

function showMemory(cell, peer) {
  const total = peer.vram_total_bytes;
  const share = peer.health?.vram_used ?? (total ? 1 - peer.vram_free_bytes / total : 0);
  const used = Math.min(Math.max(share, 0), 1);
  cell.firstChild.firstChild.style.setProperty("width", `${(100 * used).toFixed(1)}%`);
  set(cell.firstChild, "data-state", used > 0.9 ? "bad" : null);
  put(cell.lastChild, `${bytes(used * total)} of ${bytes(total)}`);
}

function standing(seen) {
  if (!seen) return [NONE, "unknown"];
  const failures = Object.entries(seen.failures).map(([kind, number]) => `${count(number)} × ${safe(kind, 16)}`);
  if (!failures.length) return ["spotless", null];
  const backs = seen.back_off_s > 0 ? `, backs off ${time(seen.back_off_s)}` : "";
  return [failures.slice(0, 2).join(", ") + backs, seen.score >= 1 ? "bad" : "thin"];
}
