-- A node has connected; what does it find? KEYS: clock, index. ARGV: history; server and source: who this is ('' when
-- the node may not ask) and from whom it took over its data ('' when from nobody); safe: 1 when a restart loses
-- nothing; epoch and n: the last that the node knows (0 when it knows none); channel and number of the last durable
-- event that it has seen ('' when none). Answers epoch, n, losses. Only the first node to notice a loss writes it
-- down; its n is past everything ever seen.
local names = { clock = KEYS[1], index = KEYS[2] }
local now = now_ms()
local clock = open_clock(names, now)
local server, source, safe = ARGV[2], ARGV[3], ARGV[4] == '1'
local epoch, n, channel, seen = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])

-- Whether the event that the node has seen is in the data: in its history, or before what was trimmed from it.
local function has(event)
  local stream = ARGV[1] .. channel
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local first_epoch, first_n
  if first then
    first_epoch, first_n = header(first)
  end
  if first_epoch == clock.hex and first_n <= event then
    return #redis.call('XRANGE', stream, text(event), text(event)) > 0
  end
  return tonumber(redis.call('ZSCORE', names.index, channel) or clock.floor) >= event
end

local kept = redis.call('HMGET', names.clock, 'server', 'source')
local other = kept[1] and server ~= '' and (kept[1] ~= server or (source ~= '' and source ~= kept[2]))
local loss = other and not safe
if epoch > clock.epoch then
  -- Older data than the node has seen: its epoch must not be mistaken for a past one.
  clock.epoch, clock.n = math.max(now, epoch + 1), math.max(clock.n, now * STEPS)
  redis.call('DEL', names.index)
  redis.call('HSET', names.clock, 'epoch', text(clock.epoch), 'floor', '0', 'lost', '0')
elseif epoch == clock.epoch and (n > clock.n or (channel ~= '' and not has(seen))) then
  loss = true
  clock.n = math.max(clock.n, n)
end
if loss then
  -- Never one that was there before: a snapshot that comes back twice has the same count twice, and the second loss would
  -- look like the first to everybody who knows of that.
  clock.losses = math.max(clock.losses + 1, now)
  redis.call('HSET', names.clock, 'lost', text(clock.n), 'losses', text(clock.losses))
end
redis.call('HSET', names.clock, 'n', text(clock.n))
if server ~= '' then
  redis.call('HSET', names.clock, 'server', server, 'source', source)
end
return { clock.epoch, clock.n, clock.losses }
