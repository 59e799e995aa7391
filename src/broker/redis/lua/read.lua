-- KEYS: clock, index. ARGV: history, the last number wanted or '+', how many bytes at most; then for each channel:
-- its name and the number after which it is wanted. Answers epoch, n, lost, the server that the clock was last
-- settled on, 1 when there is more than that many bytes (then nothing else), and for each channel the last number
-- before its history and the frames.
local names = { clock = KEYS[1], index = KEYS[2] }
local clock = open_clock(names, now_ms())
local server = redis.call('HGET', names.clock, 'server') or ''
local up_to, budget = ARGV[2], tonumber(ARGV[3])
local channels = {}
for i = 4, #ARGV, 2 do
  local stream = ARGV[1] .. ARGV[i]
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local epoch, floor
  if first then
    local _
    epoch, _, floor = header(first)
  end
  local frames = {}
  if epoch == clock.hex then
    for _, entry in ipairs(redis.call('XRANGE', stream, text(tonumber(ARGV[i + 1]) + 1) .. '-0', up_to)) do
      budget = budget - #entry[2][2]
      if budget < 0 then
        return { clock.epoch, clock.n, clock.lost, server, 1, {} }
      end
      frames[#frames + 1] = entry[2][2]
    end
  else
    floor = tonumber(redis.call('ZSCORE', names.index, ARGV[i]) or clock.floor)
  end
  channels[#channels + 1] = { floor, frames }
end
return { clock.epoch, clock.n, clock.lost, server, 0, channels }
