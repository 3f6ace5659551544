"use strict";
const byId = id => document.getElementById(id);
const records = [...document.querySelectorAll("script.record")].map(script => JSON.parse(script.textContent));
const percent = value => (100 * value).toFixed(value < 0.1 ? 1 : 0) + " %";
const sum = values => values.reduce((total, value) => total + value, 0);
const state = {image: 0, word: 0, head: "all"};
let shown = null; // the current record with its numbers unpacked

// Colours -------------------------------------------------------------------------------------------------------------

const anchors = JSON.parse(byId("anchors").textContent).map(code => [1, 3, 5].map(at => parseInt(code.slice(at, at + 2), 16)));
const palette = Array.from({length: 256}, (_, i) => {
  const place = i / 255 * (anchors.length - 1), below = Math.min(Math.floor(place), anchors.length - 2);
  return anchors[below].map((part, c) => part + (anchors[below + 1][c] - part) * (place - below));
});
byId("scale").style.background = "linear-gradient(90deg," + palette.filter((_, i) => i % 15 === 0)
  .map(([r, g, b]) => `rgb(${r},${g},${b})`) + ")";

// Numbers -------------------------------------------------------------------------------------------------------------

// Bytes of packed() back to probabilities: result[step][head] is an array of `size` numbers.
function unpack(packed) {
  if (!packed) return [];
  const bytes = atob(packed.bytes), {heads, size} = packed;
  return packed.peaks.map((row, step) => row.map((peak, head) => Float32Array.from({length: size},
    (_, i) => bytes.charCodeAt((step * heads + head) * size + i) / 255 * peak)));
}

const mean = rows => rows.length ? rows[0].map((_, i) => sum(rows.map(row => row[i])) / rows.length) : null;

function entropy(row) { // in nats
  const total = sum([...row]) || 1;
  return -sum([...row].map(p => p > 0 ? p / total * Math.log(p / total) : 0));
}

// What a head choice reads at a step: {visual, text}, each an array of probabilities or null.
function reading(head, step) {
  const {visual, text} = shown, one = /^([vt])(\d+)$/.exec(head);
  if (one) return {visual: one[1] === "v" ? visual[step][one[2]] : null, text: one[1] === "t" ? text[step][one[2]] : null};
  return {visual: head !== "text" && visual.length ? mean(visual[step]) : null,
    text: head !== "visual" && shown.record.text.heads ? mean(text[step]) : null};
}

// Places --------------------------------------------------------------------------------------------------------------

function placeName(cell) {
  const [views, height, width] = shown.record.grid, inside = cell % (height * width);
  const third = (at, size) => Math.min(2, Math.floor((at + 0.5) / size * 3));
  const row = third(Math.floor(inside / width), height), column = third(inside % width, width);
  const name = [["upper left", "top", "upper right"], ["left", "centre", "right"],
    ["lower left", "bottom", "lower right"]][row][column];
  return (views > 1 ? `view ${Math.floor(cell / (height * width)) + 1}, ` : "") + name;
}

// Text heads: context positions, then the words read, of which the first is the start.
const textName = position => {
  const {known, read} = shown.record;
  return position < known.length ? known[position] : read[position - known.length];
};

function most(row, name) {
  let best = 0;
  row.forEach((value, i) => { if (value > row[best]) best = i; });
  return {peak: row[best], name: name(best)};
}

function summary(head) {
  const now = reading(head, state.word);
  const describe = (row, name, size, quote) => {
    const top = most(row, name);
    return {even: size > 1 ? entropy(row) / Math.log(size) : 0, peak: top.peak, most: quote + top.name + quote};
  };
  const visual = now.visual && describe(now.visual, placeName, now.visual.length, "");
  const text = now.text && describe(now.text, textName, shown.record.known.length + state.word + 1, "\u2019")
  return {visual, text: text && {...text, most: "\u2018" + text.most.slice(1)}};
}

// Drawing -------------------------------------------------------------------------------------------------------------

