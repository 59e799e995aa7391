// Reads an event stream from a file and prints each event that `eventsource-parser` makes of it as one line of JSON.
import { readFileSync } from 'node:fs'
import { createParser } from 'eventsource-parser'

const SLICE = 1009 // prime, so that the cuts wander through the blocks

const parser = createParser({
  onEvent: ({ id, event, data }) => console.log(JSON.stringify({ event: event ?? 'message', data, id: id ?? null })),
  onError: (error) => {
    throw error
  },
})
const stream = readFileSync(process.argv[2])
const decoder = new TextDecoder('utf-8', { fatal: true })
for (let at = 0; at < stream.length; at += SLICE) {
  parser.feed(decoder.decode(stream.subarray(at, at + SLICE), { stream: true }))
}
