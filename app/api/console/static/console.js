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

document.addEventListener("keydown", (event) => {
  const target = event.target;
  const isTyping = target instanceof HTMLInputElement || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement;
  if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey) return;
  const search = document.querySelector("input[type=search], .filters select");
  if (search instanceof HTMLElement) {
    event.preventDefault();
    search.focus();
  }
});