// Catmull-Rom weights of four neighbours for each of `size` pixels over `cells` cells.
function taps(cells, size) {
  return Array.from({length: size}, (_, i) => {
    const at = (i + 0.5) / size * cells - 0.5, base = Math.floor(at), t = at - base;
    const weights = [((2 - t) * t - 1) * t / 2, ((3 * t - 5) * t * t + 2) / 2, ((4 - 3 * t) * t + 1) * t / 2,
      (t - 1) * t * t / 2];
    return weights.map((weight, k) => [Math.min(cells - 1, Math.max(0, base - 1 + k)), weight]);
  });
}

// A grid of h x w numbers, smoothly enlarged to size x size, never below 0.
function enlarge(map, height, width, size) {
  const across = taps(width, size), down = taps(height, size), rows = [];
  for (let row = 0; row < height; row++)
    rows.push(across.map(four => four.reduce((total, [at, weight]) => total + weight * map[row * width + at], 0)));
  return down.map(four => rows[0].map((_, x) => Math.max(0, four.reduce((total, [at, w]) => total + w * rows[at][x], 0))));
}

// Attention over one view as colour: bright and solid where it is strong, a thin dark veil where there is little.
function paint(canvas, map, height, width, top, size, strength) {
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), pixels = context.createImageData(size, size);
  enlarge(map, height, width, size).forEach((row, y) => row.forEach((value, x) => {
    const level = Math.min(1, value / top), at = 4 * (y * size + x), colour = palette[Math.round(255 * level)];
    for (let c = 0; c < 3; c++) pixels.data[at + c] = colour[c];
    pixels.data[at + 3] = 255 * (strength >= 1 ? 1 : strength * Math.min(1, 0.25 + 1.1 * level));
  }));
  context.putImageData(pixels, 0, 0);
}

function bars(canvas, row, known, side) {
  const gap = known ? 4 : 0, wide = Math.max(side, 5 * row.length + gap), style = getComputedStyle(document.body);
  canvas.width = 2 * wide; canvas.height = 2 * side; canvas.style.width = wide + "px";
  const context = canvas.getContext("2d"), step = (wide - 4 - gap) / row.length;
  context.scale(2, 2); // sharp on fine screens
  row.forEach((value, i) => {
    const tall = Math.max(value > 0 ? 1 : 0, (side - 8) * value), left = 2 + i * step + (i < known ? 0 : gap);
    context.fillStyle = style.getPropertyValue(i < known ? "--known" : "--text");
    context.fillRect(left, side - 4 - tall, Math.max(1, step - 1), tall);
  });
}

// Building ------------------------------------------------------------------------------------------------------------

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function chip(word, attributes) {
  const element = make("span", {class: "chip", ...attributes}, word);
  if (/^\(.*\)$/.test(word)) element.classList.add("mute");
  return element;
}

function heads() {
  const {visual, text} = shown.record, kinds = [["visual", visual], ["text", text]].filter(([, k]) => k && k.heads);
  const list = kinds.length > 1 ? [["all", "all heads", "group"]] : [];
  for (const [kind, {heads}] of kinds) {
    list.push([kind, "all " + kind, "group " + kind]);
    for (let i = 0; i < heads; i++) list.push([kind[0] + i, `${kind} ${i + 1}`, kind]);
  }
  return list;
}

function build() {
  const record = records[state.image];
  [...byId("films").children].forEach((film, i) =>
    i === state.image ? film.setAttribute("aria-current", "true") : film.removeAttribute("aria-current"));
  byId("found").hidden = Boolean(record.error);
  byId("failed").hidden = !record.error;
  byId("failed").textContent = record.error ? `${record.file}: ${record.error}` : "";
  if (record.error) { shown = null; return; }
  shown = {record, visual: unpack(record.visual), text: unpack(record.text)};
  state.word = Math.min(state.word, record.words.length - 1);
  byId("file").textContent = record.file;
  byId("views").replaceChildren(...record.views.map((view, i) => make("div", {class: "view"},
    make("img", {src: view.src, width: view.width, height: view.height, alt: `${record.file}, view ${i + 1}`}),
    make("canvas", {role: "img"}))));
  byId("asked").hidden = !record.known.length;
  byId("known").replaceChildren(...record.known.map(word => chip(word)));
  byId("words").replaceChildren(chip(record.read[0], {role: "presentation"}), ...record.words.map((word, i) => {
    const element = chip(word, {role: "option", "data-word": i});
    element.append(make("span", {class: "sure", style: `--sure:${record.probabilities[i]}`}));
    element.title = `probability ${percent(record.probabilities[i])}`;
    return element;
  }));
  const caps = make("div", {class: "caps", "aria-hidden": "true"},
    ...["", "", "entropy", "peak", "reads most"].map(text => make("span", {}, text)));
  const list = heads();
  if (!list.some(([id]) => id === state.head)) state.head = list[0][0];
  byId("heads").replaceChildren(caps, ...list.map(([id, name, kinds]) => make("label", {class: "head " + kinds},
    make("input", {type: "radio", name: "head", value: id}), make("span", {class: "name"}, name),
    make("span", {class: "meter"}, make("span")), make("span", {class: "peak"}), make("span", {class: "most"}))));
  buildSheet(list.filter(([id]) => /\d/.test(id)));
  update();
}

