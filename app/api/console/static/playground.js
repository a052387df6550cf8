// The answer as it is typed out. What it consists of when it is complete comes as a tree of elements, not as HTML: the
// policy of our pages lets no script turn text into HTML (see app/api/console/markdown.py).
import { duration, wordsOf } from "./texts.js";

const form = document.getElementById("playground");
const stop = document.getElementById("stop");
const TAGS = new Set(["p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "em", "strong", "s", "br", "hr", "code", "pre",
  "table", "thead", "tbody", "tr", "th", "td", "a"]);
const TELLING = /^(x-|retry-after|anthropic-ratelimit-)/;
const SIGNS = { whole: "●", shortened: "◐", dropped: "✕" };

/**
 * @typedef {string | {tag: string, children?: Node_[], href?: string}} Node_
 * @typedef {{role: string, text: string, state: "whole" | "shortened" | "dropped"}} Part
 * @typedef {{text: string, earlier_parts: string[], size: number, limit: number, parts: Part[]}} Sent
 * @typedef {{kind: string, raw: string, text?: string, thought?: string, sent?: Sent, snippets?: Record<string, string>,
 *   tree?: Node_[] | null, calls?: {name: string, arguments: string}[], usage?: {prompt_tokens: number, completion_tokens: number},
 *   error?: {message: string, type: string, code: string | null}}} Told
 */

/** @param {Node_} node @returns {Node} */
function made(node) {
  if (typeof node === "string") return document.createTextNode(node);
  const element = document.createElement(TAGS.has(node.tag) ? node.tag : "span");
  if (element instanceof HTMLAnchorElement && node.href && /^(https?|mailto):/i.test(node.href)) {
    element.href = node.href;
    element.rel = "noopener noreferrer nofollow";
  }
  element.append(...(node.children ?? []).map(made));
  return element;
}

/** One of the two columns. */
class Column {
  /** @param {HTMLElement} section */
  constructor(section) {
    this.section = section;
  }

  /** @param {string} name @returns {HTMLElement} */
  part(name) {
    const found = this.section.querySelector(`[data-part="${name}"]`);
    if (!(found instanceof HTMLElement)) throw new Error(`no part ${name}`);
    return found;
  }

  /** @param {string} model @param {string} state */
  clear(model, state) {
    this.section.hidden = false;
    this.section.setAttribute("aria-busy", "true");
    const head = this.section.querySelector("h2");
    if (head) head.textContent = model;
    for (const name of ["answer", "thought", "calls", "size", "told", "sent", "headers", "raw"]) this.part(name).replaceChildren();
    for (const name of ["thoughts", "calls", "raws"]) this.part(name).hidden = true;
    this.part("answer").classList.add("plain");
    this.part("state").textContent = state;
    this.began = performance.now();
    this.first = 0;
  }

  /** @param {string} state */
  end(state) {
    this.section.removeAttribute("aria-busy");
    this.part("state").textContent = state;
  }

  /** @param {Headers} headers */
  headers(headers) {
    for (const [name, value] of headers) {
      if (!TELLING.test(name)) continue;
      const term = document.createElement("dt");
      const text = document.createElement("dd");
      term.textContent = name;
      text.textContent = value;
      this.part("headers").append(term, text);
    }
  }

  /** @param {Told} told */
  take(told) {
    this.part("raws").hidden = false;
    this.part("raw").append(told.raw);
    if (told.sent) this.sent(told.sent);
    if (told.text || told.thought) this.first ||= performance.now() - (this.began ?? 0);
    if (told.text) this.part("answer").append(told.text);
    if (told.thought) {
      this.part("thoughts").hidden = false;
      this.part("thought").append(told.thought);
    }
    if (told.snippets) {
      for (const [name, text] of Object.entries(told.snippets)) {
        const place = document.querySelector(`[data-snippet="${name}"]`);
        if (place) place.textContent = text;
      }
    }
    if (told.tree) {
      this.part("answer").classList.remove("plain");
      this.part("answer").replaceChildren(...told.tree.map(made));
    }
    if (told.calls?.length) {
      this.part("calls").hidden = false;
      this.part("calls").textContent = told.calls.map((call) => `${call.name}(${call.arguments})`).join("\n");
    }
  }

