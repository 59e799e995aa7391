#!lua flags=allow-oom
-- Gives the lease back: all its counts vanish at once, and nobody sums over it any more.
--
-- KEYS: the members' record, this node's lease
-- ARGV: this node's tag
redis.call('UNLINK', KEYS[2])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], '@version', 1)
end
return {'left'}
