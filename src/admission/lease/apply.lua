#!lua flags=allow-oom
-- Says what a node holds and asks for more, as one step.
--
-- KEYS: the members' record, this node's lease, the leases of the other members that the caller knows
-- ARGV: 1 tag, 2 version of the record that the caller knows, 3 number of its last confirmed call, 4 number of this
--       call, 5 the lease's time to live in ms when this is a heartbeat, else 0, 6 how long a new record is too young in
--       ms, 7 limit per address, 8 limit per session, 9 '1' when the newcomer replaces the oldest of its session,
--       10 how many counts follow; then name and value of each count; then address and session of each request, '' for
--       what is not limited.
-- A value is a count, or '@' and the stamps of the connections, rising, with commas.
-- Answers {'lost'}, {'stale', version, tag, ...} or
--         {'applied', wait in ms, verdicts, stamps, {session, stamp, ...}, {tag, ...}}.
-- allow-oom: a full Redis must not make the nodes lose their leases, and a release makes room.
local members, own, SELF = KEYS[1], KEYS[2], 2
local tag, call_number = ARGV[1], tonumber(ARGV[4])
local ttl, young = tonumber(ARGV[5]), tonumber(ARGV[6])
local limit_ip, limit_session, replace = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9] == '1'
local FIRST_COUNT = 11
local first_request = FIRST_COUNT + 2 * tonumber(ARGV[10])

local fields, wanted = {}, {} -- what must be summed over all leases
local mine = {}               -- what this node holds, by field
local total = {}              -- what all nodes hold, by field
local stamped = {}            -- the stamped connections of a session, on all nodes
local contested = {}          -- sessions that may be over their limit after this call
local touched = {}            -- fields of the own lease to be written

local micros
local function now()
  if not micros then
    local time = redis.call('TIME')
    micros = time[1] * 1000000 + time[2]
  end
  return micros
end

local function digits(number) return string.format('%.0f', number) end
local function is_session(field) return string.sub(field, 1, 1) == 's' end
local function is_list(value) return string.sub(value, 1, 1) == '@' end

