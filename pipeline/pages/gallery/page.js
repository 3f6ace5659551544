const records = [];
for (const part of document.querySelectorAll('script[type="application/json"]')) {
  records.push(...JSON.parse(part.textContent));
  part.remove();
}
const find = id => document.getElementById(id), list = find("cards"), search = find("search"), sort = find("sort");
const texts = records.map(r => [r.caption, r.file, r.context, r.error, ...(r.alternatives || []),
  ...(r.references || [])].filter(Boolean).join("\n").toLowerCase());
const all = records.map((_, i) => i), shown = new Map();
let order = all, columns = 1, width = 0, height = 0, gap = 0;
const score = (i, missing) => "score" in records[i] ? records[i].score : missing;
const orders = {
  file: (a, b) => records[a].file.localeCompare(records[b].file, "en", {numeric: true}),
  best: (a, b) => score(b, -Infinity) - score(a, -Infinity) || 0,
  worst: (a, b) => score(a, Infinity) - score(b, Infinity) || 0,
  failed: (a, b) => ("error" in records[b]) - ("error" in records[a]),
};
function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}
function line(kind, text, label) {
  const element = make("p", kind);
  element.dir = "auto";
  if (label) element.append(make("span", "label", label), " ");
  element.append(text);
  return element;
}
function lines(record) {
  const parts = [];
  if (record.context) parts.push(line("context", record.context, "context"));
  if (record.caption) parts.push(line("caption", record.caption));
  if (record.error) parts.push(line("error", record.error, "error"));
  return parts;
}
function picture(record) {
  const element = make("div", "picture");
  if (record.image) {
    const image = make("img");
    image.src = "data:image/jpeg;base64," + record.image;
    image.alt = record.caption || record.file;
    image.decoding = "async";
    element.append(image);
  } else element.append(make("div", "blank", "no image"));
  if ("score" in record) element.append(make("span", "score", record.score.toFixed(3)));
  return element;
}
function card(place) {
  const record = records[order[place]], element = make("li", record.error ? "card failed" : "card");
  const words = make("div", "words"), file = make("p", "file", record.file);
  file.title = record.file;
  words.append(...lines(record), file);
  element.append(picture(record), words);
  element.tabIndex = 0;
  element.setAttribute("aria-setsize", order.length);
  element.setAttribute("aria-posinset", place + 1);
  element.addEventListener("click", () => open(record));
  element.addEventListener("keydown", event => { if (event.key === "Enter") open(record); });
  element.style.width = width + "px";
  element.style.left = place % columns * (width + gap) + "px";
  element.style.top = Math.floor(place / columns) * height + "px";
  return element;
}
function open(record) {
  const whole = [picture(record), ...lines(record)];
  for (const name of ["alternatives", "references"]) {
    if (!record[name]) continue;
    const items = make("ul");
    items.append(...record[name].map(text => { const item = make("li", "", text); item.dir = "auto"; return item; }));
    whole.push(make("div", "label", name), items);
  }
  whole.push(make("p", "file", record.file));
  find("whole").firstElementChild.replaceChildren(...whole);
  find("whole").showModal();
}
function draw() {
  const top = list.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(-top / height) - 2) * columns;
  const last = Math.min(order.length, (Math.ceil((innerHeight - top) / height) + 2) * columns);
  for (const [place, element] of shown) {
    if (place < first || place >= last) { element.remove(); shown.delete(place); }
  }
  for (let place = first; place < last; place++) {
    if (!shown.has(place)) { shown.set(place, card(place)); list.append(shown.get(place)); }
  }
}
function layout() {
  const style = getComputedStyle(document.documentElement), size = name => parseFloat(style.getPropertyValue(name));
  gap = size("--gap");
  columns = Math.max(1, Math.floor((list.clientWidth + gap) / (size("--width") + gap)));
  width = (list.clientWidth - gap * (columns - 1)) / columns;
  height = size("--picture") + size("--words") + 2 + gap;
  list.style.height = Math.ceil(order.length / columns) * height + "px";
  for (const element of shown.values()) element.remove();
  shown.clear();
  draw();
}
function choose() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), compare = orders[sort.value];
  order = words.length ? all.filter(i => words.every(word => texts[i].includes(word))) : all;
  if (compare) order = [...order].sort(compare);
  const total = all.length.toLocaleString("en");
  const found = words.length ? order.length.toLocaleString("en") + " of " + total : total;
  find("count").textContent = found + (all.length === 1 ? " image" : " images");
  layout();
}
let waiting, drawing;
search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(choose, 80); });
sort.addEventListener("change", choose);
addEventListener("scroll", () => { drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); }); });
addEventListener("resize", layout);
document.addEventListener("keydown", event => {
  if (event.key === "/" && document.activeElement !== search) { event.preventDefault(); search.focus(); }
  if (event.key === "Escape" && search.value && !find("whole").open) { search.value = ""; choose(); }
});
for (const [field, kind] of [["score", "scored"], ["error", "faulty"]]) {
  if (!records.some(r => field in r)) document.querySelectorAll("." + kind).forEach(option => option.remove());
}
choose();
