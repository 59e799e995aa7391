-- Brings totals back from a copy, unless these totals have them already: because they are those that the copy was taken from, or
-- somebody else's copy of the same was brought back.
--
-- KEYS: 1 nodes by their last heartbeat, 2 totals
-- ARGV: 1 what stands before an incarnation in the name of its counts, 2 the copy's lineage: <epoch>@<when it was copied> of the
--       totals that it was taken from, then of those that these came from, 3 since when its totals are counted, 4 how long a silent
--       node is remembered, 5 the same for its counts, 6 the same for the totals, 7 how many numbers the past has,
--       then name and number of the past (all counts of nodes that are not remembered), then for each remembered node: its incarnation,
--       how many counts it has, name and count of each.
-- Answers 1 when the copy was taken over, else 0.
local nodes, totals, prefix = KEYS[1], KEYS[2], ARGV[1]
local since = tonumber(ARGV[3])
local node_ttl, own_ttl, totals_ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local epoch, lineage, other_since = unpack(redis.call('HMGET', totals, '@epoch', '@lineage', '@since'))
local here = {[epoch or ''] = true}
for origin in string.gmatch(lineage or '', '(%S+)@%d+') do
  here[origin] = true
end
for origin in string.gmatch(ARGV[2], '(%S+)@%d+') do
  if here[origin] then
    return 0
  end
end
local time = redis.call('TIME')
if not epoch then
  epoch = time[1] .. string.format('%06d', time[2]) .. '-copy'
end
if other_since then
  since = math.min(since, tonumber(other_since))
end
lineage = lineage and lineage .. ' ' .. ARGV[2] or ARGV[2]
redis.call('HSET', totals, '@epoch', epoch, '@lineage', lineage, '@since', string.format('%.0f', since))

local copied = string.match(ARGV[2], '@(%d+)')
local at = 8
for _ = 1, tonumber(ARGV[7]) do
  redis.call('HINCRBY', totals, ARGV[at], ARGV[at + 1])
  at = at + 2
end

-- A node that was not lost from these totals, because it has joined since or was faster, keeps what it has said.
local function take(node, last)
  local own = prefix .. node
  redis.call('HSETNX', own, '@heard', copied)
  while at <= last do
    local name, count = ARGV[at], tonumber(ARGV[at + 1])
    local before = tonumber(redis.call('HGET', own, name) or 0)
    if count > before then
      redis.call('HSET', own, name, ARGV[at + 1])
      redis.call('HINCRBY', totals, name, string.format('%.0f', count - before))
    end
    at = at + 2
  end
  redis.call('PEXPIRE', own, own_ttl)
  redis.call('ZADD', nodes, 'NX', copied, node)
end

while at <= #ARGV do
  local node, count = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  take(node, at + 2 * count - 1)
end
redis.call('PEXPIRE', nodes, node_ttl)
redis.call('PEXPIRE', totals, totals_ttl)
return 1
