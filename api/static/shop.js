// The demo shop: what is clicked becomes an event, and the carousel answers to it.

import { get } from "./api.js";
import { card, categoryOf, chip, element, entry, priceOf, titleOf } from "./cards.js";
import { tile } from "./tiles.js";
import "/shallop-carousel.js";

const { shallop } = window;

const PAGE = 24;
const RECOMMENDED = 12;
const byId = (id) => document.getElementById(id);
const known = new Map(); // items that this page has seen, by item_id
let shown = null; // the open item
let nextOffset = 0;
let statusSoon;
let snapshotId; // of the data shown, null where there is none yet
let modelVersion;

const stored = (key, fallback) => JSON.parse(sessionStorage.getItem(key) ?? fallback);
const store = (key, value) => sessionStorage.setItem(key, JSON.stringify(value));

function remember(items) {
  for (const item of items) known.set(item.item_id, { ...known.get(item.item_id), ...item });
}

function notice(error) {
  const box = byId("notice");
  box.hidden = !error;
  box.textContent = error ? [error.message, error.remedy].filter(Boolean).join(" — ") : "";
}

const eventItem = (item) => ({
  item_id: item.item_id,
  item_name: item.title ?? undefined,
  item_category: item.category ?? undefined,
  price: item.price ?? undefined,
});

document.addEventListener("shallop:sent", () => {
  notice(null);
  clearTimeout(statusSoon);
  statusSoon = setTimeout(showStatus, 300);
});
document.addEventListener("shallop:failed", ({ detail: { error, status } }) => {
  notice(error ?? { message: `events wait: the server ${status ? `answered ${status}` : "does not answer"}` });
});
document.addEventListener("shallop:dropped", ({ detail: { reason } }) => {
  notice(reason?.error ?? { message: `events were refused: ${reason}` });
});

// The item view.

async function route() {
  const wanted = location.hash.startsWith("#item=") ? decodeURIComponent(location.hash.slice(6)) : null;
  if (wanted === null) {
    shown = null;
    byId("item").hidden = true;
    carousel.removeAttribute("item");
    recommend();
    return;
  }
  let item = known.get(wanted);
  try {
    item ??= await get(`/items/${encodeURIComponent(wanted)}`);
  } catch (error) {
    notice(error);
    return;
  }
  remember([item]);
  open(item);
  shallop.track("view_item", { items: [eventItem(item)], value: item.price ?? undefined });
  addStep(item);
  carousel.setAttribute("item", item.item_id);
  recommend();
}

function open(item) {
  shown = item;
  byId("item-tile").replaceChildren(tile(item));
  byId("item-category").textContent = categoryOf(item);
  byId("item-title").textContent = titleOf(item);
  byId("item-price").textContent = priceOf(item);
  byId("item-id").textContent = item.item_id;
  byId("item").hidden = false;
  byId("item-title").focus({ preventScroll: true });
  scrollTo({ top: 0, behavior: "smooth" });
}

byId("add").addEventListener("click", () => {
  if (!shown) return;
  const item = shown;
  const button = byId("add");
  shallop.track("add_to_cart", {
    items: [{ ...eventItem(item), quantity: 1 }],
    value: item.price ?? undefined,
  });
  store("shallop-cart", stored("shallop-cart", "0") + 1);
  showCart();
  button.textContent = "Added ✓";
  setTimeout(() => (button.textContent = "Add to cart"), 1500);
});

function showCart() {
  byId("cart-count").textContent = stored("shallop-cart", "0");
}

// The carousel.

// Made once there is something to recommend from: a shop without data has no error to show.
const carousel = document.createElement("shallop-carousel");
carousel.id = "carousel";
carousel.setAttribute("k", RECOMMENDED);
carousel.setAttribute("placement", "demo-carousel");
carousel.card = (item, reply) => {
  const isSame = new Set(reply.items.map(({ reason }) => reason)).size === 1; // then said once, above
  return card(item, isSame ? "" : item.reason);
};
carousel.addEventListener("shallop:shown", ({ detail }) => {
  remember(detail.items);
  byId("recommended").hidden = false;
  byId("source").replaceChildren(...sourceOf(detail));
});
carousel.addEventListener("shallop:empty", ({ detail: { reason } }) => {
  byId("recommended").hidden = true;
  if (reason === "denied") {
    notice({ message: "Your browser asks not to be tracked: nothing is kept, nothing recommended" });
  }
});

function recommend() {
  if (!snapshotId && !modelVersion) return;
  if (carousel.isConnected) carousel.refresh();
  else byId("recommended").append(carousel);
}

const NAMES = {
  reranked: "GRU4Rec, neighbours and rules, re-ranked",
  fusion: "GRU4Rec, neighbours and rules", gru4rec: "GRU4Rec",
  "vmis-knn": "similar sessions", "sequential-rules": "what follows",
};
const nameOf = (source) => NAMES[source] ?? source;

function sourceOf(reply) {
  const first = reply.items[0];
  const source = first?.source ?? reply.model;
  const badge = element("span", `badge ${reply.fallback ? "fallback" : "model"}`, nameOf(source));
  badge.title = `${nameOf(reply.model)} ${reply.model_version}`;
  const why = reply.fallback?.message ?? first?.reason ?? "";
  return [badge, element("span", "why", why)];
}

