-- KEYS: clock, index. ARGV: probe channel, what to say, size, ttl, max. Says it with the clock, so that whoever hears
-- it knows that everything up to there has passed. The settings are written each time: they come back after a flush,
-- and a demoted master is noticed because it refuses.
local names = { clock = KEYS[1], index = KEYS[2] }
local clock = open_clock(names, now_ms())
redis.call('HSET', names.clock, 'size', ARGV[3], 'ttl', ARGV[4], 'max', ARGV[5])
local words = { ARGV[2], text(clock.epoch), text(clock.n), text(clock.losses) }
return redis.call('PUBLISH', ARGV[1], table.concat(words, ' '))
