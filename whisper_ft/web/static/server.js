// Requests to the server of this page, and its errors.

export class ServerError extends Error {
  constructor(code, message, retrySeconds) {
    super(message);
    this.code = code;
    this.retrySeconds = retrySeconds;
  }
}

// Send a request. Throws ServerError for any answer that is no success, and for no answer.
async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw errorOf(0);
  }
  if (answer.ok) return answer;
  throw errorOf(answer.status, await answer.text().catch(() => ""), answer.headers.get("Retry-After"));
}

// Make the error of an answer with this body. A status of 0 stands for no answer.
function errorOf(status, body, retryAfter) {
  if (!status) return new ServerError("no_server", "The server does not answer. Is it still running? Its terminal says why it ended.");
  let error = { code: "unknown", message: `The server answered with status ${status}.` };
  try {
    error = JSON.parse(body).error ?? error;
  } catch {
    // a proxy may answer with a page
  }
  return new ServerError(error.code, error.message, Number(retryAfter) || null);
}

export async function getJson(path) {
  return (await send(path)).json();
}

export async function postJson(path, value) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
  return (await send(path, options)).json();
}

// Send a form by XMLHttpRequest, because fetch does not tell how much is sent: onSent(share) is called with that.
// news() waits for more of the answer, or its end.
function sendForm(path, form, onSent, signal) {
  const request = new XMLHttpRequest();
  let wake = () => {};
  for (const name of ["progress", "loadend"]) request.addEventListener(name, () => wake());
  request.upload.addEventListener("progress", ({ loaded, total }) => onSent(total ? loaded / total : 1));
  signal?.addEventListener("abort", () => request.abort());
  request.open("POST", path);
  request.send(form);
  return { request, news: () => new Promise((resolve) => { wake = resolve; }) };
}

function isOver(request) {
  return request.readyState === XMLHttpRequest.DONE;
}

function errorIn(request) {
  return errorOf(request.status, request.responseText, request.getResponseHeader("Retry-After"));
}

export async function postForm(path, form, onSent) {
  const { request, news } = sendForm(path, form, onSent);
  while (!isOver(request)) await news();
  if (request.status !== 200) throw errorIn(request);
  return JSON.parse(request.responseText);
}

export async function getBlob(path) {
  return (await send(path)).blob();
}

export async function remove(path) {
  await send(path, { method: "DELETE" });
}

// Send a recording, and yield the events of its transcription as [name, value].
export async function* transcription(form, signal, onSent) {
  signal.throwIfAborted();
  const { request, news } = sendForm("/api/transcribe", form, onSent, signal);
  let [place, end] = [0, 0];
  while (true) {
    while (request.status === 200 && (end = request.responseText.indexOf("\n\n", place)) >= 0) {
      const event = parsed(request.responseText.slice(place, end));
      place = end + 2;
      if (event?.[0] === "error") throw new ServerError(event[1].code, event[1].message);
      if (event) yield event;
      if (event?.[0] === "done") return;
    }
    signal.throwIfAborted();
    if (isOver(request)) break;
    await news();
  }
  if (!place && request.status !== 200) throw errorIn(request);
  throw new ServerError("no_server", "The connection to the server broke off before the end of the text.");
}

// Parse one event. A comment, which keeps the connection alive, is none.
function parsed(lines) {
  let name = "message";
  const data = [];
  for (const line of lines.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5));
  }
  return data.length ? [name, JSON.parse(data.join("\n"))] : null;
}
