/** Numbers for people. Pure; always English, so that columns look alike everywhere. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** `1234567` → `1,234,567`; from ten million on `12.3M`. */
export function count(n: number): string {
  if (n >= 1e10) return `${(n / 1e9).toFixed(1)}G`;
  if (n >= 1e7) return `${(n / 1e6).toFixed(1)}M`;
  return whole.format(n);
}

/** A rate per second; NaN is not known. */
export function rate(n: number): string {
  if (n === 0) return "0";
  if (n < 0.1) return "<0.1";
  return n < 10 ? n.toFixed(1) : count(n);
}

/** Milliseconds as a latency. */
export function latency(ms: number | null | undefined): string {
  if (ms === null || ms === undefined) return "–";
  if (ms === 0) return "0 ms";
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`;
}

/** Milliseconds as a length of time: two units at most. */
export function duration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes) return `${minutes} min ${seconds % 60} s`;
  return `${seconds} s`;
}

/** Bytes, binary. */
export function bytes(n: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit++;
  }
  return `${unit && n < 100 ? n.toFixed(1) : n.toFixed(0)} ${units[unit]}`;
}

/** A percentage. */
export function percent(n: number): string {
  return `${n < 10 ? n.toFixed(1) : n.toFixed(0)} %`;
}

/** `slow_consumer` → `slow consumer`. */
export function words(code: string): string {
  return code.replaceAll("_", " ");
}

/** The time of day. */
export function clock(date: Date): string {
  return date.toLocaleTimeString("en-GB");
}

/** The end of a chart's axis: the next of 1, 2, 5, 10, 20, … at or above `max`. */
export function niceCeiling(max: number): number {
  const power = 10 ** Math.floor(Math.log10(Math.max(max, 1e-9)));
  for (const step of [1, 2, 5, 10]) if (step * power >= max * 0.999999) return step * power;
  return max;
}
