"""The Lua scripts that Redis runs. `store.py` describes their keys."""

import hashlib


class Script:
    """A Lua script, which the server runs atomically."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Takes the lock and reads the record: {token, session or false, client keeps history}. While another owner has the lock
# or comes first, it queues up and returns false. Running it again with the same owner gives the same result.
TAKE = Script(
    _NOW
    + """
local lock, queue, seen, fence, session, keeper = unpack(KEYS)
local owner, lock_ms, ticket_ms, fence_ms = unpack(ARGV)
local token = redis.call('GET', lock)
local mine = token and string.sub(token, -#owner) == owner
if not mine and (token or redis.call('EXISTS', queue) == 1) then
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', seen, '-inf', now - ticket_ms)) do
    redis.call('ZREM', queue, gone)
    redis.call('ZREM', seen, gone)
  end
  local first = redis.call('ZRANGE', queue, 0, 0)[1]
  if token or (first and first ~= owner) then
    redis.call('ZADD', queue, 'NX', now, owner)
    redis.call('ZADD', seen, now, owner)
    redis.call('PEXPIRE', queue, ticket_ms)
    redis.call('PEXPIRE', seen, ticket_ms)
    return false
  end
  redis.call('ZREM', queue, owner)
  redis.call('ZREM', seen, owner)
end
if not mine then
  token = redis.call('INCR', fence) .. ':' .. owner
  redis.call('PEXPIRE', fence, fence_ms)
  redis.call('SET', lock, token, 'PX', lock_ms)
end
return {token, redis.call('GET', session), redis.call('EXISTS', keeper)}
"""
)

# Stores a record. Sessions beyond the cap belong to the same caller, so they are on the same node of a cluster.
_STORE = """
if data ~= '' then
  redis.call('SET', session, token .. '\\n' .. data, 'PX', live_ms)
  redis.call('ZADD', index, now, member)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - live_ms)
  redis.call('PEXPIRE', index, live_ms)
  local excess = redis.call('ZCARD', index) - cap
  if excess > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', index, 0, excess - 1)) do
      if oldest ~= member then
        redis.call('DEL', sessions .. oldest)
        redis.call('ZREM', index, oldest)
      end
    end
  end
end
if keeps == '1' then
  redis.call('SET', keeper, '1', 'PX', keeper_ms)
end
"""

# Saves a record and releases the lock if the holder still has it: 1, or else 0. Running it again gives the same result.
SAVE = Script(
    _NOW
    + """
local lock, session, keeper, index = unpack(KEYS)
local token, data, live_ms, keeps, keeper_ms, member, cap, sessions = unpack(ARGV)
if redis.call('GET', lock) ~= token then
  return redis.call('GETRANGE', session, 0, #token) == token .. '\\n' and 1 or 0
end
"""
    + _STORE
    + """
redis.call('DEL', lock)
return 1
"""
)

# Saves a record, whoever has the lock.
REPLACE = Script(
    _NOW
    + """
local session, keeper, index = unpack(KEYS)
local token, data, live_ms, keeps, keeper_ms, member, cap, sessions = unpack(ARGV)
"""
    + _STORE
    + """
return 1
"""
)

# Deletes a session and releases the lock: 1 if there was a session, 0 if not, -1 if the holder has lost the lock.
DELETE = Script("""
local lock, session, index = unpack(KEYS)
local token, member = unpack(ARGV)
if redis.call('GET', lock) ~= token then
  return -1
end
redis.call('ZREM', index, member)
redis.call('DEL', lock)
return redis.call('DEL', session)
""")

# Releases the lock or the place in the queue. By owner, not by token: an owner that gave up may not know its token.
RELEASE = Script("""
local lock, queue, seen = unpack(KEYS)
local owner = ARGV[1]
redis.call('ZREM', queue, owner)
redis.call('ZREM', seen, owner)
local token = redis.call('GET', lock)
if token and string.sub(token, -#owner) == owner then
  redis.call('DEL', lock)
end
return 1
""")

# Extends the lock's life: 1, or 0 if the holder has lost it.
RENEW = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

# The caller's sessions, most recent first, without expired ones.
LIST = Script(
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
return redis.call('ZREVRANGE', KEYS[1], 0, -1)
"""
)

# Saves a snapshot and deletes the caller's oldest beyond the cap. Running it again changes nothing.
KEEP = Script(
    _NOW
    + """
local snapshot, index = unpack(KEYS)
local data, live_ms, member, cap, snapshots = unpack(ARGV)
redis.call('SET', snapshot, data, 'PX', live_ms)
redis.call('ZADD', index, now + time[2] % 1000 / 1000, member)
redis.call('ZREMRANGEBYSCORE', index, '-inf', now - live_ms)
redis.call('PEXPIRE', index, live_ms)
local excess = redis.call('ZCARD', index) - cap
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', index, 0, excess - 1)) do
    redis.call('DEL', snapshots .. oldest)
    redis.call('ZREM', index, oldest)
  end
end
return 1
"""
)

# Deletes a snapshot: 1 if there was one.
FORGET = Script("""
redis.call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
""")