local function stale(version)
  local answer = {'stale', version}
  for _, field in ipairs(redis.call('HKEYS', members)) do
    if string.sub(field, 1, 1) ~= '@' then
      answer[#answer + 1] = field
    end
  end
  return answer
end

-- Keeps the lease and buries the dead. A member without a lease counts for nothing already. join.lua says why a version
-- is a time.
local function heartbeat(version)
  redis.call('PEXPIRE', own, ttl)
  if redis.call('PTTL', members) < ttl then
    redis.call('PEXPIRE', members, ttl)
  end
  if #KEYS == SELF or redis.call('EXISTS', unpack(KEYS, SELF + 1)) == #KEYS - SELF then
    return
  end
  for at = SELF + 1, #KEYS do
    if redis.call('EXISTS', KEYS[at]) == 0 then
      redis.call('HDEL', members, string.sub(KEYS[at], -#tag))
    end
  end
  redis.call('HSET', members, '@version', digits(math.max(now(), version + 1)))
end

-- For how many ms nobody is admitted yet. A clock that was set back must not make that longer.
local function too_young(born)
  if not born then
    return 0
  end
  local age = (now() - tonumber(born)) / 1000
  if age >= 0 and age < young then
    return math.ceil(young - age)
  end
  redis.call('HDEL', members, '@born')
  return 0
end

local function want(field)
  if field ~= '' and not wanted[field] then
    wanted[field] = true
    fields[#fields + 1] = field
  end
end

-- The counts that the caller brings: what they say is what it holds.
local function take_counts()
  for at = FIRST_COUNT, first_request - 1, 2 do
    local field, value = ARGV[at], ARGV[at + 1]
    mine[field], touched[field] = value, true
    if replace and value ~= '0' and is_session(field) then
      want(field)
      contested[field] = true
    end
  end
end

local function add(field, value, holder)
  if not is_list(value) then
    total[field] = (total[field] or 0) + tonumber(value)
    return
  end
  stamped[field] = stamped[field] or {}
  for stamp in string.gmatch(value, '%d+') do
    total[field] = (total[field] or 0) + 1
    table.insert(stamped[field], {stamp = tonumber(stamp), holder = holder})
  end
end

local function sum_over_leases()
  if #fields == 0 then
    return
  end
  for holder = SELF, #KEYS do
    local values = redis.call('HMGET', KEYS[holder], unpack(fields))
    for at, field in ipairs(fields) do
      local value = values[at]
      if holder == SELF then
        mine[field] = mine[field] or value or '0'
        value = mine[field]
      end
      if value then
        add(field, value, holder)
      end
    end
  end
end

-- A newcomer's stamp is higher than any of its session, whatever the clock says: it is the newest.
local function next_stamp(list)
  local stamp = now()
  for _, other in ipairs(list) do
    stamp = math.max(stamp, other.stamp + 1)
  end
  return stamp
end

local function enter(field, stamps)
  total[field] = (total[field] or 0) + 1
  touched[field] = true
  if not (replace and is_session(field)) then
    mine[field] = string.format('%d', tonumber(mine[field]) + 1)
    return
  end
  local list = stamped[field] or {}
  local stamp = next_stamp(list)
  table.insert(list, {stamp = stamp, holder = SELF})
  stamped[field], contested[field] = list, true
  mine[field] = (mine[field] == '0' and '@' or mine[field] .. ',') .. digits(stamp)
  stamps[#stamps + 1] = digits(stamp)
end

local function decide(ip, session, stamps)
  if ip ~= '' and (total[ip] or 0) >= limit_ip then
    return 'i'
  end
  if session ~= '' and not replace and (total[session] or 0) >= limit_session then
    return 's'
  end
  if ip ~= '' then enter(ip, stamps) end
  if session ~= '' then enter(session, stamps) end
  return 'a'
end

local function parse_orders(text)
  local orders = {}
  for session, stamp in string.gmatch(text or '', '(s%x+)=(%d+)') do
    orders[session] = tonumber(stamp)
  end
  return orders
end

local function format_orders(orders)
  local parts = {}
  for session, stamp in pairs(orders) do
    parts[#parts + 1] = session .. '=' .. digits(stamp)
  end
  table.sort(parts)
  return table.concat(parts, ';')
end

-- Of a session that is over its limit all but the newest must go. An order says "close those stamped so or lower", so
-- that it can be repeated; it stands in the holder's lease until the holder's own counts show that it is done.
local function order_replacements(orders)
  for field in pairs(contested) do
    local list = stamped[field] or {}
    table.sort(list, function(a, b)
      return a.stamp < b.stamp or a.stamp == b.stamp and a.holder < b.holder
    end)
    for at = 1, math.min((total[field] or 0) - limit_session, #list - 1) do
      local holder = list[at].holder
      orders[holder] = orders[holder] or parse_orders(redis.call('HGET', KEYS[holder], '@orders'))
      orders[holder][field] = math.max(orders[holder][field] or 0, list[at].stamp)
    end
  end
end

-- The orders to this node that are not carried out yet.
local function standing_orders(orders)
  local answer = {}
  for session, stamp in pairs(orders) do
    local value = mine[session] or redis.call('HGET', own, session) or '0'
    local oldest = tonumber(string.match(value, '^@(%d+)'))
    if oldest and oldest <= stamp then
      answer[#answer + 1] = session
      answer[#answer + 1] = digits(stamp)
    else
      orders[session] = nil
    end
  end
  return answer
end

local function write_orders_of_others(orders)
  local nudge = {}
  for holder, list in pairs(orders) do
    if holder ~= SELF then
      redis.call('HSET', KEYS[holder], '@orders', format_orders(list))
      nudge[#nudge + 1] = string.sub(KEYS[holder], -#tag)
    end
  end
  return nudge
end

local function write_own(orders_before, orders)
  local write, gone = {'@call', ARGV[4]}, {}
  for field in pairs(touched) do
    if mine[field] == '0' then
      gone[#gone + 1] = field
    else
      write[#write + 1] = field
      write[#write + 1] = mine[field]
    end
  end
  if orders ~= '' then
    write[#write + 1] = '@orders'
    write[#write + 1] = orders
  elseif orders_before then
    gone[#gone + 1] = '@orders'
  end
  redis.call('HSET', own, unpack(write))
  if #gone > 0 then
    redis.call('HDEL', own, unpack(gone))
  end
end

-- Who is calling? Calls of one node take effect in the order of their numbers or not at all: a late one finds a higher
-- number than its own, and after Redis lost data the caller's last confirmed number is not there any more.
local lease = redis.call('HMGET', own, '@call', '@orders')
local record = redis.call('HMGET', members, '@version', tag, '@born')
local done = tonumber(lease[1])
if not done or not record[2] or done < tonumber(ARGV[3]) or done >= call_number then
  return {'lost'}
end
if record[1] ~= ARGV[2] then
  return stale(record[1])
end
if ttl > 0 then
  heartbeat(record[1])
end

local wait, verdicts, stamps = too_young(record[3]), {}, {}
take_counts()
if wait == 0 then
  for at = first_request, #ARGV do
    want(ARGV[at])
  end
end
sum_over_leases()
if wait == 0 then
  for at = first_request, #ARGV, 2 do
    verdicts[#verdicts + 1] = decide(ARGV[at], ARGV[at + 1], stamps)
  end
end

local orders = {[SELF] = parse_orders(lease[2])}
order_replacements(orders)
local mandate = standing_orders(orders[SELF])
local nudge = write_orders_of_others(orders)
write_own(lease[2], format_orders(orders[SELF]))
return {'applied', wait, table.concat(verdicts), stamps, mandate, nudge}
