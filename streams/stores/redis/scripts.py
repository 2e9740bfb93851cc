"""What Redis does in one step: scripts in Lua, over keys that lie on one server."""

from __future__ import annotations

SWAP = """
local function swapped(key, read, row)
    local head = redis.call('GETRANGE', key, 0, 23)
    local revision = string.sub(head, 17)
    if head == '' then revision = '\\0\\0\\0\\0\\0\\0\\0\\0' end
    if revision == read then
        if ARGV[1] == '0' then
            redis.call('SET', key, row)
        else
            redis.call('SET', key, row, 'EX', ARGV[1])
        end
        return 'ok'
    end
    if redis.call('GET', key) == row then return 'already' end
    return 'lost'
end
local swaps = {}
for n, key in ipairs(KEYS) do swaps[n] = swapped(key, ARGV[2 * n], ARGV[2 * n + 1]) end
return swaps
"""
"""`streams.stores.base.swapped` for each key: (seconds to live or 0, then of each the revision read and the row)
-> a Swap each.
"""


LEASE = """
local rows = {}
for n, key in ipairs(KEYS) do
    local row = redis.call('GET', key)
    if row and #row >= 24 and redis.call('TTL', key) < ARGV[1] / 2 then
        redis.call('EXPIRE', key, ARGV[1])
    end
    rows[n] = row
end
return rows
"""
"""Read rows to be written again, and let them live until then: (seconds to live) -> the row of each key.

A row that expired in between would be folded anew, and one offset have two predictions.
"""
