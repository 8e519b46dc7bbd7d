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
    throw new ServerError("no_server", "The server does not answer. Is it still running? Its terminal says why it ended.");
  }
  if (answer.ok) return answer;
  const body = await answer.json().catch(() => null);
  const error = body?.error ?? { code: "unknown", message: `The server answered with status ${answer.status}.` };
  throw new ServerError(error.code, error.message, Number(answer.headers.get("Retry-After")) || null);
}

export async function getJson(path) {
  return (await send(path)).json();
}

export async function postJson(path, value) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(value) };
  return (await send(path, options)).json();
}

export async function postForm(path, form) {
  return (await send(path, { method: "POST", body: form })).json();
}

export async function getBlob(path) {
  return (await send(path)).blob();
}

export async function remove(path) {
  await send(path, { method: "DELETE" });
}

// Send a recording, and yield the events of its transcription as [name, value]. A form is sent again where it is busy.
export async function* transcription(form, signal) {
  const answer = await send("/api/transcribe", { method: "POST", body: form, signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  while (true) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      throw new ServerError("no_server", "The connection to the server broke off before the end of the text.");
    });
    if (done) break;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const event = parsed(rest.slice(0, end));
      rest = rest.slice(end + 2);
      if (event?.[0] === "error") throw new ServerError(event[1].code, event[1].message);
      if (event) yield event;
      if (event?.[0] === "done") return;
    }
  }
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
