/**
 * The `text/event-stream` format (WHATWG HTML, 9.2.6), incrementally: bytes in, blocks out.
 *
 * Pure: no network, no clock. Reconnecting, positions and JSON are other modules' business.
 */

/** An event as it stands in the stream. */
export interface RawEvent {
  /** What stands behind `event:`, or `message`. */
  type: string;
  /** The `data:` lines, joined by LF. */
  data: string;
  /** The block's own `id:`. Absent when the block has none: it does not inherit the id of an earlier block. */
  id?: string;
}

/** What a parser finds. */
export interface ParserSink {
  /** A block was dispatched. */
  event(event: RawEvent): void;
  /** A block with an `id:` ended, with or without data: the last event id from now on. Called before its `event`. */
  position?(id: string): void;
  /** A `retry:` line: the time before a reconnect, in milliseconds. */
  retry(ms: number): void;
}

/** The longest line and the longest data, in UTF-16 units; past it the parser throws, so that no server can fill the memory. */
export const MAX_LENGTH = 1 << 24;

/**
 * Makes a parser.
 *
 * @param sink - is told what is found, in the order of the stream
 * @returns a function that takes the next bytes, cut anywhere. What is not ended by a blank line is never dispatched.
 * @throws RangeError (the returned function) when a line or an event is longer than {@link MAX_LENGTH}
 */
export function createParser(sink: ParserSink): (bytes: Uint8Array) => void {
  // Takes one leading BOM away and keeps what is cut in the middle of a character.
  const decoder = new TextDecoder();
  let partial = "";
  let afterCr = false;
  let block: RawEvent = { type: "", data: "" };

  const dispatch = (): void => {
    const { type, data, id } = block;
    if (id !== undefined) sink.position?.(id);
    // A lone `data` line leaves an LF here: an event with empty data is still an event.
    if (data) sink.event({ ...block, type: type || "message", data: data.slice(0, -1) });
    block = { type: "", data: "" };
  };

  const line = (text: string): void => {
    if (!text) return dispatch();
    // Without a colon the whole line is the field. A comment has an empty one.
    const [, field, value] = /([^:]*):? ?([^]*)/.exec(text) as unknown as [string, string, string];
    if (field === "data") block.data += value + "\n";
    else if (field === "event") block.type = value;
    else if (field === "id" && !value.includes("\0")) block.id = value;
    else if (field === "retry" && /^\d+$/.test(value)) sink.retry(+value);
  };

  return (bytes) => {
    let text = decoder.decode(bytes, { stream: true });
    if (!text) return;
    // A CR at the end of the last piece ended its line at once; the LF of a CRLF follows only now.
    if (afterCr && text.startsWith("\n")) text = text.slice(1);
    afterCr = text.endsWith("\r");
    let start = 0;
    // Only new text is searched, so that a long line in many pieces costs linear time.
    for (const end of text.matchAll(/\r\n?|\n/g)) {
      line(partial + text.slice(start, end.index));
      partial = "";
      start = end.index + end[0].length;
    }
    partial += text.slice(start);
    if (partial.length + block.data.length > MAX_LENGTH) throw new RangeError();
  };
}
