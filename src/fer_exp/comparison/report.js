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
for (const figure of all("svg[data-epoch]")) {
  const { zero, slope, epoch, percent } = figure.dataset;
  figure.addEventListener("pointermove", (event) => {
    const found = [];
    for (const shape of all(".mean", figure)) {
      if (!shape.getBoundingClientRect().width) continue; // a hidden group
      const pointer = new DOMPoint(event.clientX, event.clientY).matrixTransform(shape.getScreenCTM().inverse());
      const points = shape.getAttribute("d").split(/[ML]/).slice(1).map((point) => point.split(" ").map(Number));
      const distance = (point) => Math.abs(point[0] - pointer.x);
      const [x, y] = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      if (distance([x]) > epoch) continue;
      const group = Number(shape.closest("[class^=g]").classList[0].slice(1));
      found.push([Number(zero) + slope * y, group, Math.round(x / epoch)]);
    }
    tip.hidden = !found.length;
    if (!found.length) return;
    found.sort((a, b) => b[0] - a[0]);
    tip.replaceChildren(create("b", { textContent: `epoch ${found[0][2]}` }), ...found.slice(0, 12).map(([value, group]) =>
      create("div", { className: `g${group}`, textContent: `${names[group]}: ${percent === "1" ? (100 * value).toFixed(1) + " %" : value.toFixed(3)}` })));
    tip.style.left = `${Math.min(event.pageX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${event.pageY + 14}px`;
  });
  figure.addEventListener("pointerleave", () => { tip.hidden = true; });
}
