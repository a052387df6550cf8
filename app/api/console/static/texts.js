// What pages say and scripts write, too: durations, and words for the codes of outcomes and errors.

/** @param {number} milliseconds */
export function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

/**
 * The words that a page has for codes, in its language; a code without any stands for itself.
 * @param {HTMLElement} element Has them as `data-words`.
 * @returns {(begin: string, code: string) => string}
 */
export function wordsOf(element) {
  /** @type {Record<string, string>} */
  const words = JSON.parse(element.dataset.words ?? "{}");
  return (begin, code) => words[begin + code] ?? code;
}
