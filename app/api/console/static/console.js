// What every page gains from scripts: times as the reader's country writes them, copying.
const [language] = document.documentElement.lang.split("-");
const country = navigator.languages.find((one) => one.split("-")[0] === language) ?? language;
const format = new Intl.DateTimeFormat(country, { dateStyle: "short", timeStyle: "medium" });

/** @param {ParentNode} within */
export function localiseTimes(within) {
  for (const element of within.querySelectorAll("time")) {
    const at = new Date(element.dateTime);
    if (!Number.isNaN(at.getTime())) {
      element.title = element.dateTime;
      element.textContent = format.format(at);
    }
  }
}

localiseTimes(document);

for (const button of document.querySelectorAll("button[data-copy]")) {
  if (!(button instanceof HTMLButtonElement) || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copy ?? "");
    await navigator.clipboard.writeText(source?.textContent ?? "");
    button.textContent = button.dataset.done ?? "✓";
  });
}

// A link that signs in, opened by whoever has signed in: its ticket is of no use, and no address is to keep it.
if (/^#[\w-]{43}$/.test(location.hash) && document.querySelector("nav")) history.replaceState(null, "", location.pathname + location.search);

// On a phone the menu is wider than the page: show where the reader is.
document.querySelector("nav a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });

// A second click would send a form again, and show the second answer: not the secret that the first one made.
const SENDING_MS = 5000;
/** @type {WeakMap<EventTarget, number>} */
const sentAt = new WeakMap();
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || !(form instanceof HTMLFormElement) || form.method !== "post") return;
  if (event.timeStamp - (sentAt.get(form) ?? -Infinity) < SENDING_MS) event.preventDefault();
  else sentAt.set(form, event.timeStamp);
});
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => sentAt.delete(form)));

// After a `g`, a letter leads to a page: `g k` to the keys.
/** @type {Record<string, string>} */
const PAGES = { o: "/", r: "/requests", p: "/playground", k: "/keys", j: "/projects", s: "/sessions", u: "/upstreams", w: "/workers", e: "/settings", c: "/audit" };
let wentAt = -Infinity;

/** @param {string} key */
function leadTo(key) {
  const links = [...document.querySelectorAll("nav a")];
  const found = links.find((link) => link instanceof HTMLAnchorElement && PAGES[key] && new URL(link.href).pathname.endsWith(`/console${PAGES[key]}`));
  if (found instanceof HTMLAnchorElement) found.click();
}

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const isTyping = target instanceof HTMLInputElement || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.timeStamp - wentAt < 1500) leadTo(event.key);
  wentAt = event.key === "g" ? event.timeStamp : -Infinity;
  if (event.key !== "/") return;
  const search = document.querySelector("input[type=search], .filters select");
  if (search instanceof HTMLElement) {
    event.preventDefault();
    search.focus();
  }
});
