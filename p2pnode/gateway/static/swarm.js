// What the page makes of a picture of the swarm; pure.

import { layers, range } from "./format.js";

/** How a peer is: `name` for style, `text` for people. */
export function healthOf(peer) {
  const health = peer.health;
  if (!health) return { name: "new", text: "announced" };
  if (health.liveness === "dead") return { name: "gone", text: "gone" };
  if (health.liveness === "suspect") return { name: "silent", text: "not answering" };
  if (health.is_draining) return { name: "leaving", text: "leaving" };
  return { name: "alive", text: "alive" };
}

/** Models by numerics class: only within one do blocks fit together. The gateway's own comes first. */
export function kinds(swarm) {
  const found = [];
  for (const model of swarm.models) {
    for (const dtype of new Set(model.coverage.map((each) => each.dtype))) {
      const peers = swarm.peers.filter((p) => p.fingerprint === model.fingerprint && p.dtype === dtype);
      const coverage = model.coverage
        .filter((each) => each.dtype === dtype)
        .map((each) => ({ ...range(each.layers), num: each.num_peers }));
      found.push({ key: `${model.fingerprint} ${dtype}`, model, dtype, peers, coverage });
    }
  }
  const isOwn = (kind) => kind.model.fingerprint === swarm.gateway.fingerprint;
  return found.sort((a, b) => isOwn(b) - isOwn(a) || b.peers.length - a.peers.length);
}

/** The layers that exactly `num` peers hold, as ranges. */
export function heldBy(kind, num) {
  return kind.coverage.filter((each) => each.num === num);
}

export const length = (ranges) => ranges.reduce((sum, each) => sum + each.stop - each.start, 0);

/** A few ranges in words: "layers 0–8 and 18–26". */
export function inWords(ranges) {
  const named = ranges.slice(0, 4).map(layers);
  if (ranges.length > 4) named.push("others");
  const last = named.pop();
  const word = length(ranges) === 1 ? "layer" : "layers";
  return `${word} ${named.length ? `${named.join(", ")} and ${last}` : last}`;
}
