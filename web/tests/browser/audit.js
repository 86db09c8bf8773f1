// What a program can find of WCAG 2.1 AA on the page as it is now: names, labels, headings, ids, contrast. A list of faults.
const faults = [];
const shown = (node) => node.checkVisibility() && node.getBoundingClientRect().width > 1;
const named = (node) => {
  const byId = (ids) => ids.split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
  const label = node.labels?.length ? [...node.labels].map((l) => l.textContent).join(" ") : "";
  return (node.getAttribute("aria-label") ?? byId(node.getAttribute("aria-labelledby") ?? "")).trim() || label.trim() || node.textContent.trim();
};
const tell = (fault, node) => faults.push(`${fault}: ${node.outerHTML.slice(0, 100)}`);

for (const node of document.querySelectorAll("button, a[href], input, textarea, select, [role=region], nav, form[aria-labelledby]"))
  if (shown(node) && !named(node)) tell("nothing says what this is", node);
for (const image of document.images) if (!image.hasAttribute("alt")) tell("an image without alt", image);
for (const node of document.querySelectorAll("[tabindex]")) if (node.tabIndex > 0) tell("a tab order of its own", node);
for (const node of document.querySelectorAll("[aria-labelledby], [aria-describedby], label[for]"))
  for (const id of (node.getAttribute("aria-labelledby") ?? node.getAttribute("aria-describedby") ?? node.htmlFor).split(" "))
    if (!document.getElementById(id)) tell(`no element has the id ${id}`, node);
const ids = [...document.querySelectorAll("[id]")].map((node) => node.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push(`the id ${id} is there twice`);
if (!document.documentElement.lang) faults.push("the page has no language");
if (!document.title) faults.push("the page has no title");
if ([...document.querySelectorAll("main")].filter(shown).length !== 1) faults.push("not one main part");
let level = 0;
for (const heading of [...document.querySelectorAll("h1, h2, h3, h4")].filter(shown)) {
  const next = Number(heading.tagName[1]);
  if (next > level + 1) tell(`a heading of level ${next} after ${level}`, heading);
  level = next;
}

const channels = (colour) => (colour.match(/[\d.]+/g) ?? []).map(Number);
const over = ([r, g, b, a = 1], under) => [r, g, b].map((value, i) => value * a + under[i] * (1 - a));
const ground = (node) => {
  const layers = [];
  for (let at = node; at; at = at.parentElement) layers.push(channels(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, layer) => over(layer, under), [255, 255, 255]);
};
const luminance = (rgb) => {
  const [r, g, b] = rgb.map((value) => (value /= 255) <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
for (const node of document.querySelectorAll("body *")) {
  const text = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
  if (!text || !shown(node) || node.disabled || ["SCRIPT", "NOSCRIPT", "STYLE"].includes(node.tagName)) continue;
  const style = getComputedStyle(node);
  const size = parseFloat(style.fontSize);
  const wanted = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
  const behind = ground(node);
  const [light, dark] = [luminance(over(channels(style.color), behind)), luminance(behind)].sort((a, b) => b - a);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < wanted) tell(`a contrast of ${contrast.toFixed(2)}`, node);
}
return faults;
