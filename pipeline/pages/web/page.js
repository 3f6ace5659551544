import * as ort from "./ort.wasm.min.mjs";
import {decode as pixelsOf, fit} from "./image.js";
import {decode, search} from "./search.js";

const byId = id => document.getElementById(id);
const opened = performance.now();
let first = true, asked = 0;

ort.env.wasm.numThreads = 1;  // more need headers of the server
ort.env.wasm.wasmPaths = new URL("./", import.meta.url).href;

async function load() {
  const config = await (await fetch("config.json")).json();
  const [encode, step] = await Promise.all(["encode.onnx", "step.onnx"].map(name => ort.InferenceSession.create(name)));
  return {config, encode, step};
}

function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

async function caption(file) {
  const {config, encode, step} = await model;
  const [height, width] = config.image.size, channels = config.image.mean.length;
  const pixels = new ort.Tensor("uint8", fit(await pixelsOf(file), config.image), [1, 1, channels, height, width]);
  const given = {pixels, view_mask: new ort.Tensor("bool", [1], [1, 1]),
    tokens: new ort.Tensor("int64", [0n], [1, 1]), token_mask: new ort.Tensor("bool", [0], [1, 1])};
  if (config.context) {
    const numbers = Object.keys(config.context.numbers).length, categories = Object.keys(config.context.categories).length;
    given.numbers = new ort.Tensor("float32", new Float32Array(numbers).fill(NaN), [1, numbers]);
    given.categories = new ort.Tensor("int64", new BigInt64Array(categories).fill(-1n), [1, categories]);
  }
  const found = await encode.run(Object.fromEntries(encode.inputNames.map(name => [name, given[name]])));
  const memory = Object.fromEntries(step.inputNames.filter(name => name in found).map(name => [name, found[name]]));
  const chances = config.guide && config.search.guidance ? found[`label_${config.guide.label}`].data : null;
  return decode(await search(ort, step, memory, config, chances), config);
}

async function take(files) {
  const file = [...files].find(entry => entry.size);
  if (!file) return;
  const mine = ++asked, start = performance.now();
  URL.revokeObjectURL(byId("shown").src);
  byId("shown").src = URL.createObjectURL(file);
  byId("shown").hidden = false;
  byId("empty").hidden = byId("caption").hidden = true;
  byId("seconds").textContent = "";
  say("Captioning …");
  try {
    const text = await caption(file);
    if (mine !== asked) return;
    byId("caption").textContent = text;
    byId("caption").hidden = false;
    const now = performance.now(), seconds = value => `${(value / 1000).toFixed(2)} s`;
    byId("seconds").textContent = first ? `first caption ${seconds(now - start)}, ${seconds(now - opened)} after the page was opened` : seconds(now - start);
    first = false;
    say("");
  } catch (error) {
    if (mine === asked) say(`This cannot be captioned: ${error.message || error}`, true);
  }
}

const model = load();
model.then(() => { if (!asked) say("Ready."); }, error => say(`The model cannot be loaded: ${error.message || error}`, true));

byId("file").addEventListener("change", event => { take(event.target.files); });
byId("drop").addEventListener("keydown", event => {
  if (event.target === byId("drop") && (event.key === "Enter" || event.key === " ")) { event.preventDefault(); byId("file").click(); }
});
for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, event => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
for (const kind of ["dragleave", "drop"]) document.addEventListener(kind, event => {
  event.preventDefault();
  byId("drop").classList.remove("over");
});
document.addEventListener("drop", event => take(event.dataTransfer.files));
document.addEventListener("paste", event => take(event.clipboardData.files));
