// Figures for people. What a peer claims may be absurd: everything here stays short.

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
export const NONE = "–";
const MOST = 1e15;

const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  if (!isKnown(value)) return NONE;
  return value > MOST ? "> 10¹⁵" : compact.format(value);
}

export function rate(value) {
  if (!isKnown(value)) return NONE;
  if (value >= 100 || Number.isInteger(value)) return count(Math.round(value));
  return value.toFixed(1);
}

export function time(seconds) {
  if (!isKnown(seconds)) return NONE;
  const ms = 1000 * seconds;
  if (ms >= 1000) return seconds > 9999 ? "> 9999 s" : `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  return ms >= 100 ? `${ms.toFixed(0)} ms` : `${ms.toFixed(1)} ms`;
}

export function bytes(value) {
  if (!isKnown(value)) return NONE;
  const gb = value / 1e9;
  return gb > 1e6 ? "> 1 PB" : `${gb.toFixed(gb < 10 ? 1 : 0)} GB`;
}

export function plural(number, word) {
  return `${count(number)} ${word}${number === 1 ? "" : "s"}`;
}

/** `{ start, stop }` of "0-8": half-open, as in the code. */
export function range(layers) {
  const [first, last] = layers.split("-").map(Number);
  return { start: first, stop: last + 1 };
}

/** The inverse; "5" for "5-5". */
export function layers({ start, stop }) {
  return stop - start === 1 ? `${start}` : `${start}-${stop - 1}`;
}

/** The last 8 characters of a peer id. */
export const short = (peer) => peer.slice(-8);
