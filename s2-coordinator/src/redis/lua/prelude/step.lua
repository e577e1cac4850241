-- One step of the fleet: what every verb begins with.
--
-- keys[1] is the prefix of the fleet, `s2:{fleet}:`. args[1] names the calling process and, after a colon, its connection:
-- together the channel on which it listens. args[2] is the time where a clock other than the server's decides, args[3] is
-- "<lane> <number>" of a request that must not happen twice, args[4] are the settings. The verb's own arguments follow,
-- from ARGV[5] on.
--
-- Lua keeps 53 bits of a number, and `..`, tostring and cjson only 14 digits; so numbers go through `int` where they
-- become text. A step validates before it writes: there is no rollback.
--
-- A library is loaded once; what lies outside of functions stays from one call to the next, so `begin` sets it all. What a
-- step has read or written stays in memory: as long as the server holds the same bytes, they need not be read anew.

local LAYOUT = '1'
local NEVER = 9007199254740991

-- The settings, the prefix, the calling process, and what it asks for.
local C, P, CALLER, CHANNEL, KEYS, ARGV
-- The state of the fleet as a whole.
local M
-- The time of this step. While it catches up, the time at which something was due.
local now
-- The time that this step is to catch up with.
local target
-- What this step may still work on before it asks to be called again.
local budget
-- Topics and groups that this step has loaded; false where there is none.
local topics, groups
-- Topics on which this step has published.
local published
local call

-- What was read before, by prefix of the fleet: `meta`, `topics` by name, `groups` by incarnation; and how much.
local memory, remembered = {}, 0
-- The part of it that is about this fleet.
local known
-- Whether the last step came to its end: one that failed leaves what the server does not hold.
local finished = true
-- The part of a step that is about tasks: how it begins, what it does with time, how it ends; and its verbs by name.
local tasks = { verbs = {} }

-- The numbers of the fleet: the time of the last step that changed them, when something is due, the last number, letter and
-- escalation that were given, topics, the highest end of those that were forgotten, the journal, when all this began, and how
-- many tasks may wait for themselves.
local META = '>I7I7I7I7I7I7I7I7I7I7I7BI4'

-- Numbers that were written before: most come again.
local texts, written = {}, 0

local function int(n)
  local text = texts[n]
  if not text then
    if written >= 1000 then
      texts, written = {}, 0
    end
    text = string.format('%d', n)
    texts[n], written = text, written + 1
  end
  return text
end

local function at_least(a, b)
  return a > b and a or b
end

local function at_most(a, b)
  return a < b and a or b
end

-- How long to wait after so many attempts: doubling, of which the upper half is random.
local function backoff(attempts, random)
  local full = at_most(C.backoff_base * 2 ^ at_most(attempts - 1, 31), C.backoff_max)
  local half = math.floor(full / 2)
  return half + math.floor((full - half) * random / 4294967296)
end

-- Settings that were read before, by their text.
local settings = {}

local function read_settings(text)
  local read, nth = {}, 0
  for value in string.gmatch(text, '%S+') do
    nth = nth + 1
    read[SETTINGS[nth]] = tonumber(value) or false
  end
  settings[text] = read
  return read
end

-- Who calls, by the name of its connection.
local callers = {}

local function name_caller(channel)
  callers[channel] = string.match(channel, '^[^:]+')
  return callers[channel]
end

-- Forgets what was read before, lest it grows for ever.
local function recall()
  if not finished then
    tasks.forget()
  end
  if not finished or remembered > 500 then
    memory, remembered, callers = {}, 0, {}
  end
  finished, known = false, memory[P]
  if not known then
    known = { meta = {}, topics = {}, groups = {} }
    memory[P] = known
  end
end

-- A new fleet, or one that has lost its state: it goes on above everything that is there.
local function recover()
  local function last(key, command, ...)
    local found = call(command, P .. key, ...)[1]
    return found and tonumber(string.match(type(found) == 'table' and found[1] or found, '^%d+')) or 0
  end
  local entries = last('journal', 'XREVRANGE', '+', '-', 'COUNT', 1)
  local oldest = last('journal', 'XRANGE', '-', '+', 'COUNT', 1)
  M.now, M.due, M.number, M.topics, M.highest, M.bytes, M.epoch, M.tails = 0, 0, 0, 0, 0, 0, 0, 0
  M.letter, M.escalation = last('letters', 'ZREVRANGE', 0, 0), last('inbox', 'ZREVRANGE', 0, 0)
  M.suspects = call('ZCARD', P .. 'rings')
  M.first, M.next, M.changed = oldest > 0 and oldest or entries + 1, entries + 1, true
  -- Whoever knew it before asks what has become of it.
  call('PUBLISH', P .. 'wake', '')
end

-- Begins a step, or answers why not.
local function begin(keys, args)
  call, KEYS, ARGV = redis.call, keys, args
  P, CHANNEL = keys[1], args[1]
  C = settings[args[4]] or read_settings(args[4])
  recall()
  CALLER = callers[CHANNEL] or name_caller(CHANNEL)
  M, topics, groups, published, budget = known.meta, {}, {}, {}, 500
  tasks.begin()
  local meta = call('HMGET', P .. 'meta', 'layout', 'state')
  if meta[1] and meta[1] ~= LAYOUT then
    return { 'layout', meta[1] }
  end
  if not meta[1] or not meta[2] then
    recover()
  elseif M.packed ~= meta[2] then
    M.now, M.due, M.number, M.letter, M.escalation, M.topics, M.highest, M.first, M.next, M.bytes, M.epoch, M.tails,
      M.suspects = struct.unpack(META, meta[2])
    M.packed = meta[2]
  end
  if args[2] ~= '' then
    target = tonumber(args[2])
  else
    local time = call('TIME')
    target = time[1] * 1000000 + time[2]
  end
  target = at_least(target, M.now)
  if M.epoch == 0 then
    M.epoch, M.changed = target, true
  end
  now = M.now
