// The log, live: rows that come are put on top, or counted while it is paused.
import { localiseTimes } from "./console.js";
import { duration, wordsOf } from "./texts.js";

const table = document.getElementById("rows");
const bar = document.querySelector("p.live");
const pause = document.getElementById("live-pause");
const news = document.getElementById("live-new");
const state = document.getElementById("live-state");
const MOST = 200;
const AGAIN_MS = 5000;

/**
 * @typedef {{id: string, at: number, key_name: string, model: string, provider: string, outcome: string, error: string | null,
 *   tokens_in: number, tokens_out: number, estimated: number, milliseconds: number, passed: [string, string][]}} Row
 */

/** @param {number} number */
function short(number) {
  return new Intl.NumberFormat(document.documentElement.lang, { notation: number >= 10000 ? "compact" : "standard", maximumFractionDigits: 1 }).format(number);
}

/** @param {Row} row @param {string} link @param {(begin: string, code: string) => string} word @returns {HTMLTableRowElement} */
function rendered(row, link, word) {
  const line = document.createElement("tr");
  line.className = "fresh";
  const time = document.createElement("time");
  time.dateTime = new Date(row.at).toISOString();
  const anchor = document.createElement("a");
  anchor.href = link + row.id;
  anchor.append(time);
  const outcome = document.createElement("span");
  outcome.className = row.outcome === "completed" ? "good" : row.outcome === "failed" ? "bad" : "odd";
  outcome.textContent = `${row.outcome === "completed" ? "●" : "✕"} ${row.error ? word("error_", row.error) : word("outcome_", row.outcome)}`;
  outcome.title = row.error ?? "";
  const upstream = [row.provider, ...row.passed.map(([name, reason]) => `⟵ ${name} (${word("error_", reason)})`)].join(" ");
  const tokens = `${row.estimated ? "≈ " : ""}${short(row.tokens_in)} → ${short(row.tokens_out)}`;
  const labels = [...document.querySelectorAll("#rows th")].map((head) => head.textContent ?? "");
  [anchor, row.key_name, row.model, upstream, outcome, tokens, duration(row.milliseconds)].forEach((content, place) => {
    const cell = document.createElement("td");
    cell.dataset.label = labels[place];
    if (place > 4) cell.className = "number";
    cell.append(content);
    line.append(cell);
  });
  return line;
}

if (table instanceof HTMLTableElement && table.dataset.feed && bar instanceof HTMLElement && pause && news && state) {
  const link = table.dataset.link ?? "";
  const word = wordsOf(table);
  /** @type {Row[]} */
  let waiting = [];
  let paused = false;
  const show = () => {
    for (const row of waiting) table.tBodies[0].prepend(rendered(row, link, word));
    localiseTimes(table);
    while (table.tBodies[0].rows.length > MOST) table.tBodies[0].deleteRow(-1);
    waiting = [];
    news.textContent = "";
  };
  /** @param {boolean} isLive */
  const tell = (isLive) => {
    bar.hidden = false;
    state.className = isLive ? "good" : "odd";
    state.textContent = (isLive ? state.dataset.live : state.dataset.away) ?? "";
  };
  // After a break, what came in the seconds before it is sent again.
  /** @param {Row} row */
  const isThere = (row) => table.querySelector(`a[href="${link}${row.id}"]`) || waiting.some((one) => one.id === row.id);
  let last = "";
  const follow = () => {
    const source = new EventSource(`${table.dataset.feed}&last=${last}`);
    source.addEventListener("open", () => tell(true));
    source.addEventListener("error", () => {
      // It comes back by itself, except from an answer that is no feed: the database is away, or the login has ended.
      if (source.readyState !== EventSource.CLOSED) return;
      tell(false);
      setTimeout(follow, AGAIN_MS);
    });
    source.addEventListener("message", (event) => {
      last = event.lastEventId;
      const row = JSON.parse(event.data);
      if (isThere(row)) return;
      waiting.push(row);
      if (waiting.length > MOST) waiting.shift();
      if (paused) news.textContent = (table.dataset.new ?? "").replace("{count}", String(waiting.length));
      else show();
    });
  };
  follow();
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = (paused ? pause.dataset.resume : pause.dataset.pause) ?? "";
    if (!paused) show();
  });
}
