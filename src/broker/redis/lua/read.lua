-- KEYS: clock, index. ARGV: history, the last number wanted or '+', how many bytes; then for each channel: its name and
-- the number after which it is wanted. Answers epoch, n, lost, the server that the clock was last settled on, up to
-- where all channels have been read, and for each channel the last number before its history and the frames.
--
-- The event with which there are more than so many bytes is the last one, on all channels: an answer holds one at least
-- when there is one, and costs what it holds, however much there is.
local BATCH = 32 -- entries that are looked at together: what is read and not needed is less than that for each channel
local names = { clock = KEYS[1], index = KEYS[2] }
local clock = open_clock(names, now_ms())
local server = redis.call('HGET', names.clock, 'server') or ''
local up_to, budget = tonumber(ARGV[2]) or clock.n, tonumber(ARGV[3])
local channels = {} -- for each: floor, numbers, frames

-- What comes after the new end is left to a later read.
local function end_at(n)
  up_to = n
  for _, channel in ipairs(channels) do
    local numbers, frames = channel[2], channel[3]
    while #numbers > 0 and numbers[#numbers] > n do
      numbers[#numbers] = nil
      budget = budget + #table.remove(frames)
    end
  end
end

local function collect(stream, after, numbers, frames)
  repeat
    local entries = redis.call('XRANGE', stream, text(after + 1), text(up_to), 'COUNT', BATCH)
    for _, entry in ipairs(entries) do
      after = tonumber(string.match(entry[1], '^%d+'))
      numbers[#numbers + 1], frames[#frames + 1] = after, entry[2][2]
      budget = budget - #entry[2][2]
      if budget < 0 then
        end_at(after)
        break
      end
    end
  until #entries < BATCH or after >= up_to
end

for i = 4, #ARGV, 2 do
  local stream, after = ARGV[1] .. ARGV[i], tonumber(ARGV[i + 1])
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local epoch, floor
  if first then
    local _
    epoch, _, floor = header(first)
  end
  local channel = { 0, {}, {} }
  channels[#channels + 1] = channel
  if epoch == clock.hex then
    if after < up_to then
      collect(stream, after, channel[2], channel[3])
    end
  else
    floor = tonumber(redis.call('ZSCORE', names.index, ARGV[i]) or clock.floor)
  end
  channel[1] = floor
end
for i, channel in ipairs(channels) do
  channels[i] = { channel[1], channel[3] }
end
return { clock.epoch, clock.n, clock.lost, server, up_to, channels }