function buildSheet(list) {
  const {record, visual, text} = shown, side = Math.round(Math.min(84, Math.max(52, 1100 / record.words.length)));
  byId("sheet").style.setProperty("--side", side + "px");
  const head = make("tr", {}, make("td"), ...record.words.map((word, i) => make("th", {scope: "col", "data-word": i}, word)));
  const rows = list.map(([id, name, kind]) => {
    const index = Number(id.slice(1)), steps = kind === "visual" ? visual : text;
    const top = Math.max(...steps.map(step => Math.max(...step[index]))) || 1;
    return make("tr", {}, make("th", {scope: "row", class: kind}, name), ...steps.map((step, i) => {
      const canvas = make("canvas", {role: "img"}), row = step[index];
      if (kind === "visual") {
        const [views, h, w] = record.grid, strip = document.createElement("canvas");
        canvas.width = 64 * views; canvas.height = 64; canvas.style.width = side * views + "px";
        for (let view = 0; view < views; view++) {
          paint(strip, row.subarray(view * h * w, (view + 1) * h * w), h, w, top, 64, 1);
          canvas.getContext("2d").drawImage(strip, 64 * view, 0);
        }
      } else bars(canvas, row, record.known.length, side);
      const best = most(row, kind === "visual" ? placeName : textName);
      canvas.title = `${name} for \u2018${record.words[i]}\u2019: ${best.name}, ${percent(best.peak)}`;
      canvas.setAttribute("aria-label", canvas.title);
      return make("td", {"data-word": i, "data-head": id}, canvas);
    }));
  });
  byId("sheet").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

// Showing the state ---------------------------------------------------------------------------------------------------

function update() {
  if (!shown) return;
  const {record} = shown, now = reading(state.head, state.word);
  drawViews(now.visual);
  const share = (element, value) => {
    element.style.setProperty("--share", value ?? 0);
    element.dataset.share = value === null || value < 0.005 ? "" : Math.round(100 * value);
  };
  [...byId("known").children].forEach((element, i) => share(element, now.text && now.text[i]));
  const [start, ...words] = byId("words").children;
  share(start, now.text && now.text[record.known.length]);
  words.forEach((element, i) => {
    const here = i === state.word;
    share(element, now.text && i < state.word ? now.text[record.known.length + 1 + i] : null);
    element.setAttribute("aria-selected", here);
    element.tabIndex = here ? 0 : -1;
    element.classList.toggle("next", i > state.word);
  });
  for (const label of byId("heads").querySelectorAll("label")) {
    const input = label.querySelector("input"), found = summary(input.value), one = found.visual || found.text;
    input.checked = input.value === state.head;
    const both = found.visual && found.text;
    label.querySelector(".meter").style.visibility = both ? "hidden" : "";
    label.querySelector(".meter span").style.setProperty("--part", 100 * one.even + "%");
    label.querySelector(".meter").title = `entropy ${one.even.toFixed(2)} of an even reading`;
    label.querySelector(".peak").textContent = both ? "" : percent(one.peak);
    label.querySelector(".most").textContent = both ? `${found.visual.most}; ${found.text.most}` : one.most;
  }
  for (const cell of byId("sheet").querySelectorAll("[data-word]")) {
    const column = Number(cell.dataset.word) === state.word;
    cell.classList.toggle("column", column && cell.tagName === "TH");
    cell.classList.toggle("here", column && covers(state.head, cell.dataset.head));
  }
  byId("said").textContent = sentence();
  Object.assign(document.body.dataset, {image: state.image, word: state.word, head: state.head});
}

const covers = (chosen, head) => head && (chosen === "all" || chosen === head || chosen.length > 2 && chosen[0] === head[0]);

function drawViews(row) {
  const canvases = [...byId("views").querySelectorAll("canvas")], strength = byId("strength").value / 100;
  byId("scale").parentElement.style.visibility = row ? "" : "hidden";
  if (!row) { canvases.forEach(canvas => { canvas.width = 1; canvas.setAttribute("aria-label", "not read"); }); return; }
  const [, height, width] = shown.record.grid, top = Math.max(...row) || 1;
  byId("most").textContent = `${percent(top)} (even: ${percent(1 / row.length)})`;
  canvases.forEach((canvas, view) => {
    paint(canvas, row.slice(view * height * width, (view + 1) * height * width), height, width, top, 160, 0.999 * strength);
    canvas.setAttribute("aria-label", `where ${state.head} looked for ${shown.record.words[state.word]}`);
  });
}

function sentence() {
  const {visual, text} = summary(state.head), {words, probabilities} = shown.record, parts = [];
  const name = (heads().find(([id]) => id === state.head) || ["", ""])[1];
  const s = state.head.length > 2 ? "" : "s"; // all heads look, one head looks
  if (visual) parts.push(`look${s} most at the ${visual.most} (${percent(visual.peak)} in one cell)`);
  if (text) parts.push(`read${s} ${text.most} most (${percent(text.peak)})`);
  return `Word ${state.word + 1} of ${words.length}, \u2018${words[state.word]}\u2019 ` +
    `(probability ${percent(probabilities[state.word])}): ${name} ${parts.join(" and ")}.`;
}

// Moving --------------------------------------------------------------------------------------------------------------

function go(change) {
  const image = state.image;
  Object.assign(state, change);
  if (state.image === image) return update();
  state.word = 0;
  build();
  byId("films").children[state.image]?.scrollIntoView({block: "nearest", inline: "nearest"});
}

const within = (value, size) => Math.min(size - 1, Math.max(0, value));

document.addEventListener("keydown", event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.target.type === "range") return;
  const image = step => () => go({image: within(state.image + step, records.length)});
  const word = step => () => shown && go({word: within(state.word + step, shown.record.words.length)});
  const head = step => () => {
    const list = shown ? heads().map(([id]) => id) : [];
    if (list.length) go({head: list[within(list.indexOf(state.head) + step, list.length)]});
  };
  const action = {ArrowRight: word(1), ArrowLeft: word(-1), Home: word(-Infinity), End: word(Infinity),
    ArrowDown: head(1), ArrowUp: head(-1), PageDown: image(1), PageUp: image(-1),
    a: () => shown && go({head: heads()[0][0]})}[event.key];
  if (!action) return;
  event.preventDefault();
  const moved = event.target.closest?.("#words, #heads");
  action();
  if (moved) moved.querySelector("[aria-selected=true], :checked")?.focus();
});
for (const kind of ["mouseover", "click"]) byId("words").addEventListener(kind, event => {
  const option = event.target.closest("[data-word]");
  if (option) go({word: Number(option.dataset.word)});
});
byId("sheet").addEventListener("click", event => {
  const cell = event.target.closest("[data-word]");
  if (cell) go({word: Number(cell.dataset.word), ...(cell.dataset.head ? {head: cell.dataset.head} : {})});
});
byId("heads").addEventListener("change", event => go({head: event.target.value}));
byId("strength").addEventListener("input", update);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);

byId("films").append(...records.map((record, i) => {
  const label = record.error ? `${record.file}: could not be read` : record.caption;
  const film = make("button", {type: "button", title: label, "aria-label": label});
  film.append(record.views ? make("img", {src: record.views[0].src, alt: "", loading: "lazy"}) : "✕");
  film.addEventListener("click", () => go({image: i}));
  return film;
}));
if (records.length < 2) document.querySelectorAll(".several").forEach(element => { element.hidden = true; });
if (records.length) build();
