// The map: a row per peer, a column per layer, and above them how many peers hold each layer.

import { $, el, keyed, place, put, set } from "./dom.js";
import { count, layers, range, short } from "./format.js";
import { healthOf, heldBy, inWords } from "./swarm.js";

/** `hops`: of the request that is shown. */
export function showCoverage(swarm, kind, hops) {
  put($("coverage-says"), swarm.gateway.why_not ? "The gateway is in no swarm at the moment." : says(kind));
  set($("coverage-says"), "data-state", state(kind));
  $("map").hidden = !kind;
  if (!kind) return;
  const total = kind.model.num_layers;
  const most = Math.max(2, ...kind.coverage.map((each) => each.num));
  keyed($("depths"), kind.coverage, (each) => each.start, () => el("span"), (node, each) => {
    place(node, each.start, each.stop, total);
    node.style.setProperty("--share", each.num ? each.num / most : 1);
    set(node, "data-depth", Math.min(each.num, 2));
    put(node, count(each.num));
  });
  const weak = kind.coverage.filter((each) => each.num < 2);
  keyed($("stripes"), weak, (each) => each.start, () => el("span"), (node, each) => {
    place(node, each.start, each.stop, total);
    set(node, "data-depth", each.num);
  });
  keyed($("bars"), kind.peers, (peer) => peer.peer, row, (node, peer) => updateRow(node, peer, total, hops));
  const step = stepOf(total);
  const ticks = Array.from({ length: Math.ceil(total / step) }, (_, index) => index * step);
  keyed($("ticks"), ticks, (layer) => layer, (layer) => el("span", { text: `${layer}` }), (node, layer) =>
    place(node, layer, layer + 1, total));
  $("map").style.setProperty("--cell", `${(100 * step) / total}%`);
}

function state(kind) {
  if (!kind) return null;
  return heldBy(kind, 0).length ? "bad" : heldBy(kind, 1).length ? "thin" : null;
}

function says(kind) {
  if (!kind) return "Nobody serves a model here yet. Be the first: p2pnode serve --layers FIRST-LAST";
  const missing = heldBy(kind, 0);
  const thin = heldBy(kind, 1);
  if (missing.length) {
    const [first] = missing;
    const command = `p2pnode serve --layers ${first.start}-${first.stop - 1}`;
    return `Nobody serves ${inWords(missing)}: no answer is possible until somebody does. ${command}`;
  }
  if (thin.length) return `One peer alone holds ${inWords(thin)}: when it goes, answers wait for another.`;
  return "Every layer is held by two peers or more: any one of them may go.";
}

function row() {
  return el(
    "li",
    { class: "row" },
    el("span", { class: "who", "aria-hidden": "true" }, el("b"), el("span")),
    el("span", { class: "track", "aria-hidden": "true" }, el("span", { class: "bar" }, el("span", { class: "used" }), el("span", { class: "label" }))),
    el("span", { class: "hidden" }),
  );
}

function updateRow(node, peer, total, hops) {
  const [who, track, words] = node.children;
  const [bar] = track.children;
  const [used, label] = bar.children;
  const held = range(peer.layers);
  const health = healthOf(peer);
  const index = hops.findIndex((hop) => hop.peer === peer.peer);
  set(node, "data-state", health.name);
  set(node, "data-hop", index >= 0);
  put(who.firstChild, index >= 0 ? `${index + 1}` : "");
  put(who.lastChild, short(peer.peer));
  place(bar, held.start, held.stop, total);
  used.hidden = index < 0;
  if (index >= 0) {
    const part = range(hops[index].layers);
    place(used, part.start - held.start, part.stop - held.start, held.stop - held.start);
  }
  const isWell = health.name === "alive" || health.name === "new";
  put(label, isWell ? layers(held) : `${layers(held)} · ${health.text}`);
  const role = index >= 0 ? `, hop ${index + 1} of the request that is shown` : "";
  put(words, `Peer ${short(peer.peer)}, layers ${layers(held)}, ${health.text}${role}`);
}

/** The distance of the lines and numbers: about ten of them. */
function stepOf(total) {
  return [1, 2, 3, 4, 5, 8, 10, 16, 20, 25, 50, 100, 200, 500].find((step) => total / step <= 10) ?? 1000;
}
