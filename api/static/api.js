// Reading from Shallop; its events go by shallop.js.

export const currency = document.documentElement.dataset.currency;

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
