-- KEYS: the set of each status. Answers how many jobs of each have not expired.
local time = redis.call('TIME')
local now = string.format('(%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local counts = {}
for i, set in ipairs(KEYS) do
  counts[i] = redis.call('ZCOUNT', set, now, '+inf')
end
return counts
