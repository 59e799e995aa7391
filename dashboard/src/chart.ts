/** Lines: small ones without words, and charts with axes. */
import { s, say, mark } from "./dom.js";
import { niceCeiling } from "./format.js";
import { WINDOW_MS } from "./stats.js";

interface Point {
  at: number;
  n: number;
}

/** The `d` of a line through the points that are numbers, with a new start behind each gap. */
export function path(points: readonly Point[], x: (at: number) => number, y: (n: number) => number): string {
  let d = "";
  let pen = false;
  for (const { at, n } of points) {
    if (Number.isNaN(n)) {
      pen = false;
      continue;
    }
    d += `${pen ? "L" : "M"}${x(at).toFixed(1)} ${y(n).toFixed(1)}`;
    pen = true;
  }
  return d;
}

/** A line without axes. */
export function sparkline(label: string): { element: SVGElement; draw(points: readonly Point[]): void } {
  const [width, height] = [96, 24];
  const line = s("path", { class: "line" });
  const element = s("svg", { class: "spark", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, preserveAspectRatio: "none" }, line);
  return {
    element,
    draw(points) {
      const last = points.at(-1)?.at ?? 0;
      const top = Math.max(1, ...points.map(({ n }) => n)) * 1.15;
      const x = (at: number): number => width - ((last - at) / WINDOW_MS) * width;
      mark(line, "d", path(points, x, (n) => height - 1.5 - (n / top) * (height - 3)));
    },
  };
}

const MINUTES = 5;
const [HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [170, 52, 8, 10, 24];
const BASE = HEIGHT - BOTTOM;

/** A chart of the last five minutes with a value axis from zero. */
export interface Chart {
  element: SVGElement;
  /** `summary` is what the chart says, in words. */
  draw(points: readonly Point[], now: number, summary: string): void;
}

/** Makes a chart whose value axis goes up to `floor` at least. Its text has the size of the page's, however wide it is. */
export function chart(id: string, unit: (n: number) => string, floor: number): Chart {
  const area = s("path", { class: "area" });
  const line = s("path", { class: "line" });
  const title = s("title", { id });
  const heights = [0, 1, 2].map((step) => BASE - ((BASE - TOP) * step) / 2);
  const values = heights.map((y) => s("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }));
  const rules = heights.map((_, step) => s("path", { class: step ? "rule" : "base" }));
  const minutes = Array.from({ length: MINUTES + 1 }, (_, minute) =>
    s("text", { y: HEIGHT - 5, "text-anchor": minute === MINUTES ? "end" : minute ? "middle" : "start" }, minute === MINUTES ? "now" : `−${MINUTES - minute} min`),
  );
  const element = s("svg", { class: "chart", role: "img", "aria-labelledby": id }, title, ...rules, ...values, ...minutes, area, line);
  let width = 200;

  const layOut = (): void => {
    width = Math.max(200, element.clientWidth);
    mark(element, "viewBox", `0 0 ${width} ${HEIGHT}`);
    rules.forEach((rule, step) => mark(rule, "d", `M${LEFT} ${heights[step]}H${width - RIGHT}`));
    minutes.forEach((text, minute) => {
      mark(text, "x", String(LEFT + ((width - LEFT - RIGHT) * minute) / MINUTES));
      // Every second one where there is no room for all.
      mark(text, "class", width < 420 && minute % 2 === 0 ? "hidden" : "");
    });
  };

  let shown: readonly Point[] = [];
  let now = 0;
  const redraw = (): void => {
    const top = niceCeiling(Math.max(floor, ...shown.map(({ n }) => (Number.isNaN(n) ? 0 : n))));
    values.forEach((label, step) => say(label, unit((top * step) / 2)));
    const x = (at: number): number => width - RIGHT - ((now - at) / WINDOW_MS) * (width - LEFT - RIGHT);
    const d = path(shown, x, (n) => BASE - (n / top) * (BASE - TOP));
    mark(line, "d", d);
    mark(area, "d", closed(d));
  };
  // Lives as long as the page, like the chart.
  new ResizeObserver(() => {
    layOut();
    redraw();
  }).observe(element);

  return {
    element,
    draw(points, at, summary) {
      now = at;
      shown = points.filter((point) => point.at >= now - WINDOW_MS);
      redraw();
      say(title, summary);
    },
  };
}

/** Each unbroken piece of a line, closed down to the base. */
function closed(d: string): string {
  const pieces = d.split("M").filter((piece) => piece.includes("L"));
  const close = (piece: string): string => {
    const start = piece.slice(0, piece.indexOf(" "));
    const end = piece.slice(piece.lastIndexOf("L") + 1).split(" ")[0];
    return `M${start} ${BASE}L${piece}L${end} ${BASE}Z`;
  };
  return pieces.map(close).join("");
}
