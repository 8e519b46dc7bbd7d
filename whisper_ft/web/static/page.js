// The page: a sound is transcribed as soon as it is there, and everything about the text is shown as it comes.

import { Comparison } from "./comparison.js";
import { Corrections } from "./corrections.js";
import { byId, clock, copy, counted, element, modelName, save, show, showText } from "./format.js";
import { Models } from "./models.js";
import { getBlob, transcription } from "./server.js";
import { Sound } from "./sound.js";
import { TranscriptView } from "./transcript.js";

const NO_TEXT = new Set(["silence"]); // signs of windows that were not decoded

const models = new Models();
const sound = new Sound(() => run());
const view = new TranscriptView(byId("text"), (seconds) => sound.play(seconds), (text) => showText(byId("word-news"), text));
const comparison = new Comparison(() => revealText());
const corrections = new Corrections(
  () => ({
    file: sound.file, windows: view.windows, chosenId: models.model?.id ?? "",
    model: shown && modelName(shown.model), language: shown?.language, task: shown?.task,
  }),
  (seconds) => sound.play(seconds),
);
let controller = null; // of the transcription that runs
let shown = null; // { id, model, text, language, task } of the text on the page

// Transcribe the sound, and with a second model for comparison.
async function run() {
  controller?.abort();
  const mine = (controller = new AbortController());
  clear();
  try {
    if (!models.model) throw new Error("No model is there yet. The run writes one at its first evaluation; this page notices it.");
    refuseLarge(sound.file);
    const second = models.compared;
    const isHidden = Boolean(second) && comparison.isBlind;
    const jobs = [{ model: models.model, isMain: true }, ...(second ? [{ model: second, isMain: false }] : [])];
    if (isHidden && Comparison.isSwapped()) jobs.reverse();
    const results = [];
    for (const [place, { model, isMain }] of jobs.entries()) {
      const which = second ? `${isHidden ? `Text ${place + 1}` : modelName(model)}: ` : "";
      const result = await transcribe(model, which, isMain, isHidden, mine.signal);
      results[isMain ? 0 : 1] = result;
      if (isMain) shown = result;
      if (isMain && !isHidden) revealText();
    }
    endProgress();
    if (!second) revealText();
    else if (isHidden) byId("text-facts").textContent = "hidden until you choose";
    if (second) await comparison.show(...results, () => controller === mine);
  } catch (error) {
    if (error.name === "AbortError") {
      if (controller === mine) showText(byId("problem"), "Cancelled. The text up to here is kept on the page.");
    } else {
      const wait = error.retrySeconds ? ` Try again in ${error.retrySeconds} s.` : "";
      showText(byId("problem"), `${error.message}${wait}`);
    }
    if (controller === mine) endProgress();
  }
}

function refuseLarge(file) {
  if (file.size > models.maxBytes) {
    const [size, most] = [file.size, models.maxBytes].map((bytes) => `${Math.round(bytes / 1e6).toLocaleString("en")} MB`);
    throw new Error(`The file has ${size}, and the server takes up to ${most}. Convert it to another format, such as opus, or start the server with a larger --max_mb.`);
  }
}

function clear() {
  shown = null;
  view.clear();
  comparison.clear();
  corrections.close();
  for (const id of ["text-tools", "text-actions", "signs"]) show(byId(id), false);
  byId("text-facts").textContent = "";
  showText(byId("problem"), "");
  showText(byId("model-news"), "");
  show(byId("text"), false);
  show(byId("result"), true);
}

function endProgress() {
  show(byId("progress"), false);
  byId("result").setAttribute("aria-busy", "false");
}

// Read the options into a form, which the sound ends.
function formOf(model) {
  const form = new FormData();
  form.append("model", model.id);
  for (const id of ["language", "task", "prompt"]) form.append(id, byId(id).value);
  form.append("num_beams", byId("beams").value || "1");
  for (const [id, field] of [["timestamps", "timestamps"], ["words", "words"], ["fallback", "temperature_fallback"]]) {
    form.append(field, String(byId(id).checked));
  }
  form.append("file", sound.file, sound.name);
  return form;
}

