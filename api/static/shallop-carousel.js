// <shallop-carousel>: recommendations as a list of cards. shallop.js loads it where a page has one;
// a page that makes one later imports it itself, after shallop.js.

const { shallop } = window;
const ASKED = ["k", "placement", "item", "items", "exclude", "category", "endpoint", "key"];
const STYLE = `
  :host { display: block }
  :host([hidden]), [hidden] { display: none }
  [part=list] {
    display: grid; grid-auto-flow: column; grid-auto-columns: var(--shallop-card-width, 180px);
    gap: var(--shallop-gap, 16px); overflow-x: auto; scroll-snap-type: x proximity;
  }
  [part=item], ::slotted([role=listitem]) { scroll-snap-align: start }
  [part=link] { display: grid; gap: 4px; color: inherit; text-decoration: none }
  [part=price] { font-weight: 600 }
`;

function made(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** `text` with {title} and its like replaced; for urls all but {href} is encoded. */
const replaced = (text, values, isUrl) =>
  text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name] ?? "";
    return isUrl && name !== "href" ? encodeURIComponent(value) : value;
  });

/** The template's content for one item. Values become text and attributes, never markup. */
function filled(template, values) {
  const copy = document.importNode(template.content, true);
  const walker = document.createTreeWalker(copy, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType === Node.TEXT_NODE) node.data = replaced(node.data, values, false);
    for (const { name, value } of [...(node.attributes ?? [])]) {
      if (!value.includes("{")) continue;
      if (/^on|^srcdoc$|^style$/.test(name)) node.removeAttribute(name); // code: nothing is safe there
      else node.setAttribute(name, replaced(value, values, !/^(alt|title|aria-|data-)/.test(name)));
    }
  }
  return copy;
}

class ShallopCarousel extends HTMLElement {
  static observedAttributes = [...ASKED, "href", "heading"];

  /** A function `(item, reply) => Node` that makes a card, in place of a `<template>`. */
  card = null;
  /** The last reply of /recommend. */
  reply = null;
  #looks = 0;
  #cards = [];
  #section = made("section", { hidden: "", part: "section" });
  #heading = made("slot", { name: "heading" });
  #soon;
  #ending;
  #unwatch;

  constructor() {
    super();
    /** The element that scrolls. */
    this.list = made("div", { part: "list", role: "list" }, made("slot", {}));
    this.#section.append(this.#heading, this.list);
    const root = this.attachShadow({ mode: "open" });
    root.append(this.#section);
    try {
      const sheet = new CSSStyleSheet(); // a content policy may forbid <style>
      sheet.replaceSync(STYLE);
      root.adoptedStyleSheets = [sheet];
    } catch {
      // A browser of before 2023 shows the list without our style.
    }
  }

  connectedCallback() {
    this.#ending = new AbortController();
    const { signal } = this.#ending;
    const again = () => this.refresh();
    document.addEventListener("shallop:consent", again, { signal });
    document.addEventListener("shallop:track", ({ detail }) => {
      if (!["view_item_list", "select_item"].includes(detail.event_name)) again();
    }, { signal });
    addEventListener("popstate", again, { signal });
    addEventListener("pageshow", ({ persisted }) => persisted && again(), { signal });
    again();
  }

  disconnectedCallback() {
    this.#ending.abort();
    this.#unwatch?.();
    this.#looks += 1;
    clearTimeout(this.#soon);
  }

  attributeChangedCallback() {
    if (this.isConnected) this.refresh();
  }

  /** Asks again, once for all the reasons of one moment. */
  refresh() {
    clearTimeout(this.#soon);
    this.#soon = setTimeout(() => this.#load(), 20);
  }

  async #load() {
    const look = (this.#looks += 1);
    const asked = ASKED.filter((name) => this.hasAttribute(name)).map((name) => [name, this.getAttribute(name)]);
    this.#section.setAttribute("aria-busy", "true");
    const reply = await shallop.recommend(Object.fromEntries(asked));
    if (look !== this.#looks) return; // a later one is on its way
    this.#unwatch?.();
    this.#unwatch = undefined;
    for (const card of this.#cards) card.remove();
    this.#cards = [];
    this.#section.removeAttribute("aria-busy");
    this.reply = reply;
    try {
      if (reply?.items.length) this.#show(reply);
      else this.#hide(reply ? "no_items" : shallop.session() ? "failed" : "denied");
    } catch (error) {
      console.error(error); // of the page's own `card`
      this.#hide("failed");
    }
  }

  #hide(reason) {
    this.hidden = true;
    this.#section.hidden = true;
    delete this.dataset.source;
    delete this.dataset.fallback;
    this.#emit("empty", { reason });
  }

  #show(reply) {
    const heading = this.getAttribute("heading");
    this.#heading.replaceChildren(...(heading ? [made("h2", { part: "heading" }, heading)] : []));
    if (heading) this.#section.setAttribute("aria-label", heading);
    else this.#section.removeAttribute("aria-label");
    this.#cards = reply.items.map((item) =>
      made("div", { role: "listitem", part: "item", "data-item-id": item.item_id },
        this.#content(item, reply)));
    const isOwnMarkup = this.card || this.querySelector("template");
    (isOwnMarkup ? this : this.list).append(...this.#cards);
    this.list.scrollTo({ left: 0 });
    this.dataset.source = reply.items[0].source;
    if (reply.fallback) this.dataset.fallback = reply.fallback.reason;
    else delete this.dataset.fallback;
    this.dataset.itemListId = reply.placement ?? "shallop-carousel";
    this.dataset.recommendationId = reply.recommendation_id;
    this.hidden = false;
    this.#section.hidden = false;
    this.#unwatch = shallop.watch(this, this.#cards);
    this.#emit("shown", reply);
  }

  #content(item, reply) {
    if (this.card) return this.card(item, reply);
    const values = this.#values(item);
    const template = this.querySelector("template");
    if (template) return filled(template, values);
    const spans = ["category", "title", "price"].map((name) =>
      made("span", { part: name }, values[name] ?? ""));
    return made("a", { part: "link", ...(values.href && { href: values.href }) }, ...spans);
  }

  #values(item) {
    const { currency } = shallop.options;
    const money = currency ? { style: "currency", currency } : {};
    const language = document.documentElement.lang || undefined;
    const values = {
      ...item,
      title: item.title || item.item_id,
      price: item.price?.toLocaleString(language, money) ?? "",
    };
    return { ...values, href: replaced(this.getAttribute("href") ?? "", values, true) };
  }

  #emit(name, detail) {
    const options = { detail, bubbles: true, composed: true };
    this.dispatchEvent(new CustomEvent(`shallop:${name}`, options));
  }
}

if (!customElements.get("shallop-carousel")) {
  customElements.define("shallop-carousel", ShallopCarousel);
}
