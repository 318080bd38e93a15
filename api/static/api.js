// Talking to Shallop: what a shop's own pages would do, in the fewest lines.

// Also where the page is not served over https, and crypto.randomUUID is missing.
function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function kept(storage, key) {
  let value = storage.getItem(key);
  if (!value) {
    value = uuid();
    storage.setItem(key, value);
  }
  return value;
}

export const currency = document.documentElement.dataset.currency;
export const sessionId = () => kept(sessionStorage, "shallop-session");
const visitorId = () => kept(localStorage, "shallop-visitor");

export function restartSession() {
  sessionStorage.clear();
}

async function answered(reply) {
  const body = await reply.json().catch(() => null);
  if (!reply.ok) {
    const error = new Error(body?.error?.message ?? `the server answered ${reply.status}`);
    error.code = body?.error?.code;
    error.remedy = body?.error?.remedy;
    throw error;
  }
  return body;
}

export async function get(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(given).toString();
  return answered(await fetch(query ? `${path}?${query}` : path));
}

// Resolves once the events are durable; a recommendation asked after that has seen them.
export async function send(...events) {
  const common = {
    occurred_at: new Date().toISOString(),
    session_id: sessionId(),
    visitor_id: visitorId(),
    page_url: location.href,
    currency,
  };
  const body = events.map((event) => ({ event_id: uuid(), ...common, ...event }));
  const headers = { "Content-Type": "application/json" };
  return answered(
    await fetch("/events", { method: "POST", headers, body: JSON.stringify(body), keepalive: true }),
  );
}
