-- Everything that the statistics are made of, as of one moment.
--
-- KEYS: 1 nodes by their last heartbeat, 2 rows, 3 totals, 4 and 5 sketches
-- ARGV: 1 a row's time to live in ms, 2 '1' when the sketches are wanted
-- Answers {now in ms, {name, total, ...}, {incarnation, ...}, {row, ...}, {sketch, ...}, {sketch, ...}} of the nodes that are alive.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local alive, known, rows = redis.call('ZRANGEBYSCORE', KEYS[1], now - tonumber(ARGV[1]), '+inf'), {}, {}
for _, node in ipairs(alive) do
  local row = redis.call('HGET', KEYS[2], node)
  if row then
    known[#known + 1] = node
    rows[#rows + 1] = row
  end
end
local sketches = {{}, {}}
if ARGV[2] == '1' then
  for i, list in ipairs(sketches) do
    for _, node in ipairs(known) do
      list[#list + 1] = redis.call('HGET', KEYS[3 + i], node) or ''
    end
  end
end
return {now, redis.call('HGETALL', KEYS[3]), known, rows, sketches[1], sketches[2]}