// Transcribe with one model. Its text is shown as it comes, if it is the main one and not hidden.
async function transcribe(model, which, isMain, isHidden, signal) {
  const task = byId("task").value;
  const begin = performance.now();
  let used = model;
  let seconds = null;
  const sent = (share) => progress(`${which}${share < 1 ? "sending the sound" : "waiting for the server"}`, share < 1 ? share : null);
  sent(0);
  for await (const [name, value] of transcription(formOf(model), signal, sent)) {
    if (name === "queued" && value.ahead) progress(`${which}waiting, ${counted(value.ahead, "request")} before this one`, null);
    if (name === "loading") progress(`${which}loading the model`, null);
    if (name === "started") {
      ({ model: used, seconds } = value);
      progress(`${which}listening`, 0);
    }
    if (name === "window") {
      if (isMain) view.add(value);
      if (isMain && !isHidden) show(byId("text"), true);
      const done = value.begin + value.seconds;
      progress(`${which}${clock(done)}${seconds ? ` of ${clock(seconds)}` : ""}`, seconds ? done / seconds : null);
    }
    if (name === "done") return { ...value, model: used, task, took: (performance.now() - begin) / 1000 };
  }
  throw new Error("The text ended early.");
}

function progress(text, share) {
  show(byId("progress"), true);
  byId("result").setAttribute("aria-busy", "true");
  if (byId("progress-text").textContent !== text) byId("progress-text").textContent = text; // a screen reader reads each change
  if (share == null) byId("bar").removeAttribute("value");
  else byId("bar").value = Math.min(1, share);
}

// Show all about the finished text.
function revealText() {
  if (!shown) return;
  const { model, language, seconds, took, signs, problem } = shown;
  const facts = [modelName(model), language, clock(seconds, true), `in ${clock(took, true)}`];
  byId("text-facts").textContent = facts.filter(Boolean).join(" · ");
  show(byId("text"), true);
  if (!view.words.length) view.place.replaceChildren(element("p", { className: "soft", textContent: "No speech was heard." }));
  if (problem) showText(byId("problem"), `The recording could not be read to its end: ${problem}`);
  byId("sign-rows").replaceChildren(...signs.map(signOf));
  show(byId("signs"), signs.length > 0);
  show(byId("signs-title"), signs.some((sign) => !NO_TEXT.has(sign.code)));
  const hasConfidence = view.words.some((word) => word.node.title);
  show(byId("text-tools"), hasConfidence);
  byId("unsure-count").textContent = `${view.unsureCount} of ${counted(view.words.length, "word")} unsure`;
  byId("next-unsure").disabled = !view.unsureCount;
  byId("downloads").replaceChildren(...shown.formats.filter((form) => form !== "tsv").map(downloadOf));
  show(byId("text-actions"), true);
  byId("correct").disabled = !view.windows.length;
}

function signOf(sign) {
  const time = element("button", { type: "button", className: "time", textContent: clock(sign.begin) });
  time.setAttribute("aria-label", `Play from ${clock(sign.begin)}`);
  time.addEventListener("click", () => sound.play(sign.begin));
  return element("li", {}, time, ` ${sign.message}`);
}

function downloadOf(form) {
  const button = element("button", { type: "button", textContent: `.${form}` });
  button.setAttribute("aria-label", `Download as ${form}`);
  button.addEventListener("click", async () => {
    try {
      save(await getBlob(`/api/transcripts/${shown.id}.${form}`), `${sound.name.replace(/\.[^.]*$/, "")}.${form}`);
    } catch (error) {
      showText(byId("problem"), `${error.message} Transcribe again to download it.`);
    }
  });
  return button;
}

function lightWords() {
  view.light(sound.audio.currentTime);
  if (!sound.audio.paused) requestAnimationFrame(lightWords);
}

window.addEventListener("beforeunload", (event) => {
  if (sound.recorder) event.preventDefault(); // the browser asks, so that no recording is lost
});
for (const event of ["play", "seeked"]) sound.audio.addEventListener(event, lightWords);
byId("run").addEventListener("click", run);
byId("cancel").addEventListener("click", () => {
  controller?.abort();
  byId("text-title").focus(); // the button goes, and its focus with it
});
byId("copy").addEventListener("click", (event) => copy(shown.text, event.target));
byId("colours").addEventListener("change", (event) => view.showColours(event.target.checked));
byId("next-unsure").addEventListener("click", () => view.nextUnsure());
byId("model").addEventListener("change", () => corrections.list().catch(() => {}));

try {
  await models.load();
  show(byId("blind-option"), Boolean(byId("compare").value));
  await corrections.list();
} catch (error) {
  showText(byId("sound-problem"), error.message);
  byId("record").disabled = true;
}
