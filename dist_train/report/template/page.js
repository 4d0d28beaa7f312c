"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const one = (selector, root = document) => root.querySelector(selector);
  const words = new Intl.Collator(undefined, { numeric: true });
  document.documentElement.classList.add("scripted");

  // a button with what an element held
  const pressed = (element, act) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...element.childNodes);
    element.append(button);
    button.addEventListener("click", act);
    return button;
  };

  // tables: a column's head sorts by it, a second time the other way; what is empty comes last
  const value = (cell, kind) => {
    const text = cell.dataset.value ?? cell.textContent.trim();
    if (kind === "text") return text;
    const number = parseFloat(text.replaceAll(",", ""));
    return Number.isNaN(number) ? null : number;
  };
  const sort = (table, head) => {
    const kind = head.dataset.sort;
    const before = head.getAttribute("aria-sort");
    const falling = before ? before === "ascending" : kind === "number";
    const sign = falling ? -1 : 1;
    const rows = all("tr", table.tBodies[0]).map((row) => [value(row.cells[head.cellIndex], kind), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (kind === "text" ? words.compare(a, b) : a - b);
    });
    all("th[aria-sort]", table).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    table.tBodies[0].append(...rows.map(([, row]) => row));
  };
  all("table.sortable").forEach((table) =>
    all("th[data-sort]", table).forEach((head) => pressed(head, () => sort(table, head))));

  // charts: the nearest point's values, by pointer or arrow keys
  const chart = (svg) => {
    const lines = JSON.parse(svg.dataset.points);
    const said = one(".readout", svg.closest("figure"));
    const places = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    let at = -1;
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", 10);
    cursor.setAttribute("y2", 182);
    const show = (next) => {
      at = Math.min(Math.max(next, 0), places.length - 1);
      const x = places[at];
      const near = lines.map((line) => {
        const best = line.x.reduce((a, b, i) => (Math.abs(b - x) < Math.abs(line.x[a] - x) ? i : a), 0);
        return Math.abs(line.x[best] - x) < 6 ? [line.at[best], `${line.name} ${line.text[best]}`] : null;
      }).filter(Boolean);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      svg.append(cursor);
      said.textContent = near.length ? `epoch ${near[0][0]}: ${near.map((pair) => pair[1]).join(", ")}` : "";
    };
    const hide = () => { cursor.remove(); said.textContent = ""; at = -1; };
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
      show(places.reduce((a, b, i) => (Math.abs(b - x) < Math.abs(places[a] - x) ? i : a), 0));
    });
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1, Home: -places.length, End: places.length }[event.key];
      if (step === undefined) return;
      event.preventDefault();
      show(at < 0 && step === 1 ? 0 : at + step);
    });
  };
  all("svg[data-points]").forEach(chart);

  // mistakes: by their truth and guess
  const cards = all("#cards > .card");
  const has = (element, name, number) => number === "" || element.dataset[name].split(" ").includes(number);
  const filter = (truth, guess) => {
    const fits = (element) => has(element, "truth", truth) && has(element, "guess", guess);
    cards.forEach((card) => { card.hidden = !fits(card); if (card.hidden) all("audio", card).forEach((a) => a.pause()); });
    all("#listed tbody tr").forEach((row) => { row.hidden = !fits(row); });
    const count = cards.filter((card) => !card.hidden).length;
    const shown = one("#shown");
    if (shown) shown.textContent = truth === "" && guess === "" ? "" : `${count} of ${cards.length} shown`;
    return count;
  };
  one("#truth")?.addEventListener("change", (event) => filter(event.target.value, ""));
  one("#all")?.addEventListener("click", () => { one("#truth").value = ""; filter("", ""); });

  // the matrix: order of rows and columns, what a cell shows, and the way from a cell to its mistakes
  const matrix = () => {
    const table = one("#matrix");
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const heads = all("th[data-place]", table);
    const names = heads.map((head) => head.textContent);
    const cells = rows.map((row) => [...row.cells].slice(1, -1));
    const counts = cells.map((row) => row.map((cell) => Number(cell.dataset.count ?? 0)));
    const sums = counts.map((row) => row.reduce((a, b) => a + b, 0));
    const said = one("#said");
    const columns = (order) => {
      one("tr", table.tHead).append(...order.map((i) => heads[i]), one("th.sum", table));
      rows.forEach((row, i) => row.append(...order.map((j) => cells[i][j]), row.cells[row.cells.length - 1]));
    };
    const by = (key) => rows.map((_, i) => i).sort((a, b) => key(a) - key(b) || a - b);
    const orders = {
      class: () => by((i) => i),
      name: () => rows.map((_, i) => i).sort((a, b) => words.compare(names[a], names[b])),
      recall: () => by((i) => (sums[i] ? counts[i][i] / sums[i] : 2)),
      clips: () => by((i) => -sums[i]),
      similar: () => by((i) => Number(rows[i].dataset.similar)),
    };
    one("#order").addEventListener("change", (event) => {
      const order = orders[event.target.value]();
      // the sums stand in a cell of their own, so cells are counted before they are moved
      body.append(...order.map((i) => rows[i]));
      columns(order);
      said.textContent = "";
    });
    all("input[name=cells]").forEach((input) => input.addEventListener("change", () => {
      const share = input.value === "share";
      cells.forEach((row, i) => row.forEach((cell, j) => {
        if (!counts[i][j]) return;
        (one("button", cell) ?? cell).textContent = share ? Math.round((100 * counts[i][j]) / sums[i]) : counts[i][j];
      }));
    }));
    heads.forEach((head, j) => pressed(one("span", head), () => {
      body.append(...by((i) => -counts[i][j]).map((i) => rows[i]));
      said.textContent = `Rows: those that are taken for ${names[j]} most come first.`;
    }));
    rows.forEach((row, i) => pressed(one("th span", row), () => {
      columns(by((j) => -counts[i][j]));
      said.textContent = `Columns: what ${names[i]} is taken for most comes first.`;
    }));
    cells.forEach((row, i) => row.forEach((cell, j) => {
      if (i === j || !counts[i][j]) return;
      const button = pressed(cell, () => {
        const [truth, guess] = [rows[i].dataset.number, rows[j].dataset.number];
        const clips = counts[i][j] === 1 ? "clip" : "clips";
        said.textContent = `${counts[i][j]} ${clips} of ${names[i]} taken for ${names[j]}.`;
        if (truth === "-1" || guess === "-1" || !cards.length) return;
        const count = filter(truth, guess);
        if (one("#truth")) one("#truth").value = all("#truth option").some((o) => o.value === truth) ? truth : "";
        said.textContent += count ? ` ${count} of them below.` : " None is among the worst below.";
        if (count) one("#h-mistakes").focus();
        else filter("", "");
      });
      button.setAttribute("aria-label", `${counts[i][j]}: ${names[i]} taken for ${names[j]}`);
    }));
  };
  if (one("#matrix")) matrix();

  // players: one at a time, a line that moves with the sound, a click on the picture goes there
  all("#cards .media").forEach((media) => {
    const audio = one("audio", media.closest(".card"));
    const head = one(".head", media);
    if (!audio) { media.classList.add("mute"); return; }
    const move = () => {
      head.hidden = !audio.duration;
      head.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
      if (!audio.paused) requestAnimationFrame(move);
    };
    audio.addEventListener("play", () => {
      all("audio").forEach((other) => other !== audio && other.pause());
      move();
    });
    audio.addEventListener("seeked", move);
    media.addEventListener("click", async (event) => {
      const box = media.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const start = () => { audio.currentTime = share * audio.duration; audio.play(); };
      if (audio.readyState) start();
      else { audio.addEventListener("loadedmetadata", start, { once: true }); audio.load(); }
    });
  });

  // the map: the clip under the pointer, classes alone, mistakes by name, arrow keys from clip to clip
  const atlas = () => {
    const svg = one("#atlas");
    const here = one("#here");
    const said = one("#point");
    const groups = all("g[data-group]", svg);
    const marks = groups.map((group) => all("use:not(.ring)", group));
    const flat = marks.flat();
    const at = (mark) => [Number(mark.getAttribute("x")), Number(mark.getAttribute("y"))];
    let now = -1;
    const show = (mark) => {
      const [x, y] = at(mark);
      now = flat.indexOf(mark);
      here.setAttribute("cx", x);
      here.setAttribute("cy", y);
      said.textContent = one("title", mark).textContent;
    };
    const shown = () => flat.filter((mark) => !mark.parentNode.classList.contains("away"));
    svg.setAttribute("tabindex", "0");
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      const far = (mark) => { const [a, b] = at(mark); return (a - x) ** 2 + (b - y) ** 2; };
      const near = shown().reduce((a, b) => (a && far(a) <= far(b) ? a : b), null);
      if (near && far(near) < 225) show(near);
    });
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      const list = shown();
      if (step === undefined || !list.length) return;
      event.preventDefault();
      const place = list.indexOf(flat[now]);
      show(list[(place < 0 && step < 0 ? list.length - 1 : place + step + list.length) % list.length]);
    });
    all("[data-show]").forEach((button) => button.addEventListener("click", () => {
      const on = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", on);
      const chosen = all("[data-show][aria-pressed=true]").map((other) => other.dataset.show);
      groups.forEach((group) => group.classList.toggle("away", chosen.length > 0 && !chosen.includes(group.dataset.group)));
    }));
    all("[data-point]").forEach((button) => {
      const mark = marks[button.dataset.group][button.dataset.point];
      button.addEventListener("click", () => show(mark));
      button.addEventListener("focus", () => show(mark));
    });
  };
  if (one("#atlas")) atlas();

  // copying: where the page was opened as a file there may be no clipboard, so the text is selected then
  all(".copy").forEach((button) => button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    const details = text.closest("details");
    if (details) details.open = true;
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }));
})();
