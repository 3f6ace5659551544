"""The page that ``pages/gallery.py`` fills: its style, what stands before the records, and what shows them."""

STYLE = """:root { --page: #f6f6f4; --card: #fff; --well: #ececea; --ink: #1c1d1f; --soft: #66696f; --line: #dfdfdc;
  --accent: #2458c6; --bad: #b3261e; --gap: 18px; --words: 138px; {size} }
@media (prefers-color-scheme: dark) { :root { --page: #131416; --card: #1c1e21; --well: #26282c; --ink: #e9e9e7;
  --soft: #9fa3aa; --line: #303338; --accent: #8fb2ff; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", sans-serif; }
header { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: 10px 14px; align-items: center;
  padding: 14px clamp(14px, 3vw, 36px); background: var(--page); border-bottom: 1px solid var(--line); }
h1 { margin: 0; font-size: 18px; font-weight: 650; letter-spacing: -.01em; overflow-wrap: anywhere; }
output { color: var(--soft); margin-right: auto; font-variant-numeric: tabular-nums; }
input, select, button { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 7px 11px; min-height: 38px; }
input { width: min(280px, 100%); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
main { padding: 20px clamp(14px, 3vw, 36px) 60px; }
#cards { list-style: none; margin: 0; padding: 0; position: relative; }
.card { position: absolute; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; cursor: pointer; }
.picture { position: relative; height: var(--picture); background: var(--well); }
.picture img { width: 100%; height: 100%; object-fit: contain; display: block; }
.blank { height: 100%; display: grid; place-items: center; color: var(--soft); font-size: 13px; }
.score { position: absolute; top: 8px; right: 8px; padding: 1px 8px; border-radius: 99px; font-size: 12.5px;
  background: rgb(0 0 0 / .62); color: #fff; font-variant-numeric: tabular-nums; }
.words { height: var(--words); padding: 11px 14px; display: flex; flex-direction: column; gap: 6px;
  overflow-wrap: anywhere; }
p { margin: 0; }
.caption { font-weight: 500; }
.context, dialog ul { color: var(--soft); font-size: 13.5px; }
.card .caption, .card .context, .card .error { display: -webkit-box; -webkit-box-orient: vertical; overflow: hidden;
  -webkit-line-clamp: 3; }
.card .context { -webkit-line-clamp: 1; }
.label { color: var(--accent); font-size: 11px; font-weight: 600; letter-spacing: .04em; text-transform: uppercase;
  margin-right: 3px; }
.error, .error .label { color: var(--bad); font-size: 13.5px; }
.failed { border-color: var(--bad); }
.file { margin-top: auto; color: var(--soft); font: 12px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
.card .file { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; flex: none; }
dialog { color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 20px;
  width: min(560px, 92vw); overflow-wrap: anywhere; }
dialog::backdrop { background: rgb(0 0 0 / .5); }
dialog > div { display: flex; flex-direction: column; gap: 10px; margin-bottom: 14px; }
dialog ul { margin: 2px 0 0; padding-left: 18px; }
@media (max-width: 520px) { :root { --width: 150px; --gap: 12px; } input { flex: 1; min-width: 0; }
  output { margin-right: 0; width: 100%; margin-top: -8px; } }
"""

BODY = """<header>
<h1>{title}</h1>
<output id="count" for="search" aria-live="polite"></output>
<label class="unseen" for="search">Search captions, files and errors</label>
<input id="search" type="search" placeholder="Search  ( / )" autocomplete="off" spellcheck="false">
<label class="unseen" for="sort">Sort by</label>
<select id="sort">
<option value="given">As written</option>
<option value="file">File name</option>
<option value="best" class="scored">Highest score</option>
<option value="worst" class="scored">Lowest score</option>
<option value="failed" class="faulty">Errors first</option>
</select>
</header>
<main><noscript>The cards of this page are made by JavaScript, which is switched off.</noscript>
<ul id="cards"></ul></main>
<dialog id="whole" aria-label="One image"><div></div><form method="dialog"><button>Close</button></form></dialog>
"""

FOOT = """<script>
const records = [];
for (const part of document.querySelectorAll('script[type="application/json"]')) {
  records.push(...JSON.parse(part.textContent));
  part.remove();
}
const find = id => document.getElementById(id), list = find("cards"), search = find("search"), sort = find("sort");
const texts = records.map(r => [r.caption, r.file, r.context, r.error, ...(r.alternatives || []),
  ...(r.references || [])].filter(Boolean).join("\\n").toLowerCase());
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
  const words = search.value.toLowerCase().split(/\\s+/).filter(Boolean), compare = orders[sort.value];
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
</script>
</body>
</html>
"""
