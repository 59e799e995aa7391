-- The totals, and what of them comes from each node that was heard of lately: enough to bring them back.
--
-- KEYS: 1 nodes by their last heartbeat, 2 totals
-- ARGV: 1 what stands before an incarnation in the name of its counts
-- Answers {now in ms, {name, total, ...}, {{incarnation, {name, count, ...}}, ...}}.
local time = redis.call('TIME')
local parts = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local counts = redis.call('HGETALL', ARGV[1] .. node)
  -- Of a node whose counts were evicted only the sum is known: it belongs to the past.
  if #counts > 0 then
    parts[#parts + 1] = {node, counts}
  end
end
return {time[1] * 1000 + math.floor(time[2] / 1000), redis.call('HGETALL', KEYS[2]), parts}
