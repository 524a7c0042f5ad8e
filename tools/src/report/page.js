
"use strict";
// The table of concepts, with search, sorting and paging. Names are inserted as text, never as HTML.
(() => {
  const { rows, samples } = JSON.parse(document.getElementById("data").textContent);
  const PAGE = 50;
  const body = document.querySelector("#concepts tbody");
  const heads = [...document.querySelectorAll("#concepts thead th")];
  const search = document.getElementById("search");
  const status = document.getElementById("status");
  const more = document.getElementById("more");
  const number = new Intl.NumberFormat("en");
  const share = new Intl.NumberFormat("en", { style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2 });
  const words = new Intl.Collator("en", { numeric: true });
  // A row is [concept, mentions, samples, shards, companion, samples with both]; its index + 1 is its rank.
  const all = rows.map((row, at) => ({ row, rank: at + 1, folded: row[0].toLowerCase() }));
  const orders = {
    rank: (x, y) => x.rank - y.rank,
    concept: (x, y) => words.compare(x.row[0], y.row[0]),
    mentions: (x, y) => x.row[1] - y.row[1],
    samples: (x, y) => x.row[2] - y.row[2],
    share: (x, y) => x.row[2] - y.row[2],
    shards: (x, y) => x.row[3] - y.row[3],
    companion: (x, y) => words.compare(x.row[4] || "\uffff", y.row[4] || "\uffff"),
  };
  let order = "rank", falling = false, shown = PAGE;

  const cell = (row, tag, text, style) => {
    const at = row.appendChild(document.createElement(tag));
    if (style) at.className = style;
    at.append(...(Array.isArray(text) ? text : [text]));
    return at;
  };
  const name = (text) => {
    const at = document.createElement("bdi");
    at.textContent = text;
    return at;
  };
  const draw = () => {
    const wanted = search.value.trim().toLowerCase();
    const matching = wanted ? all.filter((one) => one.folded.includes(wanted)) : all.slice();
    matching.sort((x, y) => (falling ? -1 : 1) * orders[order](x, y) || x.rank - y.rank);
    body.replaceChildren(...matching.slice(0, shown).map(({ row, rank }) => {
      const line = document.createElement("tr");
      cell(line, "td", number.format(rank), "number");
      cell(line, "th", name(row[0])).scope = "row";
      cell(line, "td", number.format(row[1]), "number");
      cell(line, "td", number.format(row[2]), "number optional");
      cell(line, "td", share.format(samples ? row[2] / samples : 0), "number");
      cell(line, "td", number.format(row[3]), "number optional");
      const both = document.createElement("small");
      both.textContent = ` ${number.format(row[5])}`;
      cell(line, "td", row[4] ? [name(row[4]), both] : "–", "optional");
      return line;
    }));
    const left = matching.length - Math.min(shown, matching.length);
    const of = wanted ? `${number.format(matching.length)} of ${number.format(all.length)} concepts match` : `${number.format(all.length)} concepts`;
    status.textContent = left ? `${of}, ${number.format(shown)} shown` : of;
    more.hidden = left === 0;
    more.textContent = `Show ${number.format(Math.min(left, PAGE))} more`;
  };

  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const key = head.dataset.order;
      // The first click on a column of numbers sorts from the largest to the smallest.
      falling = key === order ? !falling : !["rank", "concept", "companion"].includes(key);
      order = key;
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      draw();
    });
  }
  search.addEventListener("input", () => { shown = PAGE; draw(); });
  more.addEventListener("click", () => {
    const next = shown;
    shown += PAGE;
    draw();
    // The button may be hidden now: move the focus to the first new row.
    const row = body.rows[next];
    if (row) { row.tabIndex = -1; row.focus({ preventScroll: true }); }
  });
  draw();
})();
