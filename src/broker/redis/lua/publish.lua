-- KEYS: clock, index. ARGV: history, once, channel, size, ttl in ms; then for each event: channel, idempotency key or
-- '', body. Answers the positions, each behind '=' when it is that of an earlier event: the key had been used.
--
-- All or nothing: Redis takes nothing back when a script fails, so what a later event could fail on is looked at before
-- the first one is appended. What Redis refuses to a whole script (full, read-only) it refuses to begin().
local names = { clock = KEYS[1], index = KEYS[2], history = ARGV[1], once = ARGV[2], channel = ARGV[3] }
local batch = begin(names, tonumber(ARGV[4]), tonumber(ARGV[5]), (#ARGV - 5) / 3)

-- Why the history of a channel cannot take a batch that begins at `start`: it is something else, or it ends after the
-- clock, as one does that was restored from a later time.
local function obstacle(channel, start)
  local stream = names.history .. channel
  local later = redis.pcall('XRANGE', stream, start, '+', 'COUNT', 1)
  if #later > 0 and not redis.call('ZSCORE', names.index, channel) then
    -- One of an earlier epoch goes.
    last_in_history(batch.clock, stream)
    later = redis.call('XRANGE', stream, start, '+', 'COUNT', 1)
  end
  return later.err or (#later > 0 and 'ERR it ends after the clock')
end

local records, first = {}, {} -- the records' names by the events' places, and the positions in them
local several = false
for i = 6, #ARGV, 3 do
  local channel = ARGV[i]
  several = several or channel ~= ARGV[6]
  local record = record_of(names, channel, ARGV[i + 1])
  if record then
    local found = redis.pcall('GET', record)
    if found and (found.err or not string.find(found, '^%x+%-%x+$')) then
      return redis.error_reply((found.err or 'ERR no position') .. ': an idempotency record of channel ' .. channel)
    end
    records[i], first[record] = record, found
  end
end
-- A channel alone refuses the first of its events, or none.
if several then
  local known, start = {}, text(batch.next)
  for i = 6, #ARGV, 3 do
    local channel = ARGV[i]
    local why = not known[channel] and obstacle(channel, start)
    if why then
      return redis.error_reply(why .. ': the history of channel ' .. channel)
    end
    known[channel] = true
  end
end

local positions = {}
for i = 6, #ARGV, 3 do
  local record = records[i]
  local earlier = record and first[record]
  local position = earlier or append(batch, ARGV[i], record, ARGV[i + 2])
  if record then
    first[record] = position
  end
  positions[#positions + 1] = earlier and '=' .. earlier or position
end
finish(batch)
return positions
