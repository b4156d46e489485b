// The chain of a request, and what each hop costs a token: network, waiting, computing.

import { $, el, keyed, place, put, set } from "./dom.js";
import { layers, plural, range, rate, short, time } from "./format.js";

const KINDS = ["way", "queue", "compute"];
let picked = null;

/** The request that is shown: the one picked, else the newest. */
export function shownRun(runs) {
  return runs.find((run) => run.id === picked) ?? runs[0] ?? null;
}

export function showRequests(runs, onPick) {
  const shown = shownRun(runs);
  set($("request"), "data-outcome", shown?.outcome ?? "none");
  $("runs").hidden = runs.length < 2;
  keyed($("runs"), runs.slice(0, 8), (run) => run.id, (run) => button(run, onPick), (node, run) => {
    put(node, `${run.id.slice(0, 4)} · ${run.num_tokens}`);
    set(node, "aria-pressed", `${run === shown}`);
    set(node, "aria-label", `Request ${run.id.slice(0, 4)}, ${run.outcome}, ${plural(run.num_tokens, "token")}`);
    set(node, "data-outcome", run.outcome);
  });
  put($("request-says"), says(shown));
  showHops(shown?.hops ?? []);
}

function button(run, onPick) {
  const node = el("button", { type: "button" });
  node.onclick = () => {
    picked = run.id;
    onPick();
  };
  return node;
}

const OUTCOMES = { running: "Running", done: "Done", cancelled: "Cancelled", failed: "Failed" };

function says(run) {
  if (!run) return "No request yet. Ask something, and see which way it takes.";
  const parts = [OUTCOMES[run.outcome] ?? run.outcome, plural(run.num_tokens, "token")];
  if (run.ttft_s !== null) parts.push(`the first after ${time(run.ttft_s)}`);
  if (run.tokens_per_s > 0) parts.push(`then ${rate(run.tokens_per_s)} per second`);
  if (run.failovers) parts.push(plural(run.failovers, "failover"));
  if (run.hedges) parts.push(plural(run.hedges, "hedge"));
  return parts.join(", ");
}

function showHops(hops) {
  const costs = hops.map((hop) => [hop.way_s ?? 0, hop.queue_s, hop.compute_s]);
  const totals = costs.map((parts) => sum(parts));
  const total = sum(totals) || 1;
  const rows = hops.map((hop, index) => ({ hop, index, parts: costs[index], began: sum(totals.slice(0, index)) }));
  keyed($("hops"), rows, ({ hop, index }) => `${index} ${hop.peer}`, hopRow, (node, each) => updateHop(node, each, total));
  const sums = KINDS.map((_, kind) => sum(costs.map((parts) => parts[kind])));
  const last = $("hops-sum") ?? $("hops").after(el("p", { id: "hops-sum" }));
  put(
    last ?? $("hops-sum"),
    hops.length ? `${time(sum(sums))} per step: ${time(sums[0])} network, ${time(sums[1])} waiting, ${time(sums[2])} computing` : "",
  );
}

const sum = (values) => values.reduce((total, each) => total + each, 0);

function hopRow() {
  const parts = KINDS.map((kind) => el("span", { class: `part ${kind}` }));
  return el(
    "li",
    {},
    el("span", { class: "who" }, el("b"), el("span", { class: "id" }), el("span", { class: "layers" })),
    el("span", { class: "track", "aria-hidden": "true" }, ...parts),
    el("span", { class: "cost" }),
    el("span", { class: "hidden" }),
  );
}

function updateHop(node, { hop, index, parts, began }, total) {
  const [who, track, cost, words] = node.children;
  put(who.children[0], `${index + 1}`);
  put(who.children[1], short(hop.peer));
  put(who.children[2], layers(range(hop.layers)));
  let at = began;
  KINDS.forEach((_, kind) => {
    place(track.children[kind], at, at + parts[kind], total);
    at += parts[kind];
  });
  put(cost, time(sum(parts)));
  put(words, `: ${time(parts[0])} network, ${time(parts[1])} waiting, ${time(parts[2])} computing`);
}
