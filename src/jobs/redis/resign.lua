-- KEYS: the recorder's lease. ARGV: who. Ends the lease where it is that one's.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