  /** @param {Sent} sent */
  sent(sent) {
    const { dataset } = this.section;
    const shortened = sent.parts.filter((part) => part.state !== "whole").length;
    this.part("size").textContent = `${sent.size}/${sent.limit}${shortened ? ` · ✕ ◐ ${shortened}` : ""}`;
    this.part("sent").textContent = [...sent.earlier_parts, sent.text].join("\n\n");
    this.part("told").replaceChildren(...sent.parts.map((part) => {
      const item = document.createElement("li");
      const sign = document.createElement("b");
      const text = document.createElement(part.state === "dropped" ? "del" : "span");
      item.className = part.state;
      sign.textContent = `${SIGNS[part.state]} ${dataset[part.state]}`;
      text.textContent = part.text;
      item.append(sign, ` ${part.role}: `, text);
      return item;
    }));
  }
}

/** @param {ReadableStream<Uint8Array>} body @returns {AsyncGenerator<Told>} */
async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let unread = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    unread += decoder.decode(value, { stream: true });
    const blocks = unread.split("\n\n");
    unread = blocks.pop() ?? "";
    for (const block of blocks) if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
  }
}

/** @param {HTMLFormElement} form @param {Column} column @param {string} model @param {string} number @param {AbortSignal} signal */
async function answer(form, column, model, number, signal) {
  const { dataset } = form;
  const word = wordsOf(form);
  column.clear(model, dataset.answering ?? "");
  try {
    const body = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (typeof value === "string") body.set(name, value);
    body.set("model", model);
    body.set("column", number);
    const response = await fetch(dataset.stream ?? "", { method: "POST", body, signal, headers: { "x-csrf-token": dataset.token ?? "" } });
    column.headers(response.headers);
    if (!response.ok || !response.body || !response.headers.get("content-type")?.startsWith("text/event-stream")) {
      const told = response.headers.get("content-type")?.startsWith("application/json") ? (await response.json()).error : null;
      // A page instead: to sign in again, or one that says what is wrong.
      const why = told ? `${word("error_", told.code ?? told.type)}: ${told.message}` : dataset.refused;
      column.end(`✕ ${response.ok ? "" : `HTTP ${response.status} · `}${why}`);
      return;
    }
    /** @type {Told | null} */
    let last = null;
    for await (const told of events(response.body)) column.take(last = told);
    if (last?.kind === "ending") {
      const all = performance.now() - (column.began ?? 0);
      const texts = column.section.dataset;
      const tokens = last.usage ? ` · ${last.usage.prompt_tokens} → ${last.usage.completion_tokens}` : "";
      column.end(`● ${dataset.done} · ${texts.first}: ${duration(column.first || all)} · ${texts.all}: ${duration(all)}${tokens}`);
    } else column.end(`✕ ${last?.error ? `${word("error_", last.error.code ?? last.error.type)}: ${last.error.message}` : dataset.lost}`);
  } catch (error) {
    column.end(`✕ ${signal.aborted ? dataset.stopped : `${dataset.lost} ${error}`}`);
  }
}

if (form instanceof HTMLFormElement && stop instanceof HTMLButtonElement) {
  /** @type {AbortController | null} */
  let running = null;
  stop.addEventListener("click", () => running?.abort());
  form.addEventListener("submit", async (event) => {
    const fields = new FormData(form);
    if (!fields.get("stream")) return; // answered as a whole, in a page of its own
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    stop.hidden = false;
    const answers = [];
    for (const [number, name] of [["1", "model"], ["2", "model2"]]) {
      const section = document.getElementById(`result-${number}`);
      const model = String(fields.get(name) ?? "");
      if (!section) continue;
      if (model) answers.push(answer(form, new Column(section), model, number, running.signal));
      else section.hidden = true;
    }
    await Promise.all(answers);
    running = null;
    stop.hidden = true;
  });
}
