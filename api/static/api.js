// Reading from Shallop; its events go by shallop.js.

export const currency = document.documentElement.dataset.currency;

async function answered(reply) {
  const body = await reply.json().catch(() => null);
  if (!reply.ok) {
    const error = new Error(body?.error?.message ?? `the server answered ${reply.status}`);
    error.code = body?.error?.code;
    error.remedy = error.code === "missing_key"
      ? "give this page a write key: SHALLOP_ACCESS__SHOP_KEY, see docs/keys.md"
      : body?.error?.remedy;
    throw error;
  }
  return body;
}

export async function get(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value != null);
  const query = new URLSearchParams(given).toString();
  const { key } = window.shallop.options;
  const headers = key ? { "X-Write-Key": key } : {};
  return answered(await fetch(query ? `${path}?${query}` : path, { headers }));
}