const scrollCarousel = (direction) => {
  const { list } = carousel;
  list.scrollBy({ left: direction * list.clientWidth * 0.8, behavior: "smooth" });
};
byId("back").addEventListener("click", () => scrollCarousel(-1));
byId("on").addEventListener("click", () => scrollCarousel(1));

// The session so far.

function addStep(item) {
  const steps = stored("shallop-steps", "[]");
  if (steps.at(-1)?.item_id !== item.item_id) {
    const { item_id, title, category } = item;
    store("shallop-steps", [...steps, { item_id, title, category }].slice(-12));
  }
  showSteps();
}

function showSteps() {
  const steps = stored("shallop-steps", "[]");
  byId("session").hidden = !steps.length;
  byId("steps").replaceChildren(...steps.map((item) => entry(chip(item))));
}

byId("restart").addEventListener("click", () => {
  shallop.reset();
  sessionStorage.clear();
  showSteps();
  showCart();
  if (location.hash) location.hash = "";
  else recommend();
});

// The grid.

async function loadItems(offset) {
  const [q, category] = [byId("query").value.trim(), byId("category").value];
  let page;
  try {
    page = await get("/items", { limit: PAGE, offset, q, category });
  } catch (error) {
    notice(error);
    return;
  }
  remember(page.items);
  const cards = page.items.map((item) => entry(card(item)));
  if (offset) byId("grid").append(...cards);
  else byId("grid").replaceChildren(...cards);
  nextOffset = offset + page.items.length;
  byId("more").hidden = nextOffset >= page.total;
  byId("count").textContent = page.total ? `${page.total.toLocaleString()} items` : "";
  const empty = byId("empty");
  empty.hidden = page.total > 0;
  if (q || category) empty.textContent = "No item matches.";
  else empty.replaceChildren(
    "No items yet: run ", element("code", "", "make demo"), " or ",
    element("code", "", "shallop simulate"), ", then ", element("code", "", "shallop refresh"), ".",
  );
}

async function loadCategories() {
  const found = await get("/categories").catch(() => []);
  const chosen = byId("category").value;
  const options = found.map(({ category, n_items }) => {
    const option = element("option", "", `${categoryOf({ category })} (${n_items})`);
    option.value = category;
    return option;
  });
  byId("category").replaceChildren(byId("category").options[0], ...options);
  byId("category").value = chosen;
}

let typing;
byId("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => loadItems(0), 200);
});
byId("search").addEventListener("submit", (submit) => {
  submit.preventDefault();
  loadItems(0);
});
byId("category").addEventListener("change", () => loadItems(0));
byId("more").addEventListener("click", () => loadItems(nextOffset));

// The status strip.

function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} days`;
}

function light(id, state, text) {
  const line = byId(id);
  const lamp = element("i", state);
  line.replaceChildren(lamp, text);
}

// What a page with a write key may know: /status is for secret keys.
async function showReadiness() {
  const { model_loaded: isLoaded, store_reachable: isReachable } = await get("/readyz");
  light("status-model", isLoaded ? "good" : "idle", isLoaded ? "A model serves" : "No model yet");
  light("status-data", isReachable ? "good" : "bad", isReachable ? "Data: see /status" : "The store is away");
  light("status-events", "good", "Events are taken");
  const newModel = isLoaded ? "loaded" : null;
  if (modelVersion !== undefined && modelVersion !== newModel) {
    loadItems(0);
    recommend();
  }
  modelVersion = newModel;
}

async function showStatus() {
  let status;
  try {
    if (shallop.options.key) return await showReadiness();
    status = await get("/status");
  } catch ({ code }) {
    light("status-events", "bad", code ? "Events cannot be sent" : "Shallop does not answer");
    return;
  }
  const { model, champion, data, collector, links } = status;
  light(
    "status-model",
    champion.last_error ? "bad" : model ? "good" : "idle",
    model ? `Model ${nameOf(model.serves)} ${model.version}, ${age(model.age_seconds)} old` : "No model yet",
  );
  light(
    "status-data",
    data ? "good" : "idle",
    data ? `Data ${age(data.age_seconds)} old, ${data.n_items.toLocaleString()} items` : "No data yet",
  );
  light(
    "status-events",
    collector.last_error ? "bad" : "good",
    collector.last_error && collector.accepted === null
      ? "Events cannot be kept"
      : `${collector.accepted.toLocaleString()} events, ${collector.depth.toLocaleString()} on their way`,
  );
  if (/^https?:/.test(links.dagster)) {
    byId("dagster").href = links.dagster;
    byId("dagster").hidden = false;
  }
  const [newSnapshot, newModel] = [data?.snapshot_id ?? null, model?.version ?? null];
  if (snapshotId !== undefined && snapshotId !== newSnapshot) {
    loadItems(0);
    loadCategories();
  }
  if (modelVersion !== undefined && modelVersion !== newModel) recommend();
  [snapshotId, modelVersion] = [newSnapshot, newModel];
}

addEventListener("hashchange", route);
showCart();
showSteps();
setInterval(showStatus, 5000);
loadCategories();
Promise.all([showStatus(), loadItems(0)]).then(route);
