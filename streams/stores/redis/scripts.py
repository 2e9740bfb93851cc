"""What Redis does in one step: scripts in Lua."""

from __future__ import annotations

SWAP = """
local head = redis.call('GETRANGE', KEYS[1], 0, 23)
local revision = string.sub(head, 17)
if head == '' then revision = '\\0\\0\\0\\0\\0\\0\\0\\0' end
if revision == ARGV[1] then
    if ARGV[3] == '0' then
        redis.call('SET', KEYS[1], ARGV[2])
    else
        redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
    end
    return 'ok'
end
if redis.call('GET', KEYS[1]) == ARGV[2] then return 'already' end
return 'lost'
"""
"""`streams.stores.base.swapped` for one key: (revision read, row, seconds to live or 0) -> Swap."""


LEASE = """
local row = redis.call('GET', KEYS[1])
if row and #row >= 24 and redis.call('TTL', KEYS[1]) < ARGV[1] / 2 then
    redis.call('EXPIRE', KEYS[1], ARGV[1])
end
return row
"""
"""Read a row to be written again, and let it live until then: (seconds to live) -> row.

A row that expired in between would be folded anew, and one offset have two predictions.
"""
