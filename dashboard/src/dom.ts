/** Making elements. Text always goes in as text: nothing that comes from the network is ever read as markup. */

type Child = Node | string | undefined | false;
type Attributes = Record<string, string | number | boolean | EventListener | undefined>;

const SVG = "http://www.w3.org/2000/svg";

function fill<E extends Element>(element: E, attributes: Attributes, children: Child[]): E {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== undefined && value !== false) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** An HTML element; a function is a listener for the event of its name. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function s<K extends keyof SVGElementTagNameMap>(
  tag: K,
  attributes: Attributes = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** The element of the page with this id. */
export function byId<E extends HTMLElement = HTMLElement>(id: string): E {
  const element = document.getElementById(id);
  if (!element) throw new Error(`#${id} is missing`);
  return element as E;
}

/** Sets the text, if it is another one: what stays the same keeps the selection and is not read out again. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute, if it is another one. */
export function mark(element: Element, name: string, value: string): void {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Makes the children of `parent` those of `items`, in their order; an item's element lives as long as its key is there. */
export function keyed<T, V>(
  parent: Element,
  kept: Map<string, { element: Element; view: V }>,
  items: readonly T[],
  key: (item: T) => string,
  make: (item: T) => { element: Element; view: V },
  update: (view: V, item: T) => void,
): void {
  const wanted = new Set(items.map(key));
  for (const [name, { element }] of kept)
    if (!wanted.has(name)) {
      element.remove();
      kept.delete(name);
    }
  items.forEach((item, place) => {
    let entry = kept.get(key(item));
    if (!entry) kept.set(key(item), (entry = make(item)));
    update(entry.view, item);
    // Moved only when it must be: a moved element loses the focus.
    if (parent.children[place] !== entry.element) parent.insertBefore(entry.element, parent.children[place] ?? null);
  });
}
