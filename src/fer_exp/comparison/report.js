"use strict";
// Everything here is a convenience: the page is complete without it.
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const create = (name, properties) => Object.assign(document.createElement(name), properties);

// Print with all details open.
addEventListener("beforeprint", () => all("details").forEach((details) => { details.open = true; }));

// Copy buttons beside commands.
for (const code of all("code.command")) {
  const button = create("button", { type: "button", textContent: "copy" });
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); } catch { document.execCommand("copy"); }
    button.textContent = "copied";
  });
  code.after(" ", button);
}

// Sort a table by a column: click its header.
for (const table of all("table.sortable")) {
  all("thead th", table).forEach((header, column) => {
    const button = create("button", { type: "button", className: "sort", textContent: header.textContent });
    header.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = header.getAttribute("aria-sort") === "ascending";
      all("th", header.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const key = (row) => row.cells[column].textContent;
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => key(a).localeCompare(key(b), "en", { numeric: true }));
      body.append(...(descending ? rows.reverse() : rows));
    });
  });
}

// Filter the rows of long tables of settings.
for (const table of all("table.filter")) {
  const input = create("input", { type: "search", placeholder: "filter rows", ariaLabel: "filter rows" });
  input.addEventListener("input", () => {
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.includes(input.value);
  });
  table.parentNode.before(input);
}

// The values of all visible groups at the epoch under the pointer.
const tip = create("div", { className: "tip", hidden: true });
document.body.append(tip);
const names = all("[data-name]").map((label) => label.dataset.name);
for (const figure of all("svg[data-epochs]")) {
  const { low, high, epochs } = figure.dataset;
  figure.addEventListener("pointermove", (event) => {
    const box = figure.getBoundingClientRect();
    const unit = all("input[name=axis]").find((input) => input.checked)?.value ?? "epochs";
    const left = 52, inner = 348, top = 26, bottom = 226; // the margins of plots/comparison.py
    const x = (((event.clientX - box.left) / box.width) * 430 - left) / inner;
    const found = [];
    for (const shape of all(".mean", figure)) {
      const group = shape.closest("[class^=g]");
      if (!shape.getBoundingClientRect().width || x <= 0 || x > 1) continue;
      const factor = unit === "epochs" ? 1 : Number(shape.parentNode.style.getPropertyValue(`--${unit}`));
      const points = shape.getAttribute("d").split(/[ML]/).slice(1).map((point) => point.split(" ").map(Number));
      const nearest = points.reduce((a, b) =>
        Math.abs(b[0] * factor - x * inner) < Math.abs(a[0] * factor - x * inner) ? b : a, points[0]);
      if (!nearest || Math.abs(nearest[0] * factor - x * inner) > inner / epochs + 6) continue;
      const value = Number(low) + ((bottom - nearest[1]) / (bottom - top)) * (high - low);
      found.push([value, Number(group.classList[0].slice(1)), Math.round((nearest[0] / inner) * epochs)]);
    }
    tip.hidden = !found.length;
    if (!found.length) return;
    const percent = figure.dataset.percent !== undefined;
    found.sort((a, b) => b[0] - a[0]);
    tip.replaceChildren(create("b", { textContent: `epoch ${found[0][2]}` }), ...found.slice(0, 12).map(([value, group]) =>
      create("div", { className: `g${group}`, textContent: `${names[group]}: ${percent ? (100 * value).toFixed(1) + " %" : value.toFixed(3)}` })));
    tip.style.left = `${Math.min(event.pageX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.pageY + 14}px`;
  });
  figure.addEventListener("pointerleave", () => { tip.hidden = true; });
}
