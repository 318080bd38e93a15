// Invented pictures: a shop's events bring titles and prices, but no photographs.
// The category chooses the colour, the item the shape, so that like looks alike.

const SVG = "http://www.w3.org/2000/svg";
let gradients = 0;

function hash(text) {
  let value = 2166136261;
  for (const character of text) {
    value = Math.imul(value ^ character.codePointAt(0), 16777619);
  }
  return value >>> 0;
}

function shape(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    element.setAttribute(key, value);
  }
  parent.append(element);
  return element;
}

function letters(item) {
  const words = (item.title || item.item_id).split(/[^\p{L}\p{N}]+/u).filter(Boolean);
  const picked = words.length > 1 ? [words[0], words[words.length - 1]] : words;
  return picked.map((word) => [...word][0].toUpperCase()).join("");
}

export function tile(item) {
  const seed = hash(item.item_id);
  const hue = (hash(item.category || item.item_id) % 360) + (seed % 24) - 12;
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 200 150");
  svg.setAttribute("preserveAspectRatio", "xMidYMid slice");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("tile");

  const id = `gradient-${(gradients += 1)}`;
  const gradient = shape("linearGradient", { id, x1: 0, y1: 0, x2: 1, y2: 1 }, shape("defs", {}, svg));
  shape("stop", { offset: 0, "stop-color": `hsl(${hue} 48% 62%)` }, gradient);
  shape("stop", { offset: 1, "stop-color": `hsl(${hue + 34} 52% 40%)` }, gradient);
  shape("rect", { width: 200, height: 150, fill: `url(#${id})` }, svg);

  const light = { fill: "#fff", "fill-opacity": 0.14 };
  const [x, y, size] = [seed % 200, (seed >> 8) % 150, 46 + ((seed >> 16) % 46)];
  if (seed % 3 === 0) {
    shape("circle", { cx: x, cy: y, r: size, ...light }, svg);
    shape("circle", { cx: 200 - x, cy: 150 - y, r: size / 2, ...light }, svg);
  } else if (seed % 3 === 1) {
    shape("path", { d: `M0 ${60 + y / 3} Q 50 ${y / 2} 100 ${60 + y / 3} T 200 ${60 + y / 3} V150 H0z`, ...light }, svg);
    shape("path", { d: `M0 ${95 + y / 4} Q 60 ${60 + y / 3} 110 ${95 + y / 4} T 200 ${95 + y / 4} V150 H0z`, ...light }, svg);
  } else {
    const turned = { transform: `rotate(${x} 100 75)`, rx: 14, ...light };
    shape("rect", { x: 60, y: -60, width: size, height: 280, ...turned }, svg);
    shape("rect", { x: 60 + size * 1.4, y: -60, width: size / 2, height: 280, ...turned }, svg);
  }
  const initials = shape("text", { x: 100, y: 78, class: "initials" }, svg);
  initials.textContent = letters(item);
  return svg;
}
