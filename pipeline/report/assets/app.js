/* The interactive parts of report.html: the map, the search, the charts.
   Words come from the corpus: they reach the page as text nodes and canvas text only. */
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const numbers = new Intl.NumberFormat("en-US");
  const charts = [];
  const printing = window.matchMedia("print");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let toPrint = false;

  const color = (name) => {
    const light = data.colors.light[name];
    return dark.matches && !toPrint && !printing.matches ? data.colors.dark[name] : light;
  };
  const element = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  /* --- Charts: each is drawn by a function from data to an ECharts option. */

  const font = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', 'Helvetica Neue', sans-serif";
  const base = () => ({
    animation: false,
    textStyle: { fontFamily: font, color: color("soft") },
    grid: { left: 8, right: 30, top: 36, bottom: 28, containLabel: true },
    tooltip: {
      trigger: "axis",
      confine: true,
      backgroundColor: color("paper"),
      borderColor: color("line"),
      textStyle: { color: color("ink"), fontSize: 13 },
    },
    legend: { top: 0, left: 0, itemWidth: 18, icon: "roundRect", itemHeight: 3,
      textStyle: { color: color("ink") } },
  });
  const axis = (name, more = {}) => ({
    name,
    nameTextStyle: { color: color("soft") },
    axisLine: { lineStyle: { color: color("line") } },
    axisTick: { show: false },
    axisLabel: { color: color("soft"), hideOverlap: true },
    splitLine: { lineStyle: { color: color("line"), opacity: 0.6 } },
    ...more,
  });
  const below = { nameLocation: "middle", nameGap: 26 };
  const line = (name, points, tone, more = {}) => ({
    name, type: "line", data: points, showSymbol: points.length < 40, symbolSize: 5,
    lineStyle: { color: color(tone), width: 2 }, itemStyle: { color: color(tone) }, ...more,
  });

  const drawn = {
    loss: (loss) => ({
      ...base(),
      grid: { ...base().grid, top: 52 },
      xAxis: axis("epoch", { type: "value", minInterval: 1, min: 1, splitLine: { show: false },
        max: Math.max(2, loss.training.length), ...below }),
      yAxis: axis("", { type: "value", scale: true }),
      tooltip: { ...base().tooltip, valueFormatter: (v) => (v == null ? "" : v.toFixed(4)) },
      series: [
        line("training", loss.training, "accent"),
        ...(loss.held_out.length ? [line("held-out documents", loss.held_out, "warm")] : []),
        ...(loss.frequency
          ? [line("guessing by frequency", [[1, loss.frequency],
              [Math.max(2, loss.training.length), loss.frequency]], "soft",
              { lineStyle: { color: color("soft"), type: "dashed", width: 1.5 },
                showSymbol: false })]
          : []),
      ],
    }),
    zipf: (zipf) => ({
      ...base(),
      xAxis: axis("rank of the word", { type: "log", splitLine: { show: false }, ...below }),
      yAxis: axis("", { type: "log", axisLabel: { color: color("soft"), hideOverlap: true,
        formatter: (v) => v.toExponential(0).replace("e", "e") } }),
      tooltip: { ...base().tooltip, valueFormatter: (v) => v && v.toExponential(2) },
      series: [
        ...(zipf.before ? [line("the version before", zipf.before, "warm")] : []),
        line("this corpus", zipf.now, "accent"),
        line("Zipf: 1 / rank", zipf.ideal, "soft", { showSymbol: false,
          lineStyle: { color: color("soft"), type: "dashed", width: 1.5 } }),
      ].map((one) => ({ ...one, showSymbol: one.data.length > 2 && one.data.length < 20 })),
    }),
    lengths: (lengths) => ({
      ...base(),
      legend: { show: false },
      grid: { ...base().grid, top: 16 },
      xAxis: axis("tokens in a document", { type: "category", data: lengths.labels, ...below,
        splitLine: { show: false } }),
      yAxis: axis("", { type: "value", axisLabel: { color: color("soft"), hideOverlap: true,
        formatter: (v) => numbers.format(v) } }),
      tooltip: { ...base().tooltip,
        valueFormatter: (v) => `${numbers.format(v)} document${v === 1 ? "" : "s"}` },
      series: [{ name: "", type: "bar", data: lengths.documents, barCategoryGap: "22%",
        itemStyle: { color: color("accent"), borderRadius: [3, 3, 0, 0] } }],
    }),
  };

  const chart = (id, draw, renderer) => {
    const place = byId(id);
    if (!place) return null;
    const made = echarts.init(place, null, { renderer });
    const redraw = () => made.setOption(draw(), { notMerge: true });
    charts.push({ made, redraw });
    redraw();
    return made;
  };
  for (const [name, draw] of Object.entries(drawn))
    if (data.charts[name]) chart(`chart-${name}`, () => draw(data.charts[name]), "svg");

  /* --- Words: their map, and their neighbours. */

  const words = data.words;
  let map = null;
  let chosen = -1;

  if (words) {
    const bytes = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const near = new Uint16Array(bytes(words.neighbors).buffer);
    const cosines = new Int16Array(bytes(words.cosines).buffer);
    const index = new Map();
    const folded = new Map();
    words.tokens.forEach((token, id) => {
      if (!index.has(token)) index.set(token, id);
      const key = token.toLowerCase();
      if (!folded.has(key)) folded.set(key, id);
    });
    const neighbors = (id) => {
      const found = [];
      for (let place = id * words.k; place < (id + 1) * words.k; place++)
        found.push([near[place], cosines[place] / 10000]);
      return found;
    };
    const find = (text) => {
      const cut = (word) => {
        const letters = Array.from(word);
        return letters.length > words.cut ? `${letters.slice(0, words.cut).join("")}…` : word;
      };
      const typed = cut(text.trim());
      return index.get(typed) ?? folded.get(typed.toLowerCase());
    };

    const size = (id) => 4 + 11 * Math.sqrt(Math.log1p(words.counts[id])
      / Math.log1p(words.counts[0])) ** 4;
    const hue = (id) => {
      const [x, y] = words.map[id];
      const turn = (Math.atan2(y, x) * 180) / Math.PI + 200;
      const light = dark.matches && !toPrint && !printing.matches ? 66 : 46;
      return `hsl(${turn.toFixed(0)} ${(24 + 26 * Math.min(1, Math.hypot(x, y) / 8000)).toFixed(0)}% ${light}%)`;
    };
    const point = (id, more = {}) => ({ id: String(id), name: words.tokens[id],
      value: words.map[id], symbolSize: size(id), itemStyle: { color: hue(id) }, word: id, ...more });
    const label = (more = {}) => ({ show: true, position: "right", distance: 3, fontFamily: font,
      width: 150, overflow: "truncate", ellipsis: "…", formatter: (at) => at.name, color: color("ink"), fontSize: 11,
      textBorderColor: color("paper"), textBorderWidth: 3, minMargin: 3, ...more });
    const tip = (at) => {
      const id = at.data.word;
      const box = element("div");
      box.append(element("bdi", words.tokens[id], { class: "tip" }));
      const count = `${numbers.format(words.counts[id])} times, rank ${numbers.format(id + 1)}`;
      box.append(element("div", count));
      return box;
    };
    const on = (id) => id < words.map.length;
    const drawMap = () => {
      const hits = chosen < 0 ? [] : neighbors(chosen).map(([id]) => id).filter(on);
      const quiet = chosen >= 0 && on(chosen);
      const shown = new Set(quiet ? [...hits, chosen] : hits);
      const others = words.map.map((_, id) => id).filter((id) => !shown.has(id));
      const before = map ? map.getOption().dataZoom : null;
      const zoom = (at, which) => ({ type: "inside", [which]: 0, filterMode: "none",
        zoomOnMouseWheel: "ctrl", moveOnMouseMove: true, minSpan: 2,
        start: before ? before[at].start : 0, end: before ? before[at].end : 100 });
      const hidden = { type: "value", show: false, min: -10600, max: 10600 };
      return {
        animation: false,
        textStyle: { fontFamily: font },
        grid: { left: 0, right: 0, top: 0, bottom: 0 },
        xAxis: { ...hidden, max: 11800 },
        yAxis: hidden,
        dataZoom: [zoom(0, "xAxisIndex"), zoom(1, "yAxisIndex")],
        tooltip: { ...base().tooltip, trigger: "item", formatter: tip, appendToBody: false },
        series: [
          { id: "all", type: "scatter", data: others.map((id) => point(id)),
            itemStyle: { opacity: quiet ? 0.28 : 0.8 },
            label: label(quiet ? { color: color("faint") } : {}),
            labelLayout: { hideOverlap: true }, z: 2 },
          { id: "near", type: "scatter", z: 3, data: hits.map((id) => point(id, { symbolSize: Math.max(13, size(id)) })),
            itemStyle: { opacity: 1 }, labelLayout: { hideOverlap: true },
            label: label({ fontSize: 13, fontWeight: 600, minMargin: 0 }) },
          { id: "chosen", type: "scatter", z: 4,
            data: quiet ? [point(chosen, { symbolSize: 20, itemStyle: { opacity: 1, color: color("accent"),
              borderColor: color("paper"), borderWidth: 3 } })]
              : [],
            labelLayout: { hideOverlap: true },
            label: label({ fontSize: 16, fontWeight: 700, minMargin: 0 }) },
        ],
      };
    };
    map = chart("map", drawMap, "canvas");

    const span = (starts, ends) => {
      const batch = [0, 1].map((at) => {
        const width = Math.min(100, ends[at] - starts[at]);
        const start = Math.min(100 - width, Math.max(0, starts[at]));
        return { dataZoomIndex: at, start, end: start + width };
      });
      map.dispatchAction({ type: "dataZoom", batch });
    };
    const window_ = () => map.getOption().dataZoom.map(({ start, end }) => [start, end]);
    const scale = (factor) => {
      const found = window_().map(([start, end]) => {
        const half = Math.min(50, ((end - start) / 2) * factor);
        return [(start + end) / 2 - half, (start + end) / 2 + half];
      });
      span(found.map(([start]) => start), found.map(([, end]) => end));
    };
    byId("map-in").addEventListener("click", () => scale(0.5));
    byId("map-out").addEventListener("click", () => scale(2));
    byId("map-all").addEventListener("click", () => span([0, 0], [100, 100]));

    const input = byId("word");
    const list = byId("suggestions");
    const answer = byId("neighbors");
    const status = byId("word-status");
    let active = -1;

    const close = () => {
      list.replaceChildren();
      list.hidden = true;
      active = -1;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    };
    const show = (id, move = true) => {
      chosen = id;
      const heading = element("h3");
      heading.append(element("bdi", words.tokens[id]));
      const count = `${numbers.format(words.counts[id])} times in the text`;
      const table = element("ol", undefined, { class: "near" });
      for (const [other, cosine] of neighbors(id)) {
        const row = element("li");
        const button = element("button", undefined, { type: "button" });
        button.append(element("bdi", words.tokens[other]));
        button.addEventListener("click", () => choose(other));
        const bar = element("span", undefined, { class: "bar", "aria-hidden": "true" });
        bar.style.setProperty("--part", Math.max(0, cosine).toFixed(3));
        row.append(button, bar, element("span", cosine.toFixed(3), { class: "cosine" }));
        table.append(row);
      }
      answer.replaceChildren(heading, element("p", count, { class: "soft" }), table);
      const place = on(id) ? "" : `Not among the ${numbers.format(words.map.length)} on the map.`;
      status.textContent = place;
      if (map) {
        map.setOption(drawMap(), { replaceMerge: ["series"] });
        if (move && on(id)) {
          const at = [(words.map[id][0] + 10600) / 224, (words.map[id][1] + 10600) / 212];
          span(at.map((centre) => centre - 16), at.map((centre) => centre + 16));
        }
      }
    };
    const choose = (id) => {
      input.value = words.tokens[id];
      close();
      show(id);
    };
    const suggest = () => {
      close();
      const typed = input.value.trim().toLowerCase();
      if (!typed) return;
      const found = [];
      for (let id = 0; id < words.tokens.length && found.length < 5; id++) {
        const token = words.tokens[id].toLowerCase();
        if (token !== typed && token.startsWith(typed)) found.push(id);
      }
      found.forEach((id, place) => {
        const option = element("li", undefined,
          { role: "option", id: `suggestion-${place}`, "aria-selected": "false" });
        option.append(element("bdi", words.tokens[id]));
        option.addEventListener("mousedown", (event) => {
          event.preventDefault();
          choose(id);
        });
        list.append(option);
      });
      list.hidden = !found.length;
      input.setAttribute("aria-expanded", String(Boolean(found.length)));
    };
    input.addEventListener("input", () => {
      suggest();
      const id = find(input.value);
      if (id !== undefined) show(id, true);
    });
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => {
      const options = [...list.children];
      if (event.key === "Escape") return close();
      if (event.key === "ArrowDown" || event.key === "ArrowUp") {
        if (!options.length) return;
        event.preventDefault();
        const step = event.key === "ArrowDown" ? 1 : -1;
        active = (active + step + options.length) % options.length;
        options.forEach((option, place) =>
          option.setAttribute("aria-selected", String(place === active)));
        input.setAttribute("aria-activedescendant", options[active].id);
        options[active].scrollIntoView({ block: "nearest" });
      }
    });
    byId("word-form").addEventListener("submit", (event) => {
      event.preventDefault();
      const picked = active >= 0 ? list.children[active].textContent : input.value;
      const id = find(picked);
      if (id !== undefined) return choose(id);
      close();
      const shown = Array.from(picked.trim()).slice(0, words.cut).join("");
      if (shown) {
        const size_ = numbers.format(words.tokens.length);
        status.replaceChildren(element("bdi", shown),
          document.createTextNode(` is not among the ${size_} words of this page.`));
      }
    });
    if (map) {
      map.on("click", (at) => at.data && choose(at.data.word));
      map.getZr().on("dblclick", () => scale(0.6));
    }
    show(words.first, false);
    chosen = -1;
    if (map) map.setOption(drawMap(), { replaceMerge: ["series"] });
  }

  /* --- Sizes, dark mode, paper. */

  const redraw = () => charts.forEach(({ made, redraw: again }) => {
    made.resize();
    again();
    made.getZr().flush();
  });
  const resized = new ResizeObserver(() => charts.forEach(({ made }) => made.resize()));
  charts.forEach(({ made }) => resized.observe(made.getDom()));
  dark.addEventListener("change", redraw);
  printing.addEventListener("change", redraw);
  window.addEventListener("beforeprint", () => {
    toPrint = true;
    document.querySelectorAll("details").forEach((one) => {
      one.dataset.was = String(one.open);
      if (one.classList.contains("print")) one.open = true;
    });
    redraw();
  });
  window.addEventListener("afterprint", () => {
    toPrint = false;
    document.querySelectorAll("details").forEach((one) => { one.open = one.dataset.was === "true"; });
    redraw();
  });
  document.documentElement.dataset.ready = "yes";
})();
