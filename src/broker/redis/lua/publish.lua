-- KEYS: clock, index. ARGV: history, once, channel, size, ttl in ms; then for each event: channel, idempotency key or
-- '', body. Answers the positions, each behind '=' when it is that of an earlier event: the key had been used.
local names = { clock = KEYS[1], index = KEYS[2], history = ARGV[1], once = ARGV[2], channel = ARGV[3] }
local batch = begin(names, tonumber(ARGV[4]), tonumber(ARGV[5]), (#ARGV - 5) / 3)
local positions = {}
for i = 6, #ARGV, 3 do
  local next = batch.next
  local position = append(batch, ARGV[i], ARGV[i + 1], ARGV[i + 2])
  -- A repetition takes no number.
  positions[#positions + 1] = batch.next == next and '=' .. position or position
end
finish(batch)
return positions
