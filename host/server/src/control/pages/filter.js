// Shows the operations whose name, path or summary holds every word that is typed. Without it the page is whole and only longer.
"use strict";
const input = document.getElementById("filter");
const count = document.getElementById("count");
const rows = [...document.querySelectorAll("[data-search]")];
const rest = [...document.querySelectorAll("[data-rest]")];
const groups = [...document.querySelectorAll("[data-group]")];
function apply() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of rows) {
    row.hidden = !words.every((word) => row.dataset.search.includes(word));
    if (!row.hidden && row.tagName === "SECTION") shown += 1;
  }
  for (const group of groups) group.hidden = !group.querySelector("[data-search]:not([hidden])");
  for (const part of rest) part.hidden = words.length > 0;
  count.textContent = words.length ? `${shown} shown` : "";
}
input.addEventListener("input", apply);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== input) {
    event.preventDefault();
    input.focus();
  }
});
// A link leads to its place also while that is filtered away.
document.addEventListener("click", (event) => {
  const link = event.target.closest("main a[href^='#'], nav a[href='#about'], nav a[href='#types'], nav a[href='#codes']");
  if (link && input.value) {
    input.value = "";
    apply();
  }
});
document.getElementById("search").hidden = false;
// A browser that comes back to the page keeps what was typed.
apply();
