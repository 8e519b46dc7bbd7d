// Texts for times, shares and models, and small helpers for elements.

export const byId = (id) => document.getElementById(id);

// Make an element with properties and children. Texts are never parsed as markup.
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

export function show(target, isShown) {
  target.hidden = !isShown;
}

export function showText(target, text) {
  target.textContent = text;
  target.hidden = !text;
}

// 3725.4 -> 1:02:05; a length below a minute has its tenths: 7.2 s
export function clock(seconds, withTenths = false) {
  if (withTenths && seconds < 60) return `${seconds.toFixed(1)}\u00a0s`;
  const whole = Math.floor(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const end = `${String(rest).padStart(2, "0")}`;
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${end}` : `${minutes}:${end}`;
}

export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)}\u00a0%`;
}

export function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function when(time) {
  return new Date(time).toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" });
}

// Name of a model for people, with the step of its weights.
export function modelName(model) {
  return model.name + (!model.step || model.id.includes("step-") ? "" : `, step ${model.step.toLocaleString("en")}`);
}

// Name by which answers about a model are counted: with its run and its weights, of which no other model has both.
export function weightsName(model) {
  const run = model.run && !model.name.startsWith(`${model.run}: `) ? `${model.run}: ` : ""; // a folder of runs has it in the name
  return run + model.name + (model.step ? `, step ${model.step}` : model.time ? `, ${model.time}` : "");
}

export function modelFacts(model) {
  const rate = model.value == null ? null : `${(model.metric ?? "rate").toUpperCase()} ${percent(model.value, 2)}`;
  const facts = [
    !model.step ? null : `step ${model.step.toLocaleString("en")}`,
    rate,
    model.time ? `saved ${when(model.time)}` : null,
    model.is_loaded ? "in memory" : "read at the first use",
  ];
  return facts.filter(Boolean).join(" · ");
}

// Put a text on the clipboard, and say so on the button. Without https the browser has no clipboard to offer.
export async function copy(text, button) {
  const name = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select and copy by hand";
  }
  setTimeout(() => { button.textContent = name; }, 2000);
}

// Save a blob as a file of the user.
export function save(blob, name) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
