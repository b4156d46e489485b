// The chat box: streams from this gateway's own API, as any client would.

import { $, el, printable, put, safe } from "./dom.js";
import { rate, time } from "./format.js";
import { askForKey, authorization } from "./key.js";
import { events } from "./sse.js";

const MAX_RESUMES = 5;
const RESUME_AFTER_MS = 1000;

let model = null;
let isChat = false;
let messages = [];
let running = null;

/** What the feed says of the gateway's model. */
export function useModel(gateway) {
  if (model === gateway.model && isChat === gateway.has_chat_template) return;
  model = gateway.model;
  isChat = gateway.has_chat_template;
  put($("chat-title"), isChat || !model ? "Ask the swarm" : "Write with the swarm");
  put($("prompt-label"), isChat ? "Your message" : "The beginning of a text");
  $("prompt").placeholder = isChat ? "Ask something" : "Once upon a time";
}

export function startChat() {
  $("ask").onsubmit = (event) => {
    event.preventDefault();
    send();
  };
  $("prompt").onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  $("stop").onclick = () => running?.abort();
  $("clear").onclick = () => {
    running?.abort();
    messages = [];
    for (const turn of $("talk").querySelectorAll(".turn")) turn.remove();
    $("clear").hidden = true;
  };
}

async function send() {
  const text = $("prompt").value || ($("talk").querySelector(".turn") ? "" : $("prompt").placeholder);
  if (!text.trim() || running) return;
  $("prompt").value = "";
  const answer = begin(text);
  running = new AbortController();
  busy(true);
  try {
    await stream(text, answer, running.signal);
  } finally {
    running = null;
    busy(false);
  }
}

function busy(isBusy) {
  $("send").hidden = isBusy;
  $("stop").hidden = !isBusy;
  $("talk").setAttribute("aria-busy", `${isBusy}`);
  $("clear").hidden = false;
}

/** The two bubbles of a turn, or the one of a text that goes on. */
function begin(text) {
  const words = el("span", { class: "words" });
  const note = el("p", { class: "under" });
  const asked = el("span", { class: "asked", dir: "auto", text: printable(text) });
  const body = el("div", { class: "answer", dir: "auto" }, ...(isChat ? [words] : [asked, words]));
  const turn = el("div", { class: "turn", "data-state": "running" }, ...(isChat ? [asked] : []), body, note);
  $("talk").append(turn);
  scroll();
  return { turn, words, note, text: "", tokens: 0, began: performance.now(), first: 0, last: 0 };
}

function scroll() {
  $("talk").scrollTop = $("talk").scrollHeight;
}

function question(text) {
  const common = {
    model,
    stream: true,
    stream_options: { include_usage: true },
    max_tokens: Number($("max-tokens").value) || 120,
    temperature: Number($("temperature").value) || 0,
  };
  if (!isChat) return ["v1/completions", { ...common, prompt: text }];
  return ["v1/chat/completions", { ...common, messages: [...messages, { role: "user", content: text }] }];
}

async function stream(text, answer, signal) {
  try {
    await asked(...question(text), answer, signal);
    if (isChat) messages.push({ role: "user", content: text }, { role: "assistant", content: answer.text });
    finish(answer, "done", "");
  } catch (error) {
    if (error.name === "AbortError") finish(answer, "done", "stopped");
    else if (error instanceof Refused || error instanceof TypeError) finish(answer, "failed", error.message);
    else throw error;
  }
}

class Refused extends Error {}

/** Reads the answer; one that a fault has cut goes on where it was, a few times. */
async function asked(path, body, answer, signal) {
  for (let tries = 0; ; tries += 1) {
    const response = await post(path, body, signal);
    const failure = await (response.ok ? read(response, answer) : refusal(response));
    if (!failure) return;
    if (!failure.resume_id || tries === MAX_RESUMES) throw new Refused(failure.message ?? "the answer was cut");
    put(answer.note, "cut by a fault; going on …");
    await new Promise((resolve) => setTimeout(resolve, RESUME_AFTER_MS));
    [path, body] = ["v1/resume", { id: failure.resume_id, stream: true }];
  }
}

async function post(path, body, signal) {
  for (;;) {
    const headers = { "Content-Type": "application/json", ...authorization() };
    const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body), signal });
    if (response.status !== 401) return response;
    await askForKey();
  }
}

async function refusal(response) {
  const said = await response.json().catch(() => null);
  return said?.error ?? { message: `the gateway answers ${response.status}` };
}

/** Returns the error when the answer was cut. */
async function read(response, answer) {
  for await (const { event, data } of events(response)) {
    if (data === "[DONE]") return null;
    const said = JSON.parse(data);
    if (event === "error" || said.error) return said.error ?? {};
    if (said.usage) answer.tokens = said.usage.completion_tokens;
    const [choice] = said.choices ?? [];
    add(answer, choice?.delta?.content ?? choice?.text ?? "");
  }
  return { message: "the answer was cut: the gateway has ended the connection" };
}

function add(answer, piece) {
  if (isChat && !answer.text) piece = piece.trimStart();
  if (!piece) return;
  answer.last = performance.now();
  answer.first ||= answer.last;
  answer.text += piece;
  const isAtEnd = $("talk").scrollHeight - $("talk").scrollTop - $("talk").clientHeight < 40;
  answer.words.append(printable(piece));
  if (isAtEnd) scroll();
}

function finish(answer, state, why) {
  answer.turn.dataset.state = state;
  const parts = [];
  if (answer.tokens) parts.push(`${answer.tokens} tokens`);
  if (answer.first) parts.push(`the first after ${time((answer.first - answer.began) / 1000)}`);
  const took = (answer.last - answer.first) / 1000;
  if (answer.tokens > 1 && took > 0) parts.push(`${rate((answer.tokens - 1) / took)} per second`);
  if (why) parts.push(safe(why, 300));
  put(answer.note, parts.join(", "));
  scroll();
}
