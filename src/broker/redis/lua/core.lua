-- What all scripts and the publishing function share. Redis runs one at a time, so each is one step.
--
-- names: clock, index (keys); history, once, channel (what stands before a channel in the name of its history, of its
-- idempotency records and of its pub/sub channel).
--
-- The clock is a hash:
--   epoch   Unix ms at which it was made: the life of the data that positions count in
--   n       the last position given out
--   floor   channels that are not in the index have had no event after this one
--   lost    events up to this one may be missing without a trace (a failover lost them)
--   losses  another number after each time that this happened
--   server, source   who kept the data when a node last looked (settle.lua)
--   size, ttl, max   the nodes' settings, for the publishing function

local STEPS = 2048 -- positions per millisecond
local SLACK = 60000 -- ms that a channel stays in the index after its history has expired

-- tostring() rounds to 14 digits.
local function text(n)
  return string.format('%.0f', n)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The clock; a new one when there is none. The index goes with the epoch that it was written in; histories of an
-- earlier epoch are told by their frames and go when their channel is published to again, or expire.
local function open_clock(names, now)
  local found = redis.call('HMGET', names.clock, 'epoch', 'n', 'floor', 'lost', 'losses')
  local clock = {}
  for i, field in ipairs({ 'epoch', 'n', 'floor', 'lost', 'losses' }) do
    clock[field] = tonumber(found[i] or 0)
  end
  if not found[1] then
    clock.epoch, clock.n = now, now * STEPS
    redis.call('DEL', names.index)
    redis.call('HSET', names.clock, 'epoch', text(now), 'n', text(clock.n))
  end
  clock.hex = string.format('%x', clock.epoch)
  return clock
end

-- Epoch, number and predecessor of a stream entry.
local function header(entry)
  local epoch, n, previous = string.match(entry[2][2], '^\0301 (%x+) (%d+) (%d+) ')
  return epoch, tonumber(n), tonumber(previous)
end

-- The last event of a channel that is not in the index: it was swept from there, or has none in this epoch.
local function last_in_history(clock, stream)
  local top = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if not top then
    return clock.floor
  end
  local epoch, n = header(top)
  if epoch == clock.hex then
    return n
  end
  redis.call('UNLINK', stream)
  return clock.floor
end

-- Begins a batch of `count` events. The clock is set before anything can fail, so that no position is given out twice.
local function begin(names, size, ttl, count)
  local now = now_ms()
  local clock = open_clock(names, now)
  local first = math.max(clock.n + 1, now * STEPS)
  redis.call('HSET', names.clock, 'n', text(first + count - 1))
  return { names = names, size = size, ttl = ttl, now = now, clock = clock, next = first, last = {}, count = count }
end

-- The name of the record of an idempotency key; nil for '', which is none.
local function record_of(names, channel, once)
  if once == '' then
    return nil
  end
  return names.once .. channel .. ':' .. string.gsub(once, '.', function(c)
    return string.format('%02x', string.byte(c))
  end)
end

-- Appends one event and publishes it; `body` is a durable frame behind its three numbers (protocol/durable.rs), `record`
-- that of its idempotency key, which was not used before. Answers its position.
local function append(batch, channel, record, body)
  local names, clock = batch.names, batch.clock
  local stream = names.history .. channel
  local previous = batch.last[channel]
  if not previous then
    previous = redis.call('ZSCORE', names.index, channel)
    previous = previous and tonumber(previous) or last_in_history(clock, stream)
  end
  local n = batch.next
  batch.next = n + 1
  local id = text(n)
  local frame = '\0301 ' .. clock.hex .. ' ' .. id .. ' ' .. text(previous) .. ' ' .. body
  redis.call('XADD', stream, id .. '-0', 'f', frame)
  redis.call('PUBLISH', names.channel .. channel, frame)
  batch.last[channel] = n
  local position = string.format('%011x-%014x', clock.epoch, n)
  if record then
    redis.call('SET', record, position, 'PX', batch.ttl)
  end
  return position
end

-- Ends a batch: the size and the expiry of its histories, the index, and a few of the channels whose history has expired leave the index: more than
-- came in, so that it does not grow, and never so many that Redis stops for them.
local function finish(batch)
  local names = batch.names
  for channel, n in pairs(batch.last) do
    redis.call('ZADD', names.index, text(n), channel)
    -- Once for all of the batch: an exact length costs XADD as much again as the entry.
    redis.call('XTRIM', names.history .. channel, 'MAXLEN', batch.size)
    redis.call('PEXPIRE', names.history .. channel, batch.ttl)
  end
  local horizon = (batch.now - batch.ttl - SLACK) * STEPS
  local old = redis.call('ZRANGEBYSCORE', names.index, '-inf', '(' .. text(horizon), 'WITHSCORES', 'LIMIT', 0,
    2 * batch.count + 16)
  if #old > 0 then
    for i = 1, #old, 2 do
      redis.call('ZREM', names.index, old[i])
    end
    redis.call('HSET', names.clock, 'floor', text(math.max(batch.clock.floor, tonumber(old[#old]))))
  end
end
