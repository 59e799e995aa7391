-- KEYS: clock, index. ARGV: channels.
-- Answers epoch, n, floor, losses, and for each channel the number of its last durable event, or 0.
local names = { clock = KEYS[1], index = KEYS[2] }
local clock = open_clock(names, now_ms())
local last = {}
for i, channel in ipairs(ARGV) do
  last[i] = tonumber(redis.call('ZSCORE', names.index, channel) or 0)
end
return { clock.epoch, clock.n, clock.floor, clock.losses, last }
