-- FCALL <name> 1 CHANNEL EVENT DATA [KEY [IDEMPOTENCY-KEY [TRACEPARENT]]]: durable publishing for whoever speaks
-- Redis. An empty argument counts as missing. Answers the position. Refuses what the nodes would have to drop: an
-- event that was acknowledged must be one that can be delivered.

-- Well-formed sequences (RFC 3629, section 4) are replaced by an ASCII letter, the longest first; what is left must
-- be ASCII.
local function utf8(s)
  if not string.find(s, '[\128-\255]') then
    return true
  end
  local tail = '[\128-\191]'
  for _, sequence in ipairs({
    '\240[\144-\191]' .. tail .. tail, '[\241-\243]' .. tail .. tail .. tail, '\244[\128-\143]' .. tail .. tail,
    '\224[\160-\191]' .. tail, '[\225-\236\238\239]' .. tail .. tail, '\237[\128-\159]' .. tail,
    '[\194-\223]' .. tail,
  }) do
    s = string.gsub(s, sequence, 'x')
  end
  return not string.find(s, '[\128-\255]')
end

local function bad_field(name, s)
  if #s > 256 then
    return name .. ' must have at most 256 bytes'
  elseif string.find(s, '[\r\n%z]') then
    return name .. ' must not contain CR, LF or NUL'
  elseif not utf8(s) then
    return name .. ' is not valid UTF-8'
  end
end

local function bad_call(keys, args)
  if #keys ~= 1 or #args < 2 or #args > 5 then
    return 'usage: FCALL ' .. NAME .. ' 1 CHANNEL EVENT DATA [KEY [IDEMPOTENCY-KEY [TRACEPARENT]]]'
  elseif #keys[1] < 1 or #keys[1] > 128 or string.find(keys[1], '[^A-Za-z0-9._:/%-]') or keys[1] == 'all' then
    return 'a channel is 1 to 128 of A-Z a-z 0-9 . _ : / - and not `all`'
  elseif not utf8(args[2]) then
    return 'the data is not valid UTF-8'
  end
  return bad_field('the event', args[1]) or bad_field('the key', args[3] or '')
    or bad_field('the idempotency key', args[4] or '') or bad_field('the traceparent', args[5] or '')
end

redis.register_function({
  function_name = NAME,
  description = DESCRIPTION,
  callback = function(keys, args)
    local bad = bad_call(keys, args)
    if bad then
      return redis.error_reply('ERR ' .. bad)
    end
    local kind, data, key, once, trace = args[1], args[2], args[3] or '', args[4] or '', args[5] or ''
    local settings = redis.call('HMGET', NAMES.clock, 'size', 'ttl', 'max')
    local max = tonumber(settings[3] or 262144)
    if #data > max then
      return redis.error_reply('ERR an event of ' .. #data .. ' bytes; the limit is ' .. max)
    end
    local batch = begin(NAMES, tonumber(settings[1] or 1000), tonumber(settings[2] or 3600000), 1)
    local lengths = string.format('%d %d %d\n', #kind, #key, #trace)
    local record = record_of(NAMES, keys[1], once)
    local position = record and redis.call('GET', record)
      or append(batch, keys[1], record, lengths .. kind .. key .. trace .. data)
    finish(batch)
    return position
  end,
})
