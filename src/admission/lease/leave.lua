#!lua flags=allow-oom
-- Gives the lease back: all its counts vanish at once, and nobody sums over it any more.
--
-- KEYS: the members' record, this node's lease
-- ARGV: this node's tag
redis.call('UNLINK', KEYS[2])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  local time = redis.call('TIME')
  local version = math.max(time[1] * 1000000 + time[2], redis.call('HGET', KEYS[1], '@version') + 1)
  redis.call('HSET', KEYS[1], '@version', string.format('%.0f', version))
end
return {'left'}
