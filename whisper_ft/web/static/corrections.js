// Correct and keep: the texts of a recording are corrected window by window, and kept with their sound for training.

import { byId, clock, copy, counted, element, show, showText, when } from "./format.js";
import { getJson, postForm, remove } from "./server.js";

const MOST_SHOWN = 100; // newest corrections; all of them are in the folder
const REMEMBERED = ["speaker", "consent"];

export class Corrections {
  // current() returns { file, windows, model, language, task, chosenId }; play(seconds) plays from a time
  constructor(current, play) {
    Object.assign(this, { current, play });
    byId("correct").addEventListener("click", () => this.open());
    byId("discard").addEventListener("click", () => {
      this.close();
      byId("correct").focus();
    });
    byId("correction").addEventListener("submit", (event) => {
      event.preventDefault();
      this.keep();
    });
    byId("copy-command").addEventListener("click", (event) => copy(byId("command").textContent, event.target));
    for (const id of REMEMBERED) byId(id).value = remembered(id);
  }

  open() {
    const { windows } = this.current();
    byId("parts").replaceChildren(...windows.map((window) => this.partOf(window)));
    showText(byId("keep-problem"), "");
    show(byId("editor"), true);
    byId("editor-title").focus();
  }

  partOf(window) {
    const [begin, end] = [clock(window.begin), clock(window.begin + window.seconds)];
    const play = element("button", { type: "button", className: "time", textContent: begin });
    play.setAttribute("aria-label", `Play from ${begin}`);
    play.addEventListener("click", () => this.play(window.begin));
    const text = element("textarea", { value: window.text, rows: Math.max(2, Math.ceil(window.text.length / 70)), dir: "auto", maxLength: 2000 });
    text.setAttribute("aria-label", `Text from ${begin} to ${end}`);
    return element("li", {}, play, text);
  }

  close() {
    show(byId("editor"), false);
    byId("parts").replaceChildren();
  }

  async keep() {
    const { file, windows, model, language, task } = this.current();
    const texts = [...byId("parts").querySelectorAll("textarea")].map((text) => text.value.trim());
    const parts = windows.map((window, place) => ({
      start: window.begin, end: window.begin + window.seconds, text: texts[place], hypothesis: window.text,
    })).filter((part) => part.text);
    for (const id of REMEMBERED) remember(id, byId(id).value);
    const fields = { parts: JSON.stringify(parts), speaker: byId("speaker").value, consent: byId("consent").value, model, language: language ?? "", task };
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", file);
    if (this.isKeeping) return;
    this.isKeeping = true;
    try {
      const { ids, folder } = await postForm("/api/corrections", form, (share) => {
        byId("keep-bar").value = share;
        show(byId("keep-bar"), true);
      });
      this.close();
      await this.list();
      byId("kept-news").textContent = `Kept ${counted(ids.length, "part")} in ${folder}.`;
      byId("kept-title").focus();
    } catch (error) {
      showText(byId("keep-problem"), error.message);
    } finally {
      show(byId("keep-bar"), false);
      this.isKeeping = false;
    }
  }

  // Show the kept corrections, the newest first.
  async list() {
    const { chosenId } = this.current();
    const { folder, rows, seconds, command } = await getJson(`/api/corrections?model=${encodeURIComponent(chosenId)}`);
    for (const code of document.querySelectorAll("code.folder")) code.textContent = folder;
    show(byId("kept"), true);
    byId("kept-news").textContent = rows.length ? "" : "None yet. A corrected text is kept with its sound, and the folder is training data as it is.";
    show(byId("training"), rows.length > 0);
    show(byId("kept-details"), rows.length > 0);
    // Each option stays on one line with its value, if there is room.
    const options = command.split(/ (?=--)/).flatMap((option) => [element("span", { textContent: option }), " "]);
    byId("command").replaceChildren(...options.slice(0, -1));
    byId("kept-count").textContent = `${counted(rows.length, "part")}, ${clock(seconds, true)}, in ${folder}` +
      (rows.length > MOST_SHOWN ? `; the newest ${MOST_SHOWN} are here` : "");
    byId("kept-rows").replaceChildren(...rows.slice(-MOST_SHOWN).reverse().map((row) => this.rowOf(row)));
  }

  rowOf(row) {
    const sound = element("audio", { controls: true, preload: "none", src: `/api/corrections/${row.id}.wav` });
    sound.setAttribute("aria-label", `Sound of: ${row.text}`);
    const facts = [row.speaker, row.consent, row.model, when(row.time)].filter(Boolean).join(" · ");
    const button = element("button", { type: "button", textContent: "Delete" });
    button.setAttribute("aria-label", `Delete: ${row.text}`);
    button.addEventListener("click", () => this.confirm(button, row));
    return element("li", {}, element("p", { dir: "auto", textContent: row.text }), sound, element("p", { className: "soft", textContent: facts }), button);
  }

  // The first click asks, the second deletes.
  async confirm(button, row) {
    if (!button.classList.contains("danger")) {
      button.classList.add("danger");
      button.textContent = "Delete for good";
      button.setAttribute("aria-label", `Delete for good: ${row.text}`);
      return;
    }
    try {
      await remove(`/api/corrections/${row.id}`);
      await this.list();
      byId("kept-news").textContent = "Deleted: sound and text.";
      byId("kept-title").focus();
    } catch (error) {
      byId("kept-news").textContent = error.message;
    }
  }
}

// A browser may forbid storage; then the fields begin empty.
function remembered(id) {
  try {
    return localStorage.getItem(id) ?? "";
  } catch {
    return "";
  }
}

function remember(id, value) {
  try {
    localStorage.setItem(id, value);
  } catch {
    // the next visit begins with an empty field
  }
}
