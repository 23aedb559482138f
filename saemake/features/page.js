
"use strict";
// Sorts and searches the list of latents, and reads out activations. The page works without it.
(() => {
  const body = document.querySelector("tbody");
  if (!body) return;
  const search = document.getElementById("search");
  const count = document.getElementById("count");
  const cards = document.querySelector(".cards");
  const latents = [...body.rows].map((row) => {
    const card = document.getElementById(`latent-${row.dataset.latent}`);
    return { row, card, number: row.dataset.latent, text: card.textContent.toLowerCase() };
  });

  // The list and the cards have one order.
  function sort(column, direction) {
    const value = (latent) => Number(latent.row.cells[column].dataset.value);
    latents.sort((a, b) => direction * (value(a) - value(b)) || a.number - b.number);
    body.append(...latents.map((latent) => latent.row));
    cards.append(...latents.map((latent) => latent.card));
  }

  const heads = [...document.querySelectorAll("thead th[aria-sort]")];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") === "descending" ||
        (column === 0 && head.getAttribute("aria-sort") === "none");
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(column, ascending ? 1 : -1);
    });
  });

  // A space that a token shows as a sign is found as a space too.
  const plain = (text) => text.toLowerCase().replaceAll("\u2423", " ").trim();
  function filter() {
    const wanted = plain(search.value);
    let shown = 0;
    for (const { row, card, number, text } of latents) {
      const found = number === wanted || text.includes(wanted);
      row.hidden = card.hidden = !found;
      shown += found;
    }
    const all = latents.length.toLocaleString("en");
    count.textContent = wanted ? `${shown.toLocaleString("en")} of ${all} latents` : `${all} latents`;
  }
  search.addEventListener("input", filter);

  // A link to a latent that the search hides ends the search.
  function arrive() {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    if (target.hidden) {
      search.value = "";
      filter();
      target.scrollIntoView();
    }
    (target.querySelector("h3") || target).focus({ preventScroll: true });
  }
  addEventListener("hashchange", arrive);
  filter();
  arrive();

  // The note below a context says the activation of the token that the pointer or the keys are at.
  const text = (event) => event.target.closest?.(".text");
  function read(context, mark) {
    const note = context.nextElementSibling;
    note.dataset.said ??= note.textContent;
    context.querySelector(".read")?.classList.remove("read");
    mark?.classList.add("read");
    note.textContent = mark ? `\u201c${mark.textContent}\u201d ${mark.title}` : note.dataset.said;
  }
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest?.("mark");
    if (mark) read(mark.closest(".text"), mark);
  });
  document.addEventListener("pointerout", (event) => {
    const context = text(event);
    if (context && !context.contains(event.relatedTarget)) read(context, null);
  });
  document.addEventListener("focusout", (event) => {
    const context = text(event);
    if (context) read(context, null);
  });
  document.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const context = text(event);
    if (!step || !context) return;
    event.preventDefault();
    const marks = [...context.querySelectorAll("mark")];
    const at = marks.findIndex((mark) => mark.classList.contains("read"));
    const next = at < 0 ? (step > 0 ? 0 : marks.length - 1) : at + step;
    read(context, marks[Math.min(Math.max(next, 0), marks.length - 1)]);
  });
})();