end

-- Writes what has changed. That time has passed is written now and then, so that it never goes back by much.
local function save_meta()
  if M.changed or now - M.now >= 1000000 then
    M.now, M.changed = now, false
    M.packed = struct.pack(META, now, M.due, M.number, M.letter, M.escalation, M.topics, M.highest, M.first, M.next,
      M.bytes, M.epoch, M.tails, M.suspects)
    call('HSET', P .. 'meta', 'layout', LAYOUT, 'state', M.packed)
  end
end

-- A number that the fleet has not used, not even before it lost its memory.
local function number()
  M.number, M.changed = at_least(M.number + 1, target), true
  return M.number
end

-- Something is due at `at`, whether or not anybody calls.
local function arm(item, at)
  call('ZADD', P .. 'due', 'LT', at, item)
  if at < M.due then
    M.due, M.changed = at, true
  end
end

-- The calling process has given a sign of life.
local function show_life()
  local gone = now + C.gone_after
  call('ZADD', P .. 'due', gone, 'p:' .. CALLER)
  if gone < M.due then
    M.due, M.changed = gone, true
  end
end

-- What the calling process was answered is kept as long as it lives, and then for the window of idempotency.
local function keep_answers()
  call('PEXPIRE', P .. 'q:' .. CALLER, math.floor(C.window / 1000) + 60000)
end

-- Tells a process something; answers whether it listens on that connection. It is told either of deliveries, by
-- {consumer, ticket, deliveries}, the last unless they are to be fetched, or that a topic goes on, by {name}.
local function push(channel, message)
  return call('PUBLISH', P .. 'p:' .. channel, cmsgpack.pack(message)) > 0
end

-- Tells everybody who has asked for it once.
local function wake_tails(key)
  local channels = call('SMEMBERS', P .. 'tails:' .. key)
  call('DEL', P .. 'tails:' .. key)
  for _, channel in ipairs(channels) do
    push(channel, { key })
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

-- Events and entries of the journal lie in streams under `<position>-<when recorded, in µs>`. What this step has written itself
-- has the position and the number of events with it.
local function id_position(entry)
  return entry[3] or tonumber(string.match(entry[1], '^%d+'))
end

-- The id of the event that comes `nth` places after the first of an entry.
local function event_id(entry, nth)
  return nth == 0 and entry[1] or string.format('%d', id_position(entry) + nth) .. string.match(entry[1], '%-.*')
end

local function recorded(entry)
  return tonumber(string.match(entry[1], '%d+$'))
end

local function append_entry(json)
  call('XADD', P .. 'journal', string.format('%d-%d', M.next, now), 'e', json)
  M.bytes, M.next, M.changed = M.bytes + #json + 64, M.next + 1, true
end

-- Drops the oldest entries of the journal, an eighth of what is kept at a time, and says so in an entry of its own.
local function trim_journal()
  local too_much = M.bytes > C.journal_bytes
  local oldest = C.journal_age and M.next - M.first > 1 and call('XRANGE', P .. 'journal', '-', '+', 'COUNT', 1)[1]
  local oldest_at = oldest and recorded(oldest)
  local too_old = oldest_at and oldest_at + C.journal_age <= now
  if too_much or too_old then
    local room = too_much and C.journal_bytes - math.floor(C.journal_bytes / 8) or NEVER
    local youth = too_old and C.journal_age - math.floor(C.journal_age / 8) or NEVER
    local first, dropping = M.first, true
    while dropping and budget > 0 do
      local entries = call('XRANGE', P .. 'journal', int(M.first) .. '-0', '+', 'COUNT', 100)
      dropping = #entries > 0
      for _, entry in ipairs(entries) do
        if not (M.bytes > room or now - recorded(entry) >= youth) then
          dropping = false
          break
        end
        M.bytes, M.changed = at_least(M.bytes - #entry[2][2] - 64, 0), true
        M.first = id_position(entry) + 1
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
    oldest = C.journal_age and M.next - M.first > 1 and call('XRANGE', P .. 'journal', '-', '+', 'COUNT', 1)[1]
    oldest_at = oldest and recorded(oldest)
  end
  return oldest_at and oldest_at + C.journal_age
end

-- Keeps an entry, said in JSON.
local function record(json)
  append_entry(json)
  -- The first entries are what somebody else may have found nothing due of.
  if C.journal_age and (not known.journal_armed or M.next - M.first <= 2) then
    arm('journal', now + C.journal_age)
    known.journal_armed = true
  end
  if M.bytes > C.journal_bytes then
    trim_journal()
  end
  if M.tails == 1 then
    M.tails = 0
    wake_tails('s2.journal')
  end
  return M.next - 1
end

-- Keeps a record of what this step changes: component, operation, subject, params as {name, value, …}, severity, trace.
local function journal(entry)
  local params = {}
  for nth = 1, #entry.params, 2 do
    params[#params + 1] = cjson.encode(entry.params[nth]) .. ':' .. quoted(entry.params[nth + 1])
  end
  local trace = entry.trace and entry.trace ~= '' and ',"trace":' .. cjson.encode(entry.trace) or ''
  return record('{"component":' .. cjson.encode(entry.component) .. ',"operation":' .. cjson.encode(entry.operation) ..
    ',"subject":' .. cjson.encode(entry.subject) .. ',"params":{' .. table.concat(params, ',') ..
    '},"severity":"' .. (entry.severity or 'INFO') .. '"' .. trace .. '}')
end
