"""The Lua scripts that Redis runs. `store.py` describes their keys."""

import hashlib


class Script:
    """A Lua script, which the server runs atomically."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


# Runs a command on a key of ours. What another program has left there is deleted, and the command run once more.
_CALL = """
local replaced = 0
local function call(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if type(reply) ~= 'table' or not reply.err then
    return reply
  end
  for _, fault in ipairs({'WRONGTYPE', 'not an integer', 'overflow'}) do
    if string.find(reply.err, fault, 1, true) then
      redis.call('DEL', key)
      replaced = replaced + 1
    end
  end
  return redis.call(command, key, ...)
end
"""

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# Takes the lock and reads the record: {token, session, client keeps history, keys that weren't ours}. Of a session at
# most one byte more than `longest` is read; there is none if it is empty. While another owner has the lock or comes
# first, it queues up and returns false. Running it again with the same owner gives the same result.
TAKE = Script(
    _CALL
    + _NOW
    + """
local lock, queue, seen, fence, session, keeper = unpack(KEYS)
local owner, lock_ms, ticket_ms, fence_ms, longest = unpack(ARGV)
local token = call('GET', lock)
local mine = token and string.sub(token, -#owner) == owner
if token and not mine and (redis.call('PTTL', lock) < 0 or not string.find(token, '^%-?%d+:%x+$')) then
  -- Not a lock of ours: nobody would ever release it.
  redis.call('DEL', lock)
  replaced = replaced + 1
  token = false
end
if not mine and (token or redis.call('EXISTS', queue) == 1) then
  for _, gone in ipairs(call('ZRANGEBYSCORE', seen, '-inf', now - ticket_ms)) do
    call('ZREM', queue, gone)
    call('ZREM', seen, gone)
  end
  local first = call('ZRANGE', queue, 0, 0)[1]
  if first and first ~= owner and not call('ZSCORE', seen, first) then
    -- Whoever queues is in both.
    redis.call('DEL', queue)
    first = nil
  end
  if token or (first and first ~= owner) then
    call('ZADD', queue, 'NX', now, owner)
    call('ZADD', seen, now, owner)
    redis.call('PEXPIRE', queue, ticket_ms)
    redis.call('PEXPIRE', seen, ticket_ms)
    return false
  end
  call('ZREM', queue, owner)
  call('ZREM', seen, owner)
end
if not mine then
  token = string.format('%.0f', call('INCR', fence)) .. ':' .. owner
  redis.call('PEXPIRE', fence, fence_ms)
  redis.call('SET', lock, token, 'PX', lock_ms)
end
local keeps = call('GET', keeper) == '1' and 1 or 0
return {token, call('GETRANGE', session, 0, longest), keeps, replaced}
"""
)

# Stores a record. Sessions beyond the cap belong to the same caller, so they are on the same node of a cluster.
_STORE = """
if data ~= '' then
  redis.call('SET', session, token .. '\\n' .. data, 'PX', live_ms)
  call('ZADD', index, now, member)
  redis.call('ZREMRANGEBYSCORE', index, '-inf', now - live_ms)
  redis.call('PEXPIRE', index, live_ms)
  local excess = redis.call('ZCARD', index) - cap
  if excess > 0 then
    for _, oldest in ipairs(redis.call('ZRANGE', index, 0, math.min(excess, 1000) - 1)) do
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
    _CALL
    + _NOW
    + """
local lock, session, keeper, index = unpack(KEYS)
local token, data, live_ms, keeps, keeper_ms, member, cap, sessions = unpack(ARGV)
if call('GET', lock) ~= token then
  return call('GETRANGE', session, 0, #token) == token .. '\\n' and 1 or 0
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
    _CALL
    + _NOW
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
DELETE = Script(
    _CALL
    + """
local lock, session, index = unpack(KEYS)
local token, member = unpack(ARGV)
if call('GET', lock) ~= token then
  return -1
end
call('ZREM', index, member)
redis.call('DEL', lock)
return redis.call('DEL', session)
"""
)

# Releases the lock or the place in the queue. By owner, not by token: an owner that gave up may not know its token.
RELEASE = Script(
    _CALL
    + """
local lock, queue, seen = unpack(KEYS)
local owner = ARGV[1]
call('ZREM', queue, owner)
call('ZREM', seen, owner)
local token = call('GET', lock)
if token and string.sub(token, -#owner) == owner then
  redis.call('DEL', lock)
end
return 1
"""
)

# Extends the lock's life: 1, or 0 if the holder has lost it.
RENEW = Script(
    _CALL
    + """
if call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
)

# The caller's sessions, most recent first, without expired ones; no more than there may be.
LIST = Script(
    _CALL
    + _NOW
    + """
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[1])
return redis.call('ZREVRANGE', KEYS[1], 0, ARGV[2] - 1)
"""
)

# Saves a snapshot and deletes the caller's oldest beyond the cap. Running it again changes nothing.
KEEP = Script(
    _CALL
    + _NOW
    + """
local snapshot, index = unpack(KEYS)
local data, live_ms, member, cap, snapshots = unpack(ARGV)
redis.call('SET', snapshot, data, 'PX', live_ms)
call('ZADD', index, now + time[2] % 1000 / 1000, member)
redis.call('ZREMRANGEBYSCORE', index, '-inf', now - live_ms)
redis.call('PEXPIRE', index, live_ms)
local excess = redis.call('ZCARD', index) - cap
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', index, 0, math.min(excess, 1000) - 1)) do
    redis.call('DEL', snapshots .. oldest)
    redis.call('ZREM', index, oldest)
  end
end
return 1
"""
)

# Deletes a snapshot: 1 if there was one.
FORGET = Script(
    _CALL
    + """
call('ZREM', KEYS[2], ARGV[1])
return redis.call('DEL', KEYS[1])
"""
)

# Reads values: {keys that weren't ours, values}. Of each at most one byte more than `longest`.
READ = Script(
    _CALL
    + """
local values = {}
for index, key in ipairs(KEYS) do
  values[index] = call('GETRANGE', key, 0, ARGV[1])
end
return {replaced, values}
"""
)
