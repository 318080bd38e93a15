// Items as elements. Titles are strangers' input: they become text nodes, never markup.

import { currency } from "./api.js";
import { tile } from "./tiles.js";

const money = new Intl.NumberFormat(navigator.language, { style: "currency", currency });

export const titleOf = (item) => item.title || item.item_id;
export const priceOf = (item) => (item.price == null ? "" : money.format(item.price));
export const linkTo = (item) => `#item=${encodeURIComponent(item.item_id)}`;

// The most telling part of a path such as `Home/Apparel/Men's/`.
export const categoryOf = (item) =>
  (item.category ?? "").split("/").filter(Boolean).slice(-2).join(" / ");

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// The card of an item, a link; `reason` is shown where one is given.
export function card(item, reason) {
  const link = element("a", "card");
  link.href = linkTo(item);
  link.dataset.itemId = item.item_id;
  const text = element("span", "text");
  text.append(
    element("span", "category", categoryOf(item)),
    element("span", "title", titleOf(item)),
    element("span", "price", priceOf(item)),
  );
  link.append(tile(item), text);
  if (reason) link.append(element("span", "reason", reason));
  return link;
}

export function entry(link) {
  const made = element("li");
  made.append(link);
  return made;
}

export function chip(item) {
  const link = element("a", "chip");
  link.href = linkTo(item);
  link.append(tile(item), element("span", "", titleOf(item)));
  return link;
}
