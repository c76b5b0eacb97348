"use strict";
// Without this script everything can still be read: pictures stand side by side and tables keep their order.
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => Array.from(within.querySelectorAll(selector));
  root.classList.add("js");

  // ---- theme: as the system has it, until the reader says otherwise
  const theme = document.getElementById("theme");
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const nameTheme = () => { theme.textContent = isDark() ? "Light page" : "Dark page"; };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    nameTheme();
  });
  system.addEventListener("change", nameTheme);
  nameTheme();

  // ---- a table or chart that does not fit is a stop for the keyboard, which then scrolls it
  const mark = () => {
    for (const box of all(".scroll[role=region]")) {
      if (box.querySelector("#matrix")) continue; // its cells are stops themselves
      const fits = box.scrollWidth <= box.clientWidth && box.scrollHeight <= box.clientHeight;
      box.tabIndex = fits ? -1 : 0;
    }
  };
  window.addEventListener("resize", mark);
  mark();

  // ---- sorting
  const words = new Intl.Collator(undefined, { numeric: true });
  const keyOf = (cell) => {
    if (cell.dataset.v !== undefined) {
      return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    }
    const text = cell.textContent.trim();
    return text === "-" || text === "" ? null : text;
  };
  const sort = (table, column, down) => {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows).map((row) => [keyOf(row.cells[column]), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // undefined last, whichever the direction
      const order = typeof a === "number" && typeof b === "number" ? a - b : words.compare(a, b);
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  };
  for (const table of all("table.sortable")) {
    const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down);
      });
    });
  }

  // ---- counts of the confusion matrix, on pointing, tapping and focus
  const tip = document.getElementById("tip");
  const matrix = document.getElementById("matrix");
  const cells = Array.from(matrix.tBodies[0].rows).map((row) => all("td", row));
  const columnNames = all("thead th", matrix).map((head) => head.dataset.name);
  const number = new Intl.NumberFormat("en");
  const show = (cell) => {
    const row = cell.parentElement;
    const counts = all("td", row).map((other) => Number(other.dataset.n));
    const total = counts.reduce((sum, count) => sum + count, 0);
    const count = Number(cell.dataset.n);
    const truth = row.querySelector("th").dataset.name;
    const guess = columnNames[cell.cellIndex - 1];
    const what = truth === guess ? `${truth} recognised` : `${truth} taken for ${guess}`;
    const share = total ? `${(100 * count / total).toFixed(2)}\u00a0% of ${number.format(total)} true pixels` : "no true pixels";
    tip.textContent = `${what}: ${number.format(count)} pixels, ${share}`;
    tip.hidden = false;
    const box = cell.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), root.clientWidth - own.width - 8);
    const above = box.top - own.height - 8;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  let current = cells[0][0];
  const enter = (cell) => {
    current.tabIndex = -1;
    current = cell;
    current.tabIndex = 0;
  };
  cells.flat().forEach((cell) => { cell.tabIndex = -1; });
  enter(current);
  const cellOf = (event) => event.target.closest("td[data-n]");
  matrix.addEventListener("pointerover", (event) => { const cell = cellOf(event); if (cell) show(cell); });
  matrix.addEventListener("pointerleave", () => {
    if (document.activeElement === current) show(current); else hide();
  });
  matrix.addEventListener("focusin", (event) => {
    const cell = cellOf(event);
    if (cell) { enter(cell); show(cell); }
  });
  matrix.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, { capture: true, passive: true });
  matrix.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (event.key === "Escape") hide();
    if (!cell || !step) return;
    event.preventDefault();
    const row = cells.findIndex((line) => line.includes(cell)) + step[0];
    const next = cells[row] && cells[row][cell.cellIndex - 1 + step[1]];
    if (!next) return;
    next.focus({ preventScroll: true });
    next.scrollIntoView({ block: "nearest", inline: "nearest" });
    requestAnimationFrame(() => requestAnimationFrame(() => show(next))); // the scrolling above has hidden it
  });

  // ---- comparing two views of a patch
  const arrange = (example) => {
    const [left, right] = ["left", "right"].map((side) => example.querySelector(`[data-side=${side}]`).value);
    for (const view of all(".view", example)) {
      view.classList.toggle("is-left", view.dataset.key === left);
      view.classList.toggle("is-right", view.dataset.key === right);
    }
    const slider = example.querySelector(".slider");
    example.querySelector(".stage").style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${left}, the rest ${right}`);
  };
  const examples = all(".example");
  for (const example of examples) {
    example.addEventListener("input", () => arrange(example));
    arrange(example);
  }
  const shared = document.getElementById("all-sides");
  if (shared) {
    shared.addEventListener("change", (event) => {
      for (const example of examples) {
        const select = example.querySelector(`[data-side=${event.target.dataset.side}]`);
        select.value = event.target.value;
        arrange(example);
      }
    });
  }
})();
