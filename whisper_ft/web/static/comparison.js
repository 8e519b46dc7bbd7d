// Two models side by side, and the blind test: which text is better, without knowing whose it is?

import { byId, counted, element, modelName, percent, show, weightsName } from "./format.js";
import { postJson } from "./server.js";

const KINDS = { same: null, spelling: "spelling", changed: "changed", first_only: "only", second_only: "only" };

export class Comparison {
  // onReveal is called once models and texts may be seen
  constructor(onReveal) {
    this.onReveal = onReveal;
    byId("vote").addEventListener("click", (event) => {
      const button = event.target.closest("[data-vote]");
      if (button) this.vote(Number(button.dataset.vote));
    });
    byId("blind").addEventListener("change", () => {
      if (!byId("blind").checked) this.reveal();
    });
    byId("compare").addEventListener("change", () => show(byId("blind-option"), Boolean(byId("compare").value)));
  }

  get isBlind() {
    return byId("blind").checked;
  }

  // Toss a coin: may the second model be the first to be transcribed and shown?
  static isSwapped() {
    return crypto.getRandomValues(new Uint8Array(1))[0] % 2 === 1;
  }

  clear() {
    this.sides = null;
    show(byId("beside"), false);
    show(byId("vote"), false);
    byId("tally").replaceChildren();
  }

  // Show the texts of two models. In a blind test their names are hidden, and a coin gives their order.
  // isCurrent() is false once another transcription has begun.
  async show(first, second, isCurrent) {
    const { stretches, changed, words } = await postJson("/api/differences", { first: first.text, second: second.text });
    if (!isCurrent()) return;
    this.sides = [first, second]; // { id, model, text }
    this.isHidden = this.isBlind && first.text.trim() !== second.text.trim();
    this.order = this.isHidden && Comparison.isSwapped() ? [1, 0] : [0, 1];
    const texts = [byId("first-text"), byId("second-text")];
    this.order.forEach((side, place) => texts[place].replaceChildren(...marked(stretches, side ? "second" : "first")));
    byId("beside-facts").textContent = changed
      ? `${counted(changed, "word")} of ${words.toLocaleString("en")} differ${words ? ` (${percent(changed / words)})` : ""}`
      : "Both models wrote the same words.";
    show(byId("beside-key"), stretches.some((stretch) => stretch.kind !== "same"));
    show(byId("vote"), this.isHidden);
    show(byId("beside"), true);
    this.nameSides();
    if (!this.isHidden) this.onReveal();
  }

  nameSides() {
    const names = this.order.map((side) => modelName(this.sides[side].model));
    byId("first-name").textContent = this.isHidden ? "A" : names[0];
    byId("second-name").textContent = this.isHidden ? "B" : names[1];
  }

  reveal() {
    if (!this.isHidden) return; // nothing is compared, or all is shown
    this.isHidden = false;
    show(byId("vote"), false);
    this.nameSides();
    this.onReveal();
  }

  // Keep an answer: the place of the better text, or -1 for none. There is one answer for each pair of texts.
  async vote(place) {
    const { sides } = this;
    if (!this.isHidden || this.isSending) return;
    const [first, second] = sides;
    const better = place < 0 ? "equal" : ["first", "second"][this.order[place]];
    const answer = {
      first: weightsName(first.model), second: weightsName(second.model), better, texts: [first.text, second.text], pair: `${first.id} ${second.id}`,
    };
    this.isSending = true;
    try {
      const names = { first: modelName(first.model), second: modelName(second.model) };
      const tally = await postJson("/api/blind_test", answer);
      if (this.sides !== sides) return; // another transcription has begun
      showTally(tally, names, better, place);
    } catch (error) {
      if (this.sides === sides) byId("tally").textContent = error.message;
      return;
    } finally {
      this.isSending = false;
    }
    this.reveal();
    byId("beside-title").focus();
  }
}

// Texts of one side. A part that only the other side has leaves nothing here.
function marked(stretches, side) {
  return stretches.filter((stretch) => stretch[side]).map((stretch) => {
    const kind = KINDS[stretch.kind];
    if (!kind) return document.createTextNode(stretch[side]);
    const space = stretch[side].match(/^\s*/)[0];
    const mark = element("mark", { className: kind, textContent: stretch[side].slice(space.length) });
    return element("span", {}, space, mark);
  });
}

function showTally(tally, { first, second }, better, place) {
  const said = place < 0 ? "You saw no difference." : `You chose ${"AB"[place]}: ${{ first, second }[better]}.`;
  const lines = [element("p", {}, element("strong", { textContent: said }))];
  const bar = element("div", { className: "shares" });
  for (const [name, count] of [["first", tally.first], ["equal", tally.equal], ["second", tally.second]]) {
    if (!count) continue;
    const part = element("span", { className: name, textContent: count });
    part.style.flexGrow = count;
    bar.append(part);
  }
  bar.setAttribute("aria-hidden", "true");
  lines.push(element("p", { textContent: `${first}: ${tally.first} · ${second}: ${tally.second} · no difference: ${tally.equal}` }), bar);
  if (tally.interval) {
    const [low, high] = tally.interval;
    const verdict = tally.is_decided ? "" : " An even split is within the interval, so this decides nothing yet.";
    const range = `${percent(tally.share)} of the answers with a preference are for ${first} ` +
      `(${percent(tally.level)} interval: ${percent(low)} to ${percent(high)}).${verdict}`;
    lines.push(element("p", { textContent: range }));
  }
  byId("tally").replaceChildren(...lines);
}
