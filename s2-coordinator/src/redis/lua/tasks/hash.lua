-- What a step reads and writes about tasks.
--
-- `tasks` is one hash, so that a step reads and writes all it needs in one command each. Its fields: `m`, the numbers of the
-- scheduler; `<id>`, 16 digits, the state of a task, and after it `d` its text, `f` what it was to come after, `w` what it
-- waits for, `a` what it has waited for while it was blocked, `h` the attempts that failed, `e` how its claims ended, `b` what
-- blocked it, until somebody has it again, `p` how it was released from that, `o` what came of it, `k` its key; `key:<key>`; `class:<n>`; `kind:<n>`;
-- `session:<n>`, `name:<name>`, `request:<n>:<place>`.

local WAITING, DELAYED, READY, CLAIMED, BLOCKED, ON_HOLD, DONE, FAILED, CANCELLED, RESUMABLE = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local STATES = {
  [0] = 'waiting', 'delayed', 'ready', 'claimed', 'blocked', 'on_hold', 'done', 'failed', 'cancelled', 'ready',
}

-- Flags of a task: somebody has had it since it was assigned; it was redriven; which of its other fields there are; whether
-- somebody wants to know what becomes of it; whether its session waits for it in particular.
local FLAG = {
  had = 1, redriven = 2, after = 4, waits = 8, lends = 16, answers = 32, history = 64, ends = 128, blocker = 256,
  outcome = 512, keyed = 1024, watched = 2048, awaited = 4096, released = 8192,
}

-- What never changes: priority, attempts, lease, time-out, when it was submitted, start, deadline, depth, path, parent, bytes of
-- its text; kind and trace.
local TERMS = '>BI4I7I7I7I7I7I4I4I7I4I2I2'

local ON_FAILURE = { fail = 0, hold = 1, run = 2 }

-- How a claim ended: by its holder up to here.
local END = {
  completed = 1, retrying = 2, given_up = 3, released = 4, refused = 5, blocked = 6, expired = 7, superseded = 8,
  cancelled = 9, overdue = 10, outdone = 11, stalled = 12,
}
local LAST_BY_HOLDER = 6

-- How much of what is due a step does at most, and how many other tasks it changes because of what it did.
local MOST_A_STEP = 250

-- version, tasks by state, sessions, classes, waiting claims, chores, bytes of finished tasks, when the oldest of them
-- finished (or 0), when the next timer is armed, tasks in own queues, the last class and kind, when anything last moved, and
-- whether that is of interest: no, since there is nothing to do; yes; no, since a person knows
local NUMBERS = '>I7I7I7I7I7I7I7I7I7I7I4I4I4I4I7I7I7I7I7I7I7B'

-- The server's own functions, which are not there yet when a library is loaded.
local band, bor, bnot, pack, unpack_bytes, sub, format

-- What this step knows and changes. `T` are the numbers of the scheduler, nothing before they are read.
local T, loaded, seen, fetched, pending, changed, timers, soonest, nudged, stealable, units, due_left
-- How many bytes this step has handed out to who has asked for them, and how many are still to ask.
local handed, to_ask
-- Numbers that were read before, by prefix.
local numbers_of = {}

local function has(rec, flag)
  return band(rec.flags, flag) ~= 0
end

local function with(rec, flag)
  rec.flags = bor(rec.flags, flag)
end

local function without(rec, flag)
  rec.flags = band(rec.flags, bnot(flag))
end

-- Sixteen digits: so numbers sort as text, and few have to be told anew. It is also called before anything is open.
local function id16(id)
  return string.format('%016d', id)
end

-- The sixteen digits of a number that is told as text.
local function name_of(text)
  return #text == 16 and text or id16(tonumber(text))
end

