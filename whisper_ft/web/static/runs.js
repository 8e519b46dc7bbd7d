// The overview of runs: state, curves and results of each, read again every few seconds.

import { byId, counted, element, percent as rounded } from "./format.js";
import { getJson } from "./server.js";

const POLL_MS = 5000;
const KIND_NAMES = { report: "report", curves: "curves", data: "check of the data" };
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320, HEIGHT = 100;

let shown = "";

async function refresh() {
  if (document.hidden) return;
  let answer;
  try {
    answer = await getJson("/api/runs");
  } catch (error) {
    byId("news").textContent = `${error.message} The figures below are old.`;
    return;
  }
  const running = answer.runs.filter((run) => run.state === "running").length;
  const time = new Date().toLocaleTimeString();
  byId("news").textContent = answer.runs.length
    ? `${counted(answer.runs.length, "run")} in ${answer.served}${running ? `, ${running} training` : ""}; read at ${time}`
    : `${answer.served} is no run and holds none, so there is nothing to show here. The model can be tried.`;
  const text = JSON.stringify([answer.runs, answer.pages]);
  if (text === shown) return; // leave the focus and the selection alone
  shown = text;
  const focused = document.activeElement?.getAttribute("href");
  byId("runs").replaceChildren(...answer.runs.map(card), ...(answer.pages.length ? [otherPages(answer.pages)] : []));
  if (focused) [...document.querySelectorAll("main a")].find((link) => link.getAttribute("href") === focused)?.focus();
}

function card(run, place) {
  const title = element("h2", { id: `run-${place}`, textContent: run.name });
  const state = element("span", { className: `state ${run.state}`, textContent: run.state });
  const parts = [element("div", { className: "title" }, title, state)];
  if (run.state === "failed" && run.reason) parts.push(element("p", { className: "alert", textContent: run.reason }));
  parts.push(steps(run), tiles(run));
  const charts = [chart("loss of training", [run.loss], (value) => value.toFixed(3)), rates(run)].filter(Boolean);
  if (charts.length) parts.push(element("div", { className: "charts" }, ...charts));
  parts.push(...results(run.pages), ...links(run.pages));
  const section = element("section", { className: "card run" }, ...parts);
  section.setAttribute("aria-labelledby", title.id);
  return section;
}

function steps(run) {
  const line = element("div", { className: "steps" });
  if (run.planned_steps) {
    const bar = element("progress");
    bar.max = run.planned_steps;
    bar.value = run.step;
    bar.setAttribute("aria-label", `Steps of ${run.name}`);
    line.append(bar);
  }
  const of = run.planned_steps ? ` of ${run.planned_steps.toLocaleString("en")}` : "";
  line.append(element("span", { className: "soft", textContent: `step ${run.step.toLocaleString("en")}${of}` }));
  return line;
}

function tiles(run) {
  const name = run.metric.toUpperCase();
  const first = run.evaluations.find((row) => row.step === 0)?.[run.metric];
  const last = run.evaluations.at(-1);
  const figures = [];
  if (run.best) {
    const value = ["wer", "cer", "ser"].includes(run.best.metric) ? percent(run.best.value) : run.best.value.toFixed(4);
    figures.push([`best ${run.best.metric.toUpperCase()}, step ${run.best.step.toLocaleString("en")}`, value]);
  }
  if (last && last[run.metric] !== null) figures.push([`${name}, step ${last.step.toLocaleString("en")}`, percent(last[run.metric])]);
  if (first !== undefined && first !== null) figures.push([`${name} before`, percent(first)]);
  for (const [set, row] of Object.entries(run.sets)) {
    if (row[run.metric] !== null) figures.push([`${name} of ${set}`, percent(row[run.metric])]);
  }
  if (run.last.loss !== null) figures.push(["loss", run.last.loss.toFixed(3)]);
  if (run.state === "running" && run.last.utterances_per_second !== null) {
    figures.push(["utterances per second", run.last.utterances_per_second.toFixed(1)]);
  }
  const list = element("dl", { className: "tiles" });
  for (const [label, value] of figures) list.append(element("div", {}, element("dt", { textContent: label }), element("dd", { textContent: value })));
  return list;
}

function rates(run) {
  const points = (name) => run.evaluations.filter((row) => row[name] !== null).map((row) => [row.step, row[name]]);
  return chart("WER (blue) and CER (amber) of the held-out set", [points("wer"), points("cer")], percent);
}

// A chart of one or two curves on one scale from zero; null without two points.
function chart(title, curves, format) {
  const all = curves.flat();
  if (all.length < 2 || curves[0].length < 2) return null;
  const end = Math.max(...all.map(([step]) => step)), begin = Math.min(...all.map(([step]) => step));
  const values = all.map(([, value]) => value), top = Math.max(...values) || 1;
  const x = (step) => ((step - begin) / (end - begin || 1)) * WIDTH;
  const y = (value) => HEIGHT - (value / top) * HEIGHT;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("class", "chart");
  svg.setAttribute("role", "img");
  const last = curves[0].at(-1);
  svg.setAttribute("aria-label", `${title}: ${format(curves[0][0][1])} at step ${curves[0][0][0]}, ${format(last[1])} at step ${last[0]}`);
  const base = document.createElementNS(SVG, "path");
  base.setAttribute("class", "base");
  base.setAttribute("d", `M0 ${HEIGHT}H${WIDTH}`);
  svg.append(base);
  curves.forEach((points, place) => {
    const line = document.createElementNS(SVG, "polyline");
    if (place) line.setAttribute("class", "second");
    line.setAttribute("points", points.map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`).join(" "));
    svg.append(line);
  });
  const range = element("div", { className: "range" },
    element("span", { textContent: `step ${begin.toLocaleString("en")}` }),
    element("span", { textContent: `0 to ${format(top)}` }),
    element("span", { textContent: end.toLocaleString("en") }),
  );
  return element("figure", {}, element("figcaption", { textContent: title }), svg, range);
}

// A table of the evaluations whose reports are in the folder.
function results(pages) {
  const reports = pages.filter((page) => page.kind === "report");
  if (!reports.length) return [];
  const head = element("tr", {}, ...["report", "WER", "CER", "utterances"].map((name) => element("th", { textContent: name })));
  const rows = reports.map((page) => {
    const name = element("th", {}, link(page));
    name.scope = "row";
    const number = (value) => (typeof value === "number" ? percent(value) : "");
    const texts = [number(page.wer), number(page.cer), page.utterances?.toLocaleString("en") ?? ""];
    return element("tr", {}, name, ...texts.map((text) => element("td", { textContent: text })));
  });
  return [element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows))];
}

function links(pages) {
  const others = pages.filter((page) => page.kind !== "report");
  return others.length ? [element("p", { className: "links" }, ...others.map(link))] : [];
}

function link(page) {
  const name = page.kind === "report" ? page.name || "report" : KIND_NAMES[page.kind];
  const anchor = element("a", { textContent: name });
  anchor.href = page.address;
  return anchor;
}

function otherPages(pages) {
  const parts = [element("h2", { textContent: "Other pages in the folder" }), ...results(pages), ...links(pages)];
  return element("section", { className: "card run" }, ...parts);
}

function percent(share) {
  return rounded(share, 2);
}

document.addEventListener("visibilitychange", refresh);
setInterval(refresh, POLL_MS);
refresh();
