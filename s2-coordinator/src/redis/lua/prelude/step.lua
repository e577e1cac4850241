-- One step of the fleet: what every script begins with.
--
-- KEYS[1] is the prefix of the fleet, `s2:{fleet}:`. ARGV[1] names the calling process, ARGV[2] is the time where a clock
-- other than the server's decides, ARGV[3] and ARGV[4] are the lane and the number of a request that must not happen twice.
-- The verb's own arguments follow. `C` holds the configuration.
--
-- Lua keeps 53 bits of a number, and `..`, tostring and cjson only 14 digits; so numbers go through `int` where they
-- become text. A step validates before it writes: there is no rollback.

local P = KEYS[1]
local CALLER = ARGV[1]
local LAYOUT = '1'
local NEVER = 9007199254740991
local call = redis.call

local function int(n)
  return string.format('%.0f', n)
end

local function at_least(a, b)
  return a > b and a or b
end

local function at_most(a, b)
  return a < b and a or b
end

-- The state of the fleet as a whole.
local M
do
  local meta = call('HMGET', P .. 'meta', 'layout', 'state')
  if meta[1] and meta[1] ~= LAYOUT then
    return { 'layout', meta[1], LAYOUT }
  end
  if meta[1] and meta[2] then
    M = cmsgpack.unpack(meta[2])
  else
    -- A new fleet, or one that has lost this key: go on above everything that is there.
    local function last(key, command)
      local found = call(command, P .. key, '+', '-', 'COUNT', 1)[1]
      return found and tonumber(string.match(found[1], '^%d+')) or 0
    end
    local letter = call('ZREVRANGE', P .. 'letters', 0, 0)[1]
    local escalation = call('ZREVRANGE', P .. 'inbox', 0, 0)[1]
    local oldest = call('XRANGE', P .. 'journal', '-', '+', 'COUNT', 1)[1]
    local entries = last('journal', 'XREVRANGE')
    M = {
      now = 0, due = 0, number = 0, topics = 0, highest = 0,
      letter = tonumber(letter) or 0, escalation = tonumber(escalation) or 0,
      first = oldest and tonumber(string.match(oldest[1], '^%d+')) or entries + 1, next = entries + 1, bytes = 0, tails = false,
    }
  end
end

local target
if ARGV[2] ~= '' then
  target = tonumber(ARGV[2])
else
  local time = call('TIME')
  target = time[1] * 1000000 + time[2]
end
target = at_least(target, M.now)
if not M.epoch then
  M.epoch = target
end

-- The time of this step. While it catches up, the time at which something was due.
local now = at_least(M.now, 0)
-- What this step may still work on before it asks to be called again.
local budget = 500

-- A number that the fleet has not used, not even before it lost its memory.
local function number()
  M.number = at_least(M.number + 1, target)
  return M.number
end

-- Something is due at `at`, whether or not anybody calls.
local function arm(item, at)
  call('ZADD', P .. 'due', 'LT', at, item)
  M.due = at_most(M.due, at)
end

-- Tells a process something; it is listening.
local function push(process, message)
  return call('PUBLISH', P .. 'p:' .. process, cmsgpack.pack(message))
end

-- Tells everybody who has asked for it once.
local function wake_tails(key)
  local processes = call('SMEMBERS', P .. 'tails:' .. key)
  call('DEL', P .. 'tails:' .. key)
  for _, process in ipairs(processes) do
    push(process, { 'tail', key })
  end
end

-- Wakes whoever listens for `name` in any process: the verb of a host's own scripts.
local function wake(name)
  call('PUBLISH', P .. 'wake', name)
end

local function quoted(value)
  local kind = type(value)
  if kind == 'number' then
    return int(value)
  elseif kind == 'boolean' then
    return value and 'true' or 'false'
  elseif kind == 'table' then
    local parts = {}
    for nth, each in ipairs(value) do
      parts[nth] = quoted(each)
    end
    return '[' .. table.concat(parts, ',') .. ']'
  end
  return cjson.encode(value)
end

local function append_entry(json)
  call('XADD', P .. 'journal', int(M.next) .. '-0', 'e', json, 't', int(now))
  M.bytes = M.bytes + #json + 64
  M.next = M.next + 1
end

-- Drops the oldest entries of the journal, an eighth of what is kept at a time, and says so in an entry of its own.
local function trim_journal()
  local too_much = M.bytes > C.journal_bytes
  local oldest = C.journal_age and M.next - M.first > 1 and call('XRANGE', P .. 'journal', '-', '+', 'COUNT', 1)[1]
  local oldest_at = oldest and tonumber(oldest[2][4])
  local too_old = oldest_at and oldest_at + C.journal_age <= now
  if too_much or too_old then
    local room = too_much and C.journal_bytes - math.floor(C.journal_bytes / 8) or NEVER
    local youth = too_old and C.journal_age - math.floor(C.journal_age / 8) or NEVER
    local first, bytes, dropping = M.first, M.bytes, true
    while dropping and budget > 0 do
      local entries = call('XRANGE', P .. 'journal', int(M.first) .. '-0', '+', 'COUNT', 100)
      dropping = #entries > 0
      for _, entry in ipairs(entries) do
        if not (M.bytes > room or now - tonumber(entry[2][4]) >= youth) then
          dropping = false
          break
        end
        M.bytes = M.bytes - #entry[2][2] - 64
        M.first = tonumber(string.match(entry[1], '^%d+')) + 1
        budget = budget - 1
      end
      if dropping or M.first > first then
        call('XTRIM', P .. 'journal', 'MINID', '=', int(M.first) .. '-0')
      end
    end
    if dropping then
      arm('journal', now)
    end
    if M.first > first then
      append_entry('{"component":"journal","operation":"trim","subject":"s2.journal","params":{"through":' ..
        int(M.first - 1) .. ',"entries":' .. int(M.first - first) .. '},"severity":"INFO"}')
    end
    oldest_at = nil
  end
  return oldest_at and oldest_at + C.journal_age
end

-- Keeps a record of what this step changes: component, operation, subject, params as {name, value, …}, severity, trace.
local function journal(record)
  local params = {}
  for nth = 1, #record.params, 2 do
    params[#params + 1] = cjson.encode(record.params[nth]) .. ':' .. quoted(record.params[nth + 1])
  end
  local trace = record.trace and record.trace ~= '' and ',"trace":' .. cjson.encode(record.trace) or ''
  append_entry('{"component":' .. cjson.encode(record.component) .. ',"operation":' .. cjson.encode(record.operation) ..
    ',"subject":' .. cjson.encode(record.subject) .. ',"params":{' .. table.concat(params, ',') ..
    '},"severity":"' .. (record.severity or 'INFO') .. '"' .. trace .. '}')
  if C.journal_age then
    arm('journal', now + C.journal_age)
  end
  if M.bytes > C.journal_bytes then
    trim_journal()
  end
  if M.tails then
    M.tails = false
    wake_tails('s2.journal')
  end
  return M.next - 1
end
