-- A node's heartbeat: keeps its row, and adds to the cluster's totals what it has counted since they last heard of it.
--
-- KEYS: 1 nodes by their last heartbeat, 2 rows, 3 totals, 4 what this incarnation is known to have counted, 5 and 6 sketches,
--       7 who has counted the events of a channel last
-- ARGV: 1 incarnation, 2 <epoch>@<when it was first counted there> of the totals that it was counted in, with spaces,
--       3 a row's time to live, 4 how long a silent node is remembered, 5 the same for its counts, 6 the same for the totals,
--       7 row ('' = the node leaves), 8 and 9 sketches ('' = as before), 10 how many channels have news, then of each: its name, how many
--       events were heard ever, how many of these were told before, and how long ago the first one that was not; then name, count
--       and floor of everything counted.
-- All times are in ms, all points in time are of Redis' clock.
--
-- A count is absolute and only rises, and what is known of it stands beside the totals and changes with them. So a heartbeat may be
-- repeated, come late or come twice: only what is above the known count is added.
-- The floor is what the totals hold of the node's count at least, for when nothing is known of it any more.
--
-- Answers {'lost'} or {'counted', now, epoch, whether the sketches are there}.
local nodes, rows, totals, own = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local incarnation, row = ARGV[1], ARGV[7]
local row_ttl, node_ttl, own_ttl, totals_ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local FIRST_NEWS = 11
local first_count = FIRST_NEWS + 4 * tonumber(ARGV[10])
-- Two nodes hear the same event at nearly the same time.
local SKEW = 100

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local joined = {}
for origin, at in string.gmatch(ARGV[2], '(%S+)@(%d+)') do
  joined[origin] = tonumber(at)
end

-- The copies that these totals were brought back from: when each was taken, by the epoch of the totals that it was taken from.
local epoch, lineage = unpack(redis.call('HMGET', totals, '@epoch', '@lineage'))
local copies, shares_a_copy = {}, false
for origin, at in string.gmatch(lineage or '', '(%S+)@(%d+)') do
  copies[origin] = tonumber(at)
  shares_a_copy = shares_a_copy or joined[origin]
end
if next(joined) and not joined[epoch] and not shares_a_copy then
  -- The totals that the caller was counted in are lost and nobody has brought them back: it may have a copy.
  return {'lost'}
end
if not epoch then
  epoch = time[1] .. string.format('%06d', time[2]) .. '-' .. incarnation
  redis.call('HSET', totals, '@epoch', epoch, '@since', string.format('%.0f', now))
end

-- When nothing is known of a node that was counted before: is it in the totals all the same? In those that counted it, yes: its
-- silence was so long that only the sum remembers it. In a copy of those, if it was counted there before the copy was taken, and for
-- the same reason; if it was counted there only later, the copy does not have it.
local function is_in_totals()
  if joined[epoch] then
    return true
  end
  for origin, at in pairs(copies) do
    if joined[origin] and joined[origin] < at then
      return true
    end
  end
  return false
end

local function add_counts()
  local names = {}
  for at = first_count, #ARGV, 3 do
    names[#names + 1] = ARGV[at]
  end
  local forgotten = redis.call('EXISTS', own) == 0
  local known = (#names > 0 and not forgotten) and redis.call('HMGET', own, unpack(names)) or {}
  local use_floor = forgotten and is_in_totals()
  local write = {'@heard', string.format('%.0f', now)}
  for i, name in ipairs(names) do
    local at = first_count + 3 * (i - 1)
    local count = tonumber(ARGV[at + 1])
    local before = use_floor and tonumber(ARGV[at + 2]) or tonumber(known[i] or 0)
    if count > before then
      redis.call('HINCRBY', totals, name, string.format('%.0f', count - before))
    end
    if count > before or use_floor then
      write[#write + 1] = name
      write[#write + 1] = string.format('%.0f', math.max(count, before))
    end
  end
  redis.call('HSET', own, unpack(write))
  redis.call('PEXPIRE', own, own_ttl)
  redis.call('PEXPIRE', totals, totals_ttl)
end

-- Events that several nodes hear are counted by the one who has counted last, as long as it goes on doing so.
local function add_broadcasts()
  for at = FIRST_NEWS, first_count - 1, 4 do
    local channel, heard, told, age = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    local last = redis.call('HGET', KEYS[7], channel) or ''
    local moment, who, counted = string.match(last, '^(%d+) (%S+) (%d+)$')
    local fresh = 0
    if who == incarnation then
      fresh = heard - tonumber(counted)
    elseif not who or tonumber(moment) < now - age - SKEW then
      fresh = heard - told
    end
    if fresh > 0 then
      redis.call('HINCRBY', totals, 'broadcasts', string.format('%.0f', fresh))
      redis.call('HSET', KEYS[7], channel, string.format('%.0f %s %.0f', now, incarnation, heard))
    end
  end
  redis.call('PEXPIRE', KEYS[7], node_ttl)
end

-- Rows of nodes that have not been heard of for a row's time to live.
local function bury()
  local last = now - row_ttl
  if redis.call('HLEN', rows) <= redis.call('ZCOUNT', nodes, last, '+inf') then
    return
  end
  for _, node in ipairs(redis.call('HKEYS', rows)) do
    local heard = redis.call('ZSCORE', nodes, node)
    if not heard or tonumber(heard) < last then
      for _, key in ipairs({rows, KEYS[5], KEYS[6]}) do
        redis.call('HDEL', key, node)
      end
    end
  end
end

local function leave()
  -- Remembered as a silent node: its counts are part of the copies that others take.
  redis.call('ZADD', nodes, now - row_ttl - 1, incarnation)
  for _, key in ipairs({rows, KEYS[5], KEYS[6]}) do
    redis.call('HDEL', key, incarnation)
  end
end

local function stay()
  redis.call('ZADD', nodes, now, incarnation)
  for i, key in ipairs({rows, KEYS[5], KEYS[6]}) do
    local value = ARGV[6 + i]
    if value ~= '' then
      redis.call('HSET', key, incarnation, value)
    end
    redis.call('PEXPIRE', key, row_ttl)
  end
end

add_broadcasts()
add_counts()
if row == '' then leave() else stay() end
redis.call('ZREMRANGEBYSCORE', nodes, '-inf', now - node_ttl)
redis.call('PEXPIRE', nodes, node_ttl)
bury()
local sketched = redis.call('HEXISTS', KEYS[5], incarnation) + redis.call('HEXISTS', KEYS[6], incarnation)
return {'counted', now, epoch, sketched == 2 and 1 or 0}
