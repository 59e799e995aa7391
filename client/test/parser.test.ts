import { readFileSync } from "node:fs";
import { createParser as createForeignParser } from "eventsource-parser";
import { describe, expect, it } from "vitest";
import { createParser, MAX_LENGTH, type RawEvent } from "../src/parser.js";
import { random } from "./support/random.js";

interface Decoded {
  events: RawEvent[];
  positions?: string[];
  retry?: number[];
}
type DecodeFixture = Decoded & { name: string; stream?: string; bytes?: string };
interface EncodeFixture {
  name: string;
  id?: string;
  event?: string;
  data: string;
  received?: string;
  block: string;
}

const read = <T>(name: string): T[] => JSON.parse(readFileSync(new URL("../fixtures/sse/" + name, import.meta.url), "utf8")) as T[];
const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

function decode(pieces: Iterable<Uint8Array>): Required<Decoded> {
  const found: Required<Decoded> = { events: [], positions: [], retry: [] };
  const push = createParser({
    event: (event) => found.events.push(event),
    position: (id) => found.positions.push(id),
    retry: (ms) => found.retry.push(ms),
  });
  for (const piece of pieces) push(piece);
  return found;
}

describe("what a stream says", () => {
  for (const { name, stream, bytes, ...expected } of read<DecodeFixture>("decode.json")) {
    const whole = bytes === undefined ? utf8(stream!) : Uint8Array.from(Buffer.from(bytes, "hex"));
    const wanted = { positions: [], retry: [], ...expected };

    it(name, () => expect(decode([whole])).toEqual(wanted));

    it(`${name}: byte by byte, with empty pieces between`, () =>
      expect(decode(Array.from(whole, (byte) => [Uint8Array.of(byte), new Uint8Array()]).flat())).toEqual(wanted));

    it(`${name}: cut in two anywhere`, () => {
      for (let at = 0; at <= whole.length; at++) expect(decode([whole.slice(0, at), whole.slice(at)])).toEqual(wanted);
    });
  }
});

describe("what a node writes is read back", () => {
  for (const { name, id, event, data, received = data, block } of read<EncodeFixture>("encode.json"))
    it(name, () => {
      const wanted: RawEvent = { type: event ?? "message", data: received };
      if (id !== undefined) wanted.id = id;
      expect(decode([utf8(block)]).events).toEqual([wanted]);
    });
});

it("agrees with a foreign parser on random streams in random pieces", () => {
  const { int, pick } = random(1);
  const fields = ["data: ", "data:", "data", "event: ", "id: ", ": ", "retry: ", "foo: ", ""];
  const values = ["", "a", " b", "x:y", "ü", "😀", "12", "{}"];
  for (let round = 0; round < 500; round++) {
    let stream = "";
    for (let line = int(20); line > 0; line--) stream += pick(fields) + pick(values) + pick(["\n", "\r\n", "\n\n", "\r\n\r\n"]);
    const bytes = utf8(stream);
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < bytes.length; ) pieces.push(bytes.slice(at, (at += 1 + int(9))));

    const foreign: unknown[] = [];
    const parser = createForeignParser({
      onEvent: ({ event, data, id }) => foreign.push({ type: event || "message", data, ...(id !== undefined && { id }) }),
    });
    parser.feed(stream);
    // The foreign parser hands an inherited id on; ours gives a block's own. Compared is what both know.
    expect(decode(pieces).events.map(({ type, data }) => ({ type, data }))).toEqual(
      foreign.map((event) => ({ type: (event as RawEvent).type, data: (event as RawEvent).data })),
    );
  }
});

it("reads a long line in many pieces in linear time", () => {
  const pieces = Array.from({ length: 4096 }, () => utf8("x".repeat(1024)));
  const { events } = decode([utf8("data: "), ...pieces, utf8("\n\n")]);
  expect(events[0]!.data.length).toBe(4096 * 1024);
});

it("refuses to collect more than its bound, in one line and in many", () => {
  const half = utf8("x".repeat(MAX_LENGTH / 2 + 1));
  expect(() => decode([utf8("data: "), half, half])).toThrow(RangeError);
  expect(() => decode([utf8("data: "), half, utf8("\ndata: "), half])).toThrow(RangeError);
});
