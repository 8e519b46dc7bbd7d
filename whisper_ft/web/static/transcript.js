// View of a transcript: its words coloured by confidence, lit while they are played, and walked through by keys.

import { clock, element, percent } from "./format.js";

// Upper ends of the classes of confidence. The style sheet marks them by colour and by the kind of underline.
const CLASSES = [[0.5, "doubtful"], [0.7, "unsure"], [0.9, "fairly"], [Infinity, "sure"]];
const UNSURE = 0.7;

export class TranscriptView {
  // place: element to fill; play(seconds) plays from a time; announce(text) tells a screen reader
  constructor(place, play, announce) {
    Object.assign(this, { place, play, announce });
    place.addEventListener("click", (event) => this.playFrom(event.target.closest(".word")));
    place.addEventListener("keydown", (event) => this.walk(event));
    this.clear();
  }

  clear() {
    this.words = []; // { node, start, end, probability }, the last one missing without word confidence
    this.windows = [];
    this.cursor = -1;
    this.lit = null;
    this.place.replaceChildren();
  }

  get unsureCount() {
    return this.words.filter(isUnsure).length;
  }

  // Add a window of the transcription: a paragraph for each phrase to which the model gave a time, else one for all.
  add(window) {
    this.windows.push(window);
    if (!window.text && !window.signs.length) return;
    const isTimed = window.segments.length > 1;
    for (const segments of isTimed ? window.segments.map((segment) => [segment]) : [window.segments]) {
      const begin = isTimed ? segments[0].start : window.begin;
      const time = element("button", { type: "button", className: "time", textContent: clock(begin), tabIndex: -1 });
      time.setAttribute("aria-label", `Play from ${clock(begin)}`);
      time.addEventListener("click", () => this.play(begin));
      const text = element("span", { dir: "auto", className: "paragraph-text" });
      if (!window.text) text.append(element("em", { className: "soft", textContent: "no speech" }));
      for (const segment of segments) text.append(...this.nodesOf(segment));
      const marked = window.signs.length ? " has-signs" : "";
      this.place.append(element("p", { className: `paragraph${marked}` }, time, text));
    }
  }

  nodesOf(segment) {
    if (!segment.words?.length) {
      const node = this.wordNode(segment.text.trim(), segment);
      return [node, " "];
    }
    return segment.words.flatMap((word) => {
      const spaced = /^\s/.test(word.word);
      return [spaced ? " " : "", this.wordNode(word.word.trim(), word)];
    });
  }

  wordNode(text, { start, end, probability }) {
    const node = element("span", { className: "word", textContent: text });
    if (probability != null) {
      node.classList.add(CLASSES.find(([limit]) => probability < limit)[1]);
      node.title = `${percent(probability)} sure, at ${clock(start)}`;
    }
    node.dataset.place = this.words.length;
    this.words.push({ node, start, end, probability });
    return node;
  }

  playFrom(node) {
    if (!node || !window.getSelection().isCollapsed) return; // a selection of text is no click
    this.moveTo(Number(node.dataset.place));
    this.play(this.words[this.cursor].start);
  }

  // Light the word at a time of the recording. The page follows if the last lit word was in sight.
  light(seconds) {
    const place = this.placeAt(seconds);
    const word = place < 0 ? null : this.words[place];
    if (word === this.lit) return;
    const wasSeen = !this.lit || isSeen(this.lit.node);
    this.lit?.node.classList.remove("lit");
    this.lit = word;
    if (!word) return;
    word.node.classList.add("lit");
    if (wasSeen && !isSeen(word.node)) word.node.scrollIntoView({ block: "center" });
  }

  // Find the last word that has begun, by bisection; -1 before the first.
  placeAt(seconds) {
    let [low, high] = [0, this.words.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.words[middle].start <= seconds) low = middle + 1;
      else high = middle;
    }
    const word = this.words[low - 1];
    return word && seconds < Math.max(word.end, word.start + 0.1) ? low - 1 : -1;
  }

  walk(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || !this.words.length) return;
    const isReversed = getComputedStyle(this.words[Math.max(this.cursor, 0)].node).direction === "rtl";
    const step = { ArrowRight: isReversed ? -1 : 1, ArrowLeft: isReversed ? 1 : -1 }[event.key];
    if (step) this.moveTo(Math.max(0, Math.min(this.words.length - 1, this.cursor + step)));
    else if (event.key === "Home") this.moveTo(0);
    else if (event.key === "End") this.moveTo(this.words.length - 1);
    else if (event.key === "Enter" && event.target === this.place) this.play(this.words[Math.max(this.cursor, 0)].start);
    else return;
    event.preventDefault();
  }

  moveTo(place) {
    this.words[this.cursor]?.node.classList.remove("cursor");
    this.cursor = place;
    const { node, start, probability } = this.words[place];
    node.classList.add("cursor");
    if (!isSeen(node)) node.scrollIntoView({ block: "center" });
    const confidence = probability == null ? "" : `${percent(probability)} sure, `;
    this.announce(`${node.textContent}, ${confidence}at ${clock(start)}`);
  }

  // Move to the next word of low confidence, after the last one to the first.
  nextUnsure() {
    const unsure = [...this.words.keys()].filter((place) => isUnsure(this.words[place]));
    if (!unsure.length) return;
    this.moveTo(unsure.find((place) => place > this.cursor) ?? unsure[0]);
    this.place.focus({ preventScroll: true });
  }

  showColours(isShown) {
    this.place.classList.toggle("plain", !isShown);
  }
}

function isUnsure({ probability }) {
  return probability != null && probability < UNSURE;
}

function isSeen(node) {
  const box = node.getBoundingClientRect();
  return box.top >= 0 && box.bottom <= window.innerHeight;
}
