"use strict";
const byId = id => document.getElementById(id);
const models = JSON.parse(byId("models").textContent);
let images = [];  // the files of the last request
let running = null;

// Settings --------------------------------------------------------------------------------------------------------------

const model = () => models[byId("model").selectedIndex] || models[0];

// The slider counts heads: the first of each kind, in turn, so that 3 is 2 visual and 1 text.
function budget(count) {
  const {visual, text} = model();
  const few = Math.min(visual, text, Math.ceil(count / 2));
  const first = Math.min(visual, Math.max(Math.ceil(count / 2), count - text));
  return few ? [first, count - first] : visual ? [count, 0] : [0, count];
}

function settingsFit() {
  const {visual, text, routed, context} = model(), all = visual + text;
  byId("heads").max = all;
  byId("heads").min = visual && text ? 2 : 1;
  byId("heads").value = all;
  byId("headsrow").hidden = routed || all < 2;
  byId("contextrow").hidden = !context;
  headsSaid();
}

function headsSaid() {
  const [visual, text] = budget(Number(byId("heads").value));
  byId("headsaid").textContent = `${visual} visual + ${text} text`;
}

for (const {name} of models) byId("model").append(new Option(name));
byId("modelrow").hidden = models.length < 2;
byId("model").addEventListener("change", settingsFit);
byId("heads").addEventListener("input", headsSaid);
settingsFit();

// Asking ----------------------------------------------------------------------------------------------------------------

function form() {
  const data = new FormData();
  for (const image of images) data.append("image", image, image.name || "image");
  data.append("model", model().name);
  const wanted = Number(byId("count").value);
  data.append("search", JSON.stringify(wanted > 1 ? {num_captions: wanted, beam_size: Math.max(wanted, 3)} : {}));
  if (model().context && byId("context").value.trim()) data.append("context", byId("context").value.trim());
  const count = Number(byId("heads").value);
  if (!byId("headsrow").hidden && count < Number(byId("heads").max)) data.append("heads", budget(count).join("+"));
  return data;
}

async function ask(path) {
  const key = byId("key").value;
  const response = await fetch(path, {method: "POST", body: form(), signal: running.signal,
    headers: key ? {Authorization: `Bearer ${key}`} : {}});
  if (response.ok) return response;
  if (response.status === 401) byId("keyrow").hidden = false;
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message || `the server answered ${response.status}`);
}

async function caption() {
  if (!images.length) return;
  running?.abort();
  running = new AbortController();
  const mine = running, start = performance.now();
  say("Captioning …");
  byId("again").disabled = false;
  byId("maps").hidden = true;
  try {
    const answer = await (await ask("/caption")).json();
    show(answer, performance.now() - start);
    remember(answer);
  } catch (error) {
    if (mine === running && error.name !== "AbortError") say(error.message, true);
  }
}

async function look() {
  running?.abort();
  running = new AbortController();
  say("Looking …");
  try {
    byId("frame").srcdoc = await (await ask("/explain")).text();
    byId("maps").hidden = false;
    byId("maps").scrollIntoView({behavior: "smooth"});
    say("");
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

// Showing ---------------------------------------------------------------------------------------------------------------

function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

function show(answer, milliseconds) {
  say("");
  byId("caption").textContent = answer.caption;
  byId("words").replaceChildren(...answer.words.map(([word, sure]) => {
    const element = document.createElement("span");
    element.className = "word";
    element.textContent = word;
    element.title = `${(100 * sure).toFixed(0)} % sure`;
    element.style.setProperty("--sure", sure);
    return element;
  }));
  byId("others").replaceChildren(...answer.alternatives.map(other => {
    const element = document.createElement("li");
    element.textContent = other.caption;
    return element;
  }));
  byId("seconds").textContent = milliseconds ? `${(milliseconds / 1000).toFixed(2)} s` : "";
  for (const id of ["caption", "words", "actions"]) byId(id).hidden = false;
}

function preview() {
  byId("empty").hidden = images.length > 0;
  byId("shown").replaceChildren(...images.map(image => {
    const element = document.createElement("img");
    element.src = URL.createObjectURL(image);
    element.alt = "the image to caption";
    element.onerror = () => { element.alt = image.name || "an image that the browser cannot show"; };
    return element;
  }));
}

function remember(answer) {
  const files = images, entry = document.createElement("li"), button = document.createElement("button");
  const picture = document.createElement("img"), text = document.createElement("span");
  picture.src = URL.createObjectURL(files[0]);
  picture.alt = "";
  text.textContent = answer.caption;
  button.type = "button";
  button.append(picture, text);
  button.addEventListener("click", () => { images = files; preview(); show(answer, 0); });
  entry.append(button);
  byId("history").prepend(entry);
  byId("past").hidden = false;
}

// Images in -------------------------------------------------------------------------------------------------------------

function take(files) {
  const found = [...files].filter(file => file.size);
  if (!found.length) return;
  images = found.slice(0, model().views);
  preview();
  caption();
}

byId("file").addEventListener("change", event => { take(event.target.files); event.target.value = ""; });
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
byId("again").addEventListener("click", caption);
byId("look").addEventListener("click", look);
byId("copy").addEventListener("click", async () => {
  const text = byId("caption").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // without https browsers have no clipboard
    const range = document.createRange();
    range.selectNodeContents(byId("caption"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
  say("Copied.");
});

// Camera ----------------------------------------------------------------------------------------------------------------

let stream = null;
function cameraOff() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  byId("video").hidden = byId("shoot").hidden = true;
  byId("camera").textContent = "Camera";
}
byId("camera").addEventListener("click", async () => {
  if (stream) return cameraOff();
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment"}});
  } catch (error) {
    return say(`The camera cannot be used: ${error?.message || "this address is not secure"}.`, true);
  }
  byId("video").srcObject = stream;
  byId("video").hidden = byId("shoot").hidden = false;
  byId("camera").textContent = "Close camera";
  await byId("video").play();
});
byId("shoot").addEventListener("click", () => {
  const video = byId("video"), canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob(blob => { cameraOff(); take([blob]); }, "image/jpeg", 0.92);
});
