// Everything that is shown passes through here: text and attributes, never markup.

const SVG = "http://www.w3.org/2000/svg";

// What steers, reorders or hides text: control and format characters, lone surrogates, private use,
// line separators, odd spaces, marks that pile up. The same as `p2pnode.log.escape` shows.
const UNSAFE = /[\p{C}\p{Zl}\p{Zp}]|[^ \P{Zs}]|\p{Me}|(?<=\p{M}\p{M})\p{M}/gu;

/** A stranger's text on one line, at most `limit` characters. */
export function safe(text, limit = 80) {
  const cut = [...String(text).slice(0, 4 * limit)];
  const shown = cut.slice(0, limit).join("").replace(UNSAFE, escaped);
  return cut.length > limit || shown.length > 2 * limit ? `${[...shown].slice(0, limit - 1).join("")}…` : shown;
}

function escaped(char) {
  return `\\u{${char.codePointAt(0).toString(16)}}`;
}

/** Generated text: any script and layout, but nothing that hides or reorders what is around it. */
export function printable(text) {
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, (char) => ("\n\t".includes(char) ? char : escaped(char)));
}

export const $ = (id) => document.getElementById(id);

/** An element: `class`, `text` and attributes; children are elements. */
export function el(tag, { text, ...attributes } = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) set(node, name, value);
  if (text !== undefined) node.textContent = text;
  node.append(...children);
  return node;
}

/** The same in SVG. */
export function svg(tag, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

/** An attribute; `null` and `false` take it away. Written only when it changes. */
export function set(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value === true ? "" : value))
    node.setAttribute(name, value === true ? "" : value);
}

/** The text of an element; written only when it changes. */
export function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Where something lies on a scale from 0 to `total`, in per cent. */
export function place(node, start, stop, total) {
  const share = (value) => `${(100 * Math.min(Math.max(value / total, 0), 1)).toFixed(3)}%`;
  node.style.setProperty("left", share(start));
  node.style.setProperty("width", share(stop - start));
}

/** Makes the children of `parent` those of `items`, one per key: what stays, stays the same element. */
export function keyed(parent, items, keyOf, create, update) {
  const before = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  const seen = new Set();
  let next = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    if (seen.has(key)) continue;
    seen.add(key);
    let node = before.get(key);
    if (node) before.delete(key);
    else {
      node = create(item);
      node.dataset.key = key;
    }
    if (node === next) next = node.nextElementSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  for (const node of before.values()) node.remove();
}
