-- Records what events say of jobs: one step for a batch.
-- KEYS: the recorder's lease, up to where it has recorded, then the set of each status.
-- ARGV: who ('' for a publisher), lease and time to live in ms, after what the updates come and up to what they go ('EPOCH N' or
-- ''); then for each update: the job's key and id, its place ('EPOCH N PLAIN'), the number of its status, '1' when it starts the
-- job, its word, type and data.
-- Answers { 'recorded' }, { 'other' } when another node records, or { 'begin', up to } when `who` is the recorder but something
-- else was recorded before: then nothing was recorded.
--
-- A job is a hash: at, start (places; src/jobs/rule.rs), status (its number), expires, updated (ms), word, type, data.
-- A set has the jobs of one status by the time at which they expire.

local FIELDS = 8 -- arguments of one update

local who, ttl, after, up_to = ARGV[1], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local touched = {}

-- Below, at or above 0 as the place `a` is before, at or behind `b`.
local function compare(a, b)
  local numbers = string.gmatch(b, '%d+')
  for number in string.gmatch(a, '%d+') do
    local difference = tonumber(number) - tonumber(numbers())
    if difference ~= 0 then
      return difference
    end
  end
  return 0
end

local function is_plain(place)
  return string.sub(place, -1) == '1'
end

local function is_later(place, than)
  local difference = compare(place, than)
  return difference > 0 or (difference == 0 and is_plain(place))
end

-- Whether the number of a status is that of a terminal one.
local function is_terminal(status)
  return status >= 3
end

-- The same rule as src/jobs/rule.rs: where the run began, and whether the update replaces the state.
local function judge(start, at, status, update)
  if not at then
    return update.starts and update.at or '0 0 0', true
  elseif compare(update.at, start) < 0 then
    return start, false
  elseif update.starts then
    if is_later(update.at, start) then
      return update.at, is_later(update.at, at)
    end
    return start, false
  elseif is_terminal(status) then
    return start, is_terminal(update.status) and compare(update.at, at) < 0
  end
  return start, is_terminal(update.status) or is_later(update.at, at)
end

local function set_of(status)
  return KEYS[2 + status]
end

-- Out of the set that it was in. One that was not known may still be in any of them when Redis evicted its hash.
local function leave(id, status)
  for number = 1, #KEYS - 2 do
    if not status or number == status then
      redis.call('ZREM', set_of(number), id)
    end
  end
end

local function record(key, id, update)
  local happened = now
  if not is_plain(update.at) then
    -- A position counts in steps of 1/2048 ms.
    happened = math.min(now, math.floor(tonumber(string.match(update.at, ' (%d+) ')) / 2048))
  end
  local expires = happened + ttl
  if expires <= now then
    return
  end
  local known = redis.call('HMGET', key, 'start', 'at', 'status', 'expires')
  if known[2] == update.at and not is_plain(update.at) then
    return -- the publisher came before the recorder, or the other way round
  end
  local status = tonumber(known[3] or nil)
  local start, replaces = judge(known[1], known[2], status, update)
  expires = math.max(expires, tonumber(known[4] or 0))
  if replaces then
    if status ~= update.status then
      leave(id, status)
    end
    status = update.status
    redis.call('HSET', key, 'at', update.at, 'status', status, 'updated', happened, 'word', update.word,
      'type', update.kind, 'data', update.data, 'start', start, 'expires', expires)
  elseif start ~= known[1] or expires > tonumber(known[4]) then
    redis.call('HSET', key, 'start', start, 'expires', expires)
  end
  if replaces or expires > tonumber(known[4]) then
    redis.call('PEXPIREAT', key, expires)
    redis.call('ZADD', set_of(status), expires, id)
    touched[status] = (touched[status] or 0) + 1
  end
end

-- A set lives as long as its last job, and loses more expired ones than jobs came in, never so many that Redis stops for them.
local function sweep(set, count)
  local expired = redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, 2 * count + 16)
  if #expired > 0 then
    redis.call('ZREM', set, unpack(expired))
  end
  local last = redis.call('ZREVRANGE', set, 0, 0, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', set, last[2])
  end
end

if who ~= '' then
  local holder = redis.call('GET', KEYS[1])
  if holder and holder ~= who then
    return { 'other' }
  end
  redis.call('SET', KEYS[1], who, 'PX', ARGV[2])
  local recorded = redis.call('GET', KEYS[2]) or ''
  if not holder or recorded ~= after then
    return { 'begin', recorded }
  end
end
for i = 6, #ARGV, FIELDS do
  record(ARGV[i], ARGV[i + 1], {
    at = ARGV[i + 2], status = tonumber(ARGV[i + 3]), starts = ARGV[i + 4] == '1',
    word = ARGV[i + 5], kind = ARGV[i + 6], data = ARGV[i + 7],
  })
end
for status, count in pairs(touched) do
  sweep(set_of(status), count)
end
if up_to ~= after then
  redis.call('SET', KEYS[2], up_to)
end
return { 'recorded' }
