"use strict";
// The table of all rows: search, filter, sort, and only the lines in sight are in the page.
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (name, text, kind) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const data = JSON.parse(byId("row-data").textContent);
  const numbers = (packed) => (packed ? packed.split(",") : []).flatMap((part) => {
    const [value, times] = part.split("*").map((digits) => parseInt(digits, 36));
    return Array(times || 1).fill(value);
  });
  const texts = (column) => numbers(column.at).map((number) => column.texts[number]);
  const count = (value) => value.toLocaleString("en");
  const sizeText = (bytes) => {
    let unit = 0;
    for (; bytes >= 999.5 && unit < 5; unit++) bytes /= 1000;
    return `${bytes.toFixed(unit && bytes < 99.95 ? 1 : 0)} ${["B", "kB", "MB", "GB", "TB", "PB"][unit]}`;
  };
  let last = 0;
  const row = numbers(data.row).map((step) => (last += step));
  const [found, open, stored, missing, same] = ["found", "open", "stored", "missing", "same"].map((name) => numbers(data[name]));
  const sizes = numbers(data.size).map((packed) => Math.floor(packed / 14) * 10 ** (packed % 14));
  const codes = numbers(data.code), outcome = (at) => data.outcomes[codes[at]];
  const cells = (data.cells || []).map(texts), folders = data.folders && texts(data.folders);
  const reasons = data.reasons && texts(data.reasons), reason = (at) => (reasons ? reasons[at] : outcome(at).title);
  const columns = [
    { name: "Row", value: (at) => row[at], text: (at) => `${row[at]}` , kind: "n" },
    { name: "Outcome", value: (at) => outcome(at).status },
    ...cells.map((column, number) => ({ name: data.columns[number], value: (at) => column[at], kind: "cell" })),
    { name: "Reason", value: reason, kind: "wide" },
    { name: "Studies", value: (at) => found[at], text: (at) => `${found[at] - open[at]} of ${found[at]}`, kind: "n" },
    { name: "Images", value: (at) => stored[at], text: (at) => count(stored[at]), kind: "n" },
    { name: "Missing", value: (at) => missing[at], text: (at) => count(missing[at]), kind: "n" },
    { name: "Size", value: (at) => sizes[at], text: (at) => sizeText(sizes[at]), kind: "n" },
    { name: "Same as row", value: (at) => same[at], text: (at) => same[at] || "", kind: "n" },
  ];
  const HEIGHT = 38, view = byId("row-view"), body = view.querySelector("tbody"), head = view.querySelector("thead tr");
  const search = byId("row-search"), filter = byId("row-filter");
  let order = [], sorted = 0, direction = 1;

  const line = (at, number) => {
    const tr = make("tr");
    tr.setAttribute("aria-rowindex", number + 2);
    columns.forEach((column, place) => {
      const text = `${(column.text || column.value)(at)}`, cell = make(place ? "td" : "th", undefined, column.kind);
      if (place === 0) {
        cell.scope = "row";
        cell.append(make("button", text, "link"));
        cell.firstChild.onclick = () => showRow(at);
      } else if (place === 1) cell.append(make("span", outcome(at).name, `badge ${outcome(at).tone}`));
      else cell.textContent = cell.title = text;
      tr.append(cell);
    });
    return tr;
  };
  const gap = (lines) => {
    const tr = make("tr", undefined, "gap");
    tr.setAttribute("aria-hidden", "true");
    tr.append(make("td"));
    tr.firstChild.style.height = `${lines * HEIGHT}px`;
    return tr;
  };
  const draw = () => {
    const first = Math.max(0, Math.min(order.length, Math.floor(view.scrollTop / HEIGHT)) - 10);
    const shown = order.slice(first, first + Math.ceil(view.clientHeight / HEIGHT) + 20);
    body.replaceChildren(gap(first), ...shown.map((at, place) => line(at, first + place)), gap(order.length - first - shown.length));
  };
  const update = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), wanted = filter.value;
    const matches = (at) => {
      const one = outcome(at);
      if (wanted && one.code !== wanted && one.status !== wanted) return false;
      const text = words.length && [row[at], one.name, one.code, reason(at), ...cells.map((column) => column[at])].join("\n").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const value = columns[sorted].value;
    order = [...row.keys()].filter(matches);
    order.sort((a, b) => direction * (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) || a - b);
    view.firstElementChild.setAttribute("aria-rowcount", order.length + 1);
    byId("row-count").textContent = `${count(order.length)} of ${count(row.length)} rows`;
    [...head.children].forEach((cell, place) => {
      if (place === sorted) cell.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
    view.scrollTop = 0;
    draw();
  };
  const showRow = (at) => {
    const facts = make("dl", undefined, "facts"), one = outcome(at);
    const add = (name, value) => value && facts.append(make("dt", name), Object.assign(make("dd"), { textContent: value }));
    columns.forEach((column) => add(column.name, `${(column.text || column.value)(at)}`));
    add("Code", one.code);
    add("What to do", one.next);
    add("Its history", `quarry explain . --row ${row[at]}   (in this folder)`);
    if (folders && folders[at]) {
      const link = Object.assign(make("a", folders[at]), { href: folders[at].split("/").map(encodeURIComponent).join("/") });
      facts.append(make("dt", "Folder"), make("dd"));
      facts.lastChild.append(link);
    }
    byId("row-detail").replaceChildren(make("h3", `Row ${row[at]}`), facts);
  };
  columns.forEach((column, place) => {
    const cell = make("th", undefined, column.kind), button = make("button", column.name, "sort");
    cell.scope = "col";
    button.onclick = () => {
      [sorted, direction] = [place, place === sorted ? -direction : 1];
      update();
    };
    cell.append(button);
    head.append(cell);
  });
  data.outcomes.forEach((one) => filter.append(Object.assign(make("option", `${one.name}: ${one.title}`), { value: one.code })));
  document.querySelectorAll("[data-filter]").forEach((link) => {
    link.onclick = () => {
      [filter.value, search.value] = [link.dataset.filter, ""];
      update();
    };
  });
  search.oninput = filter.onchange = update;
  view.onscroll = () => requestAnimationFrame(draw);
  new ResizeObserver(draw).observe(view);
  byId("rows-tool").hidden = !(byId("rows-without-script").hidden = true);
  update();
})();
