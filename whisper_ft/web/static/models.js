// Choice of the models, and news about them: a run that trains brings newer ones.

import { byId, element, modelFacts, modelName, percent, show, showText } from "./format.js";
import { getJson } from "./server.js";

const POLL_MS = 5000;

export class Models {
  constructor() {
    this.choices = new Map();
    byId("model").addEventListener("change", () => this.chosen());
    document.addEventListener("visibilitychange", () => this.poll());
    setInterval(() => this.poll(), POLL_MS);
  }

  get model() {
    return this.choices.get(byId("model").value);
  }

  // The second model; undefined if none is compared.
  get compared() {
    return byId("compare").value === byId("model").value ? undefined : this.choices.get(byId("compare").value);
  }

  // Read the models for the first time. Throws ServerError.
  async load() {
    const answer = await getJson("/api/models");
    // The start model is compared on demand only, because it takes as long again.
    this.take(answer, answer.default, answer.compare?.endsWith("start") ? "" : answer.compare ?? "");
    this.isLoaded = true;
    await this.chosen();
  }

  async poll() {
    if (document.hidden || !this.isLoaded) return;
    const before = this.model;
    const answer = await getJson("/api/models").catch(() => null); // the next request of the user says why
    if (!answer) return;
    this.take(answer, byId("model").value, byId("compare").value);
    const now = this.model;
    if (!before && now) await this.chosen();
    if (before && now && before.step !== now.step && now.follows) {
      const rate = now.value == null ? "" : ` (${now.metric.toUpperCase()} ${percent(now.value, 2)})`;
      showText(byId("model-news"), `A newer best model is there: step ${now.step}${rate}. The next transcription uses it.`);
    }
  }

  take(answer, chosen, compared) {
    this.runs = answer.runs ?? [];
    this.maxBytes = answer.max_mb * 1e6;
    this.choices = new Map(answer.choices.map((choice) => [choice.id, choice]));
    fill(byId("model"), answer.choices, chosen);
    fill(byId("compare"), [null, ...answer.choices], compared);
    show(byId("all-runs"), answer.choices.some((choice) => choice.id.includes("/")));
    this.showFacts();
  }

  showFacts() {
    const run = this.runs.find((item) => item.state === "running" && (item.name === this.model?.run || this.runs.length === 1));
    const state = run ? ` · the run trains, step ${run.step?.toLocaleString("en") ?? "?"}` : "";
    byId("model-facts").textContent = this.model ? modelFacts(this.model) + state : "no model is there yet";
  }

  async chosen() {
    showText(byId("model-news"), "");
    this.showFacts();
    if (!this.model) return;
    const id = this.model.id;
    const answer = await getJson(`/api/languages?model=${encodeURIComponent(id)}`).catch(() => null);
    if (answer && id === this.model?.id) fillLanguages(answer);
  }
}

function fill(select, choices, chosen) {
  const options = choices.map((choice) =>
    element("option", { value: choice?.id ?? "", textContent: choice ? modelName(choice) : "no other model" }));
  const isSame = select.length === options.length &&
    options.every((option, place) => select.options[place].value === option.value && select.options[place].text === option.text);
  if (!isSame) select.replaceChildren(...options); // replacing would close a list that the user has open
  select.value = chosen;
  if (select.selectedIndex < 0) select.selectedIndex = 0;
}

function fillLanguages({ own, is_multilingual: isMultilingual, can_translate: canTranslate, languages }) {
  const before = byId("language").value;
  const named = (code) => languages.find((language) => language.code === code)?.name ?? code;
  const first = own ? `${capital(named(own))}, as tuned` : isMultilingual ? "detect" : "English";
  const options = [element("option", { value: "", textContent: first })];
  if (own && isMultilingual) options.push(element("option", { value: "auto", textContent: "detect" }));
  for (const { code, name } of languages) options.push(element("option", { value: code, textContent: capital(name) }));
  byId("language").replaceChildren(...options);
  byId("language").value = before;
  if (byId("language").selectedIndex < 0) byId("language").value = "";
  const translate = byId("task").querySelector('[value="translate"]');
  translate.disabled = !canTranslate;
  if (!canTranslate) byId("task").value = "transcribe";
}

function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}
