// shallop.js: a shop's events to Shallop, its recommendations to the page. Types: shallop.d.ts.
(() => {
  "use strict";
  if (window.shallop?.track) return; // loaded twice

  const BATCH_CHARACTERS = 20_000; // at most 60 KB: browsers cap what may outlive a page
  const MAX_QUEUED = 500;
  const MAX_WAIT_MS = 36e5;
  const SEEN_MS = 1000;

  const script = document.currentScript;
  const options = {
    endpoint: script?.src ? new URL(".", script.src).href : "/",
    consent: "session",
    delay: 200,
    sessionMinutes: 30,
  };
  let consented = "denied"; // until init, which a script tag calls itself

  const memory = {}; // what the browser refuses to store lives as long as the page
  const opened = (name) => {
    try {
      return window[name] ?? memory;
    } catch {
      return memory;
    }
  };
  const local = opened("localStorage");
  const tab = opened("sessionStorage");
  const keep = (storage, key, value) => {
    try {
      storage["shallop." + key] = value;
    } catch {
      memory["shallop." + key] = value;
    }
  };
  const kept = (storage, key) => storage["shallop." + key] ?? memory["shallop." + key];
  const forget = (storage, prefix) => {
    for (const key of Object.keys(storage)) if (key.startsWith(prefix)) delete storage[key];
  };

  const emit = (name, detail) =>
    document.dispatchEvent(new CustomEvent("shallop:" + name, { detail }));
  const failed = (error) => emit("failed", { error });
  const safely = (call) => (...given) => {
    try {
      return call(...given);
    } catch (error) {
      failed(error);
      return null;
    }
  };
  const url = (path, endpoint) =>
    new URL(path, new URL(endpoint.replace(/\/?$/, "/"), location.href));

  // crypto.randomUUID is missing on pages that are not served over https.
  const uuid = () =>
    "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) =>
      (digit ^ (crypto.getRandomValues(new Uint8Array(1))[0] & (15 >> (digit / 4)))).toString(16));

  // Consent, and who is here.

  const allowed = () =>
    consented !== "denied" &&
    (options.signals === "ignore" ||
      !(navigator.globalPrivacyControl || navigator.doNotTrack === "1"));

  const setCookie = (value, seconds) => {
    document.cookie = `shallop_visitor=${value};path=/;samesite=lax;max-age=${seconds}` +
      (location.protocol === "https:" ? ";secure" : "") +
      (options.cookie ? ";domain=" + options.cookie : "");
  };

  function consent(state) {
    consented = state === "granted" || state === "session" ? state : "denied";
    if (!allowed()) {
      for (const storage of [local, tab, memory]) forget(storage, "shallop.");
      if (document.cookie.includes("shallop_visitor=")) setCookie("", 0);
    }
    emit("consent", { consent: consented, allowed: allowed() });
  }

  // The id of this tab's session; another one after half an hour of nothing.
  function session() {
    if (!allowed()) return null;
    const [id, at] = (kept(tab, "session") ?? "").split("|");
    const current = id && Date.now() - at < options.sessionMinutes * 6e4 ? id : uuid();
    keep(tab, "session", `${current}|${Date.now()}`);
    return current;
  }

  function visitor() {
    if (consented !== "granted" && options.visitor !== "always") return undefined;
    if (options.cookie == null) {
      const id = kept(local, "visitor") ?? uuid();
      keep(local, "visitor", id);
      return id;
    }
    const id = /(?:^|; )shallop_visitor=([\w-]+)/.exec(document.cookie)?.[1] ?? uuid();
    setCookie(id, 31536e3);
    return id;
  }

  // The queue: a key for each event, so that tabs never overwrite each other's, in order of time.
  // A key goes when the server has answered.

  const sending = new Set();
  const own = new Set();
  let count = 0;
  let failures = 0;
  let retryAt = 0;
  let limit = Infinity; // events a request
  let timer;
  let timerAt = Infinity;
  let chain = Promise.resolve();

  const textOf = (key) => local[key] ?? memory[key];
  const queued = () =>
    Object.keys({ ...local, ...memory }).filter((key) => key.startsWith("shallop.q.")).sort();
  const remove = (keys) => {
    for (const key of keys) {
      delete local[key];
      delete memory[key];
      own.delete(key);
    }
  };
  const drop = (keys, reason) => {
    emit("dropped", { reason, events: keys.map(safely((key) => JSON.parse(textOf(key)))) });
    remove(keys);
  };

  function enqueue(event) {
    const order = String(count++ % 1e4).padStart(4, "0");
    const key = `q.${Date.now()}${order}.${event.event_id}`;
    keep(local, key, JSON.stringify(event));
    own.add("shallop." + key);
    const over = queued().slice(0, -MAX_QUEUED);
    if (over.length) drop(over, "queue_full");
    schedule(Number(options.delay));
  }

  // The oldest, as many as one request takes.
  function nextBatch(isOwn) {
    const batch = [];
    let size = 0;
    for (const key of queued()) {
      if (sending.has(key) || (isOwn && !own.has(key))) continue;
      size += textOf(key).length + 1;
      if (batch.length && (size > BATCH_CHARACTERS || batch.length >= limit)) break;
      batch.push(key);
    }
    return batch;
  }

  const waitsUntil = () => {
    const told = Number(kept(local, "wait") ?? 0);
    return Math.max(retryAt, told > Date.now() + MAX_WAIT_MS ? 0 : told); // the clock was set back
  };

  function schedule(ms) {
    const at = Math.max(Date.now() + ms, waitsUntil());
    if (at >= timerAt) return;
    clearTimeout(timer);
    timerAt = at;
    timer = setTimeout(flush, at - Date.now());
  }

  // Sends these; whether to go on. The request is on its way before this first waits.
  async function post(keys) {
    const texts = keys.map(textOf);
    const body = `[${texts}]`;
    let reply;
    keys.forEach((key) => sending.add(key));
    try {
      // A string goes as text/plain: no preflight, so it may leave with the page.
      reply = await fetch(url("events" + (options.key ? "?key=" + options.key : ""), options.endpoint), {
        method: "POST",
        body,
        keepalive: body.length < BATCH_CHARACTERS + 9,
        credentials: "omit",
        signal: AbortSignal.timeout(15_000),
      });
    } catch {
      // No answer: the events stay, and are sent again under the same ids.
    }
    keys.forEach((key) => sending.delete(key));
    if (!allowed()) return false;
    const status = reply?.status ?? 0;
    if (reply?.ok) {
      remove(keys);
      failures = 0;
      const { errors = [] } = await reply.json().catch(() => ({}));
      emit("sent", { events: JSON.parse(body), errors });
      return true;
    }
    if ([400, 413].includes(status) && keys.length > 1) {
      limit = Math.ceil(keys.length / 2); // one of them may be broken, or all too large
      return true;
    }
    if ([400, 413, 415, 422].includes(status)) { // these would be refused again
      drop(keys, await reply.json().catch(() => status));
      return true;
    }
    const told = reply?.headers.get("Retry-After");
    const wait = told
      ? (told * 1000 || Date.parse(told) - Date.now() || 0) * (1 + Math.random() / 5)
      : Math.min(1000 * 2 ** failures++, 3e5) * (0.5 + Math.random() / 2);
    retryAt = Date.now() + Math.min(wait, MAX_WAIT_MS);
    if (told) keep(local, "wait", retryAt); // other tabs and pages wait too
    emit("failed", { status, retryAt });
    schedule(0);
    return false;
  }

  async function drain() {
    while (allowed() && Date.now() >= waitsUntil()) {
      const keys = nextBatch();
      if (!keys.length || !(await post(keys))) return;
    }
    if (queued().length) schedule(0);
  }

  // Resolves once what was tracked before is durable, or cannot be sent for the moment.
  function flush() {
    timerAt = Infinity;
    // One tab at a time, where the browser has locks; else the server drops what comes twice.
    const drained = () => navigator.locks?.request("shallop", drain).catch(drain) ?? drain();
    chain = chain.then(drained).catch(failed);
    return chain;
  }

  const leave = safely(() => {
    const keys = allowed() && Date.now() >= waitsUntil() ? nextBatch(true) : [];
    if (keys.length) post(keys);
  });
  addEventListener("pagehide", leave);
  document.addEventListener("visibilitychange", () => document.hidden && leave());
  addEventListener("online", () => {
    retryAt = failures = 0;
    flush();
  });

  // Events, in the words of GA4.

  const clicks = () => JSON.parse(kept(tab, "clicks") ?? "{}");

  function track(name, fields = {}) {
    if (!allowed()) return null;
    const items = fields.items?.map((item) => ({ ...item, item_id: String(item.item_id) }));
    const event = {
      event_id: uuid(),
      event_name: name,
      occurred_at: new Date().toISOString(),
      session_id: session(),
      visitor_id: visitor(),
      user_id: kept(tab, "user"),
      consent: consented,
      page_url: location.href,
      referrer: document.referrer || undefined,
      currency: options.currency,
      recommendation_id: items?.length === 1 ? clicks()[items[0].item_id] : undefined,
      ...fields,
      items,
    };
    enqueue(event);
    emit("track", event);
    return event.event_id;
  }

  function identify(userId) {
    if (userId == null) forget(tab, "shallop.user");
    else if (allowed()) keep(tab, "user", String(userId));
  }

  // GET /recommend for this session, once it knows of the events; null where nothing may be asked.
  async function recommend({ endpoint = options.endpoint, ...parameters } = {}) {
    try {
      await Promise.race([flush(), new Promise((done) => setTimeout(done, 1000))]);
      if (!allowed()) return null;
      const given = Object.entries({ session: session(), key: options.key, ...parameters });
      const query = new URLSearchParams(given.filter(([, value]) => value != null));
      const reply = await fetch(url("recommend?" + query, endpoint), { credentials: "omit" });
      const body = await reply.json();
      if (reply.ok) return body;
      failed(Object.assign(new Error(), body.error));
    } catch (error) {
      failed(error);
    }
    return null;
  }

  // Reports the cards of a list when they are seen and clicked; returns what ends it.
  function watch(list, cards = [...list.querySelectorAll("[data-item-id]")]) {
    const ending = new AbortController();
    const { signal } = ending;
    const { itemListId, recommendationId } = list.dataset;
    const since = new Map(); // when each card came into view
    const unseen = new Set(cards);
    const report = (name, found) => track(name, {
      item_list_id: itemListId,
      recommendation_id: recommendationId,
      items: found.map((card) => ({ item_id: card.dataset.itemId, index: cards.indexOf(card) })),
    });
    const see = (found) => {
      for (const card of found) {
        unseen.delete(card);
        since.delete(card);
        observer.unobserve(card);
      }
      if (found.length) report("view_item_list", found);
    };
    const look = safely(() =>
      see([...since.keys()].filter((card) => performance.now() - since.get(card) >= SEEN_MS)));
    const observer = new IntersectionObserver((entries) => {
      for (const { target, intersectionRatio } of entries) {
        if (intersectionRatio < 0.5) since.delete(target);
        else since.set(target, performance.now());
      }
      setTimeout(look, SEEN_MS + 10);
    }, { threshold: 0.5 });
    const observe = () => {
      observer.disconnect();
      since.clear();
      if (!document.hidden) unseen.forEach((card) => observer.observe(card));
    };
    const click = safely((event) => {
      const path = event.composedPath();
      const card = cards.find((one) => path.includes(one));
      if (!card || event.button > 1 || path.some((one) => one.localName === "button")) return;
      if (unseen.has(card)) see([card]); // who clicks has seen
      const { [card.dataset.itemId]: _, ...others } = clicks();
      const latest = [...Object.entries(others).slice(-49), [card.dataset.itemId, recommendationId]];
      if (allowed()) keep(tab, "clicks", JSON.stringify(Object.fromEntries(latest)));
      report("select_item", [card]);
    });
    observe();
    document.addEventListener("visibilitychange", observe, { signal });
    for (const name of ["click", "auxclick"]) list.addEventListener(name, click, { signal });
    return () => {
      ending.abort();
      observer.disconnect();
      since.clear();
    };
  }

  function init(given) {
    Object.assign(options, given);
    consent(options.consent);
    if (queued().length) flush(); // of an earlier page
  }

  const api = {
    init, consent, session, track, identify, flush, watch,
    page: (fields) => track("page_view", fields),
    reset: () => forget(tab, "shallop."), // a new session of nobody known, as after a log-out
  };
  for (const name of Object.keys(api)) api[name] = safely(api[name]);
  Object.assign(api, { options, recommend });

  const early = window.shallop?.q ?? []; // calls made before this file came
  const run = ([name, ...given]) => api[name]?.(...given);
  window.shallop = Object.assign(api, { q: { push: run } });
  if (script) api.init(script.dataset);
  early.forEach(run);

  const found = safely(() => {
    for (const list of document.querySelectorAll("[data-item-list-id]")) watch(list);
    if (document.querySelector("shallop-carousel")) {
      import(url("shallop-carousel.js", options.endpoint)).catch(failed);
    }
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", found);
  else found();
})();
