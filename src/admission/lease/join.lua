#!lua flags=allow-oom
-- Takes a lease: an empty one for this node, replacing whatever it had, and a place among the members.
--
-- KEYS: the members' record, this node's lease
-- ARGV: this node's tag, the call's number, the lease's time to live in ms
-- Answers {'joined', version, tag, ...} with the tags of all members, or {'lost'}.
local members, own = KEYS[1], KEYS[2]
local tag, number, ttl = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

-- A call that its node gave up on may still arrive, after later ones. It must not undo them.
local done = tonumber(redis.call('HGET', own, '@call'))
if done and done >= number then
  return {'lost'}
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

-- No record: Redis is new or has lost its data. '@born' keeps everybody from being admitted until all nodes had the
-- time to say what they hold.
local version = tonumber(redis.call('HGET', members, '@version'))
if not version then
  redis.call('HSET', members, '@born', string.format('%.0f', now))
end
-- A version is never used twice, also not after a loss of data or when a replica takes over: it is the time of the
-- change.
if redis.call('HSET', members, tag, 1) == 1 or not version then
  version = math.max(now, (version or 0) + 1)
  redis.call('HSET', members, '@version', string.format('%.0f', version))
end
if redis.call('PTTL', members) < ttl then
  redis.call('PEXPIRE', members, ttl)
end

redis.call('UNLINK', own)
redis.call('HSET', own, '@call', ARGV[2])
redis.call('PEXPIRE', own, ttl)

local answer = {'joined', redis.call('HGET', members, '@version')}
for _, field in ipairs(redis.call('HKEYS', members)) do
  if string.sub(field, 1, 1) ~= '@' then
    answer[#answer + 1] = field
  end
end
return answer