-- Reads fields of the hash ahead.
local function fetch(fields)
  local wanted = {}
  for _, field in ipairs(fields) do
    if fetched[field] == nil and pending[field] == nil then
      wanted[#wanted + 1] = field
    end
  end
  for from = 1, #wanted, 1000 do
    local values = call('HMGET', P .. 'tasks', unpack(wanted, from, at_most(from + 999, #wanted)))
    for nth, value in ipairs(values) do
      fetched[wanted[from + nth - 1]] = value
    end
  end
end

local function read(field)
  local value = pending[field]
  if value == nil then
    value = fetched[field]
    if value == nil then
      value = call('HGET', P .. 'tasks', field)
      fetched[field] = value
    end
  end
  return value
end

local function write(field, value)
  pending[field] = value
end

local function drop(field)
  pending[field] = false
end

-- Begins the part of a step that is about tasks, and reads these fields along with the numbers.
local function open(fields)
  if T then
    return fields and fetch(fields)
  end
  if not band then
    band, bor, bnot, pack, unpack_bytes, sub, format = bit.band, bit.bor, bit.bnot, struct.pack, struct.unpack,
      string.sub, string.format
  end
  loaded, seen, fetched, pending, changed, timers, soonest = {}, {}, {}, {}, {}, {}, NEVER
  nudged, stealable, units, due_left, handed, to_ask = {}, false, MOST_A_STEP, MOST_A_STEP, 0, 0
  fields = fields or {}
  local values = call('HMGET', P .. 'tasks', 'm', unpack(fields, 1, at_most(#fields, 1000)))
  for nth = 2, #values do
    fetched[fields[nth - 1]] = values[nth]
  end
  local packed = values[1]
  T = numbers_of[P]
  if not (T and T.packed == packed) then
    T = { packed = packed }
    numbers_of[P] = T
    if packed then
      T.version, T[0], T[1], T[2], T[3], T[4], T[5], T[6], T[7], T[8], T.sessions, T.classes, T.waiting, T.chores, T.bytes,
        T.oldest, T.armed, T.own, T.last_class, T.last_kind, T.progress, T.flat = unpack_bytes(NUMBERS, packed)
    else
      T.version, T[0], T[1], T[2], T[3], T[4], T[5], T[6], T[7], T[8] = 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
      T.sessions, T.classes, T.waiting, T.chores, T.bytes, T.oldest, T.armed, T.own = 0, 0, 0, 0, 0, 0, NEVER, 0
      T.progress, T.flat = 0, 0
      -- A new fleet, or one that has lost its tasks: what is left of them means nothing, and no number is used twice.
      T.last_class = math.floor(target / 1000000)
      T.last_kind = T.last_class
      for _, name in ipairs(call('ZRANGE', P .. 'own', 0, -1)) do
        for _, c in ipairs(call('HKEYS', P .. 'own:classes:' .. name)) do
          call('DEL', P .. 'own:ready:' .. c .. ':' .. name, P .. 'own:age:' .. c .. ':' .. name)
        end
        call('DEL', P .. 'own:classes:' .. name)
      end
      for _, key in ipairs({ 'ids', 'timers', 'classes', 'kinds', 'chores', 'finished', 'sessions', 'own', 'rings' }) do
        call('DEL', P .. key)
      end
      M.suspects, M.changed = 0, true
    end
  end
end

-- Something is due at `at`, whether or not anybody calls.
local function note_due(at)
  soonest = at_most(soonest, at)
end

-- Timers, by what is due: the end of a lease, a deadline, a start, the end of the time to resume, an offer after a refusal, the
-- end of a wait.
-- Of what is due at the same, the smallest is done first.
local DUE = { lease = 'a', deadline = 'b', start = 'c', window = 'd', offer = 'e', wait = 'f' }

local function arm_timer(item, at)
  timers[item] = at
  note_due(at)
end

local function disarm_timer(item)
  timers[item] = false
end

local function write_timers()
  local adds, removes = {}, {}
  for item, at in pairs(timers) do
    if at then
      adds[#adds + 1], adds[#adds + 2] = at, item
    else
      removes[#removes + 1] = item
    end
  end
  for from = 1, #removes, 1000 do
    call('ZREM', P .. 'timers', unpack(removes, from, at_most(from + 999, #removes)))
  end
  for from = 1, #adds, 1000 do
    call('ZADD', P .. 'timers', unpack(adds, from, at_most(from + 999, #adds)))
  end
  timers = {}
end
