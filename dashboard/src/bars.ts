/** A list of names with counts, as bars. */
import { byId, h, keyed, mark, s, say } from "./dom.js";
import { count } from "./format.js";

const MAX_ROWS = 10;

interface View {
  number: Element;
  bar: SVGRectElement;
}

/** Fills the list; returns how to update it. With `all` names without a count are shown too. */
export function bars(id: string, empty: string, label: (name: string) => string, all = false): (counts: Record<string, number>) => void {
  const list = h("ul", { class: "bars" });
  const nothing = h("p", { class: "empty" }, empty);
  const rest = h("p", { class: "rest" });
  byId(id).append(list, nothing, rest);
  const kept = new Map<string, { element: HTMLElement; view: View }>();
  const make = ([name]: [string, number]): { element: HTMLElement; view: View } => {
    const number = h("span", { class: "n" });
    const bar = s("rect", { height: 4, rx: 2 });
    const line = s("svg", { class: "bar", "aria-hidden": "true", viewBox: "0 0 100 4", preserveAspectRatio: "none" }, bar);
    return { element: h("li", {}, h("span", { class: "name", title: label(name) }, label(name)), number, line), view: { number, bar } };
  };
  return (counts) => {
    const ranked = Object.entries(counts).filter(([, n]) => all || n > 0).sort(([a, n], [b, m]) => m - n || (a < b ? -1 : 1));
    const shown = ranked.slice(0, MAX_ROWS);
    const most = Math.max(1, shown[0]?.[1] ?? 0);
    keyed(list, kept, shown, ([name]) => name, make, ({ number, bar }, [, n]) => {
      say(number, count(n));
      mark(bar, "width", String((n / most) * 100));
    });
    nothing.hidden = ranked.length > 0;
    rest.hidden = ranked.length <= MAX_ROWS;
    say(rest, `and ${count(ranked.length - MAX_ROWS)} more`);
  };
}
