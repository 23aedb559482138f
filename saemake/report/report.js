"use strict";
// Sorts and filters the tables. The page works without it.
for (const section of document.querySelectorAll("section")) {
  const body = section.querySelector("tbody");
  if (!body) continue;
  const rows = [...body.rows];
  const heads = [...section.querySelectorAll("thead th")];
  const filter = section.querySelector("input");
  const count = section.querySelector(".count");

  // Numbers by size, words by letters; empty cells last.
  function compare(a, b, column, direction) {
    const [x, y] = [a.cells[column], b.cells[column]];
    if (!x.textContent || !y.textContent) return !x.textContent - !y.textContent;
    const order = x.dataset.value && y.dataset.value
      ? x.dataset.value - y.dataset.value
      : x.textContent.localeCompare(y.textContent, "en", { numeric: true });
    return direction * order;
  }

  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      rows.sort((a, b) => compare(a, b, column, ascending ? 1 : -1));
      body.append(...rows);
    });
  });

  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().trim().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !wanted.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    const all = rows.length.toLocaleString("en");
    count.textContent = shown === rows.length ? `${all} rows` : `${shown} of ${all} rows`;
  });
}
